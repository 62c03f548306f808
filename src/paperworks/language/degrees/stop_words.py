"""Words that carry no content of their own and so end a key phrase: lists by name, or from a file."""

from __future__ import annotations

from pathlib import Path

from paperworks.core.errors import OptionError, did_you_mean

ENGLISH = frozenset(
    """
    a an the this that these those such same other another each every either neither both all any some no none few
    many much more most less least several enough own i me my mine myself we us our ours ourselves you your yours
    yourself yourselves he him his himself she her hers herself it its itself they them their theirs themselves one
    ones oneself someone somebody something anyone anybody anything everyone everybody everything nobody nothing who
    whom whose which what whoever whatever whichever am is are was were be been being have has had having do does
    did doing done can could may might must shall should will would ought let lets about above across after against
    along amid among around as at before behind below beneath beside besides between beyond but by despite down
    during except for from in inside into like near of off on onto out outside over past per since through
    throughout till to toward towards under underneath until unto up upon via with within without and or nor so yet
    if unless because although though while whereas whether than then else when whenever where wherever why how
    however therefore thus hence not never ever always often sometimes usually again also too very just only even
    still already almost quite rather really perhaps maybe here there now once soon well away back further instead
    otherwise etc i'm i've i'd i'll we're we've we'd we'll you're you've you'd you'll he's he'd he'll she's she'd
    she'll it's it'd it'll they're they've they'd they'll that's that'd that'll there's there'd there'll here's
    what's who's who'd who'll where's when's why's how's let's isn't aren't wasn't weren't haven't hasn't hadn't
    don't doesn't didn't can't cannot couldn't mayn't mightn't mustn't shan't shouldn't won't wouldn't ain't e g eg
    ie s t d ll m re ve
    """.split()  # noqa: SIM905 -- a list of quoted words is hard to read
)
"""English function words: determiners, pronouns, auxiliaries, prepositions, conjunctions, adverbs that modify, and the
contractions of these."""

SHORT_ENGLISH = frozenset(
    """
    a an and are as at be by for from has in is it its of on or that the to was were will with this i my we they he
    she but not so then than very
    """.split()  # noqa: SIM905 -- a list of quoted words is hard to read
)
"""A short list, small enough to work examples by hand."""

NAMED = {"english": ENGLISH, "short": SHORT_ENGLISH}


def load_stop_words(name_or_file: str) -> frozenset[str]:
    """The stop words of a list by name (`english`, `short`) or of a file: words between white space, # to the line's end
    a remark.

    Raises OptionError for a name that is neither, a file that cannot be read, or one without a word.
    """
    if name_or_file in NAMED:
        return NAMED[name_or_file]
    path = Path(name_or_file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        hint = did_you_mean(name_or_file, NAMED)
        raise OptionError(
            f"stop words {name_or_file!r}: no such file or list{hint}; give a file with a word a line"
        ) from None
    except (OSError, ValueError) as error:
        raise OptionError(f"stop words {name_or_file!r}: cannot be read as UTF-8 text ({error})") from None
    words = {word.lower().replace("’", "'") for line in text.splitlines() for word in line.partition("#")[0].split()}
    if not words:
        raise OptionError(f"stop words {name_or_file!r}: the file has no word; give a word a line")
    return frozenset(words)
