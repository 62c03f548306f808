"""Ladders: a response, and versions of it with more and more key phrases removed, which are worse by construction.

What is removed is removed by the word: markup, marks, stop words and their order stay, case does not matter, and no word
is cut in two. A word goes as soon as any phrase that covers it goes, so that each version is contained in the one before.
Everything follows from the text and the options; random removal too, whose order is drawn from the text itself.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import pickle
import random
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed
from paperworks.language.data.schemas import Graded
from paperworks.language.degrees.rake import Extractor, Rake
from paperworks.language.degrees.stop_words import load_stop_words
from paperworks.language.degrees.tf_idf import TfIdf
from paperworks.language.degrees.words import Words, split_words

Removal = Literal["key", "random", "masked"]
ExtractorName = Literal["rake", "tfidf"]

ENOUGH = 0.1  # share of responses that must have a ladder
CHUNK = 2_000  # texts sent to a process at a time

_NEVER = 1 << 60  # the rank of a word that no phrase covers
_CLOSING = re.compile(r"[.,;:!?)\]}%…](?!\w)|\n|\Z")  # what no space stands before, unless a word follows: " .5"


@dataclass(frozen=True)
class LadderOptions:
    """How ladders are made. The SPO paper (arXiv 2409.17791) names RAKE; the other choices and all numbers are ours."""

    degrees: int = option(4, "versions a response, the response itself counted", low=2)
    rho: float = option(1.0, "largest share of key phrases removed", above=0, high=1)
    removal: Removal = option(
        "key", "what goes: key phrases, as many random words, or masked: key words replaced by the neutral token"
    )
    extractor: ExtractorName = option("rake", "how key phrases are found: rake, or tfidf over all responses")
    stop_words: str = option("english", "words that end a phrase: english, short, or a file with a word a line")
    neutral: str = option("…", "what a key word is replaced by, with removal=masked")

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, allowed in (("removal", get_args(Removal)), ("extractor", get_args(ExtractorName))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"option {name}={getattr(self, name)}: expected {', '.join(allowed)}")
        if self.removal == "masked" and not self.neutral.strip():
            raise OptionError("option neutral is empty: expected a token to put in place of each word")

    @property
    def phrases_needed(self) -> int:
        """The fewest key phrases with which every version lacks more than the one before; degrees - 1 at rho=1."""
        needed = self.degrees - 1
        while not self.is_climbable(needed):
            needed += 1
        return needed

    def removed(self, phrases: int) -> list[int]:
        """How many of `phrases` key phrases each version lacks: ceil(degree * phrases / (degrees - 1) * rho)."""
        # The small number keeps an exact product from being rounded up to the next whole number.
        return [math.ceil(j * phrases * self.rho / (self.degrees - 1) - 1e-9) for j in range(self.degrees)]

    def is_climbable(self, phrases: int) -> bool:
        """Whether every version lacks more than the one before it."""
        counts = self.removed(phrases)
        return all(below < above for below, above in itertools.pairwise(counts))


@dataclass(frozen=True)
class Ladder:
    """Versions of a response by degree, the response itself first."""

    versions: tuple[Graded, ...]
    removed: tuple[tuple[str, ...], ...]  # what each version lacks, best phrase first (random removal: single words)


@dataclass(frozen=True)
class LadderStatistics:
    """What ladders came to over many responses."""

    responses: int
    with_ladder: int
    too_few_phrases: int  # responses without a ladder
    dropped_versions: int  # versions left out because nothing to read was left of them
    phrases: float  # mean number of key phrases a response
    words: float  # mean number of words a response
    words_by_degree: tuple[float, ...]  # mean number of words left, over responses with a ladder

    @property
    def share(self) -> float:
        """Share of responses that have a ladder."""
        return self.with_ladder / self.responses if self.responses else 0.0

    def lines(self) -> list[str]:
        """The statistics as a few lines of text."""
        left = ", ".join(f"{words:.1f}" for words in self.words_by_degree)
        lines = [
            f"{self.responses} responses of {self.words:.1f} words, {self.phrases:.1f} key phrases each",
            f"{self.with_ladder} have a ladder ({self.share:.1%}), {self.too_few_phrases} too few key phrases",
        ]
        if self.with_ladder:
            lines.append(f"words left by degree: {left}")
        if self.dropped_versions:
            lines.append(f"{self.dropped_versions} versions are left out: nothing would be left of the response")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The statistics as JSON values."""
        return {**asdict(self), "words_by_degree": list(self.words_by_degree), "share": self.share}


@dataclass(frozen=True)
class Ladders:
    """A ladder (or None) for each of many responses, in order."""

    ladders: tuple[Ladder | None, ...]
    statistics: LadderStatistics

    def require_enough(self, options: LadderOptions) -> None:
        """Raises DataError where fewer than a tenth of the responses have a ladder."""
        found = self.statistics
        if found.share < ENOUGH:
            raise DataError(
                f"only {found.with_ladder} of {found.responses} responses have the {options.phrases_needed} key phrases "
                f"that {options.degrees} degrees take, at least {ENOUGH:.0%} must (mean {found.phrases:.1f} key phrases); "
                f"are the stop words ({options.stop_words}) of another language? give a file of that language's, or "
                "fewer degrees"
            )


@dataclass(frozen=True)
class _Built:
    ladder: Ladder | None
    phrases: int
    words: int
    left: tuple[int, ...]  # words left by degree
    dropped: int


def build_ladder(
    text: str, options: LadderOptions = LadderOptions(), *, extractor: Extractor | None = None
) -> Ladder | None:
    """The ladder of one response; None where it has too few key phrases.

    Degree j lacks the first ceil(j * m / (degrees - 1) * rho) of m phrases, wherever they occur. A version of which
    nothing but white space is left is dropped, so that a ladder may end early. `extractor`: a function of your own from
    a text to its phrases, in place of options.extractor; phrases that do not occur in the text are passed over.
    Raises OptionError for extractor=tfidf, which takes many texts.
    """
    return _build(text, options, extractor or _extractor(options, None)).ladder


def build_ladders(
    texts: Sequence[str],
    options: LadderOptions = LadderOptions(),
    *,
    extractor: Extractor | None = None,
    workers: int = 1,
) -> Ladders:
    """The ladder of each response as `build_ladder` gives it, and statistics over all.

    `workers`: processes to use, worth their start from some 50,000 texts on. They are spawned, so that a script must
    guard its entry with `if __name__ == "__main__"`. An `extractor` that cannot be sent to them (a lambda) is used here.
    """
    build = partial(_build, options=options, extractor=extractor or _extractor(options, texts))
    if workers > 1 and _can_be_sent(build):
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            built = list(pool.map(build, texts, chunksize=CHUNK))
    else:
        built = [build(text) for text in texts]
    return Ladders(tuple(each.ladder for each in built), _statistics(built, options.degrees))


def _extractor(options: LadderOptions, texts: Sequence[str] | None) -> Extractor:
    stop_words = load_stop_words(options.stop_words)
    if options.extractor == "rake":
        return Rake(stop_words)
    if texts is None:
        raise OptionError("option extractor=tfidf compares texts with each other: use build_ladders, not build_ladder")
    return TfIdf.of(texts, stop_words)


def _can_be_sent(function: Any) -> bool:
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _build(text: str, options: LadderOptions, extractor: Extractor) -> _Built:
    if not isinstance(text, str):
        raise DataError(f"ladders take responses of plain text; found {type(text).__name__}")
    words = split_words(text)
    phrases, rank = _ranked(words, *_phrases(text, words, extractor))
    total = len(words.words)
    if not options.is_climbable(len(phrases)):
        return _Built(None, len(phrases), total, (), 0)
    order = _random_order(text, words) if options.removal == "random" else None
    versions, left, dropped = [Graded(text, 0)], [total], 0
    removed: list[tuple[str, ...]] = [()]
    for degree, count in enumerate(options.removed(len(phrases))[1:], start=1):
        gone = [at for at, first in enumerate(rank) if first < count]
        names = phrases[:count]
        if order is not None:
            names = [words.words[at] for at in order[: len(gone)]]
            gone = sorted(order[: len(gone)])
        version = _without(words.pieces, gone, options.neutral if options.removal == "masked" else None)
        if not version or version.isspace():
            dropped += 1
            continue
        versions.append(Graded(version, degree))
        removed.append(tuple(names))
        left.append(total - len(gone))
    if len(versions) == 1:
        return _Built(None, len(phrases), total, (), dropped)
    return _Built(Ladder(tuple(versions), tuple(removed)), len(phrases), total, tuple(left), dropped)


def _phrases(text: str, words: Words, extractor: Extractor) -> tuple[list[str], list[list[str]]]:
    """The phrases, best first, and the words of each."""
    if isinstance(extractor, Rake | TfIdf):
        phrases = [phrase.text for phrase in extractor.ranked(words)]
        return phrases, [phrase.split(" ") for phrase in phrases]
    phrases = [phrase.text for phrase in sorted(extractor(text), key=lambda phrase: -phrase.score)]
    return phrases, [split_words(phrase).words for phrase in phrases]


def _ranked(text: Words, phrases: list[str], words_of: list[list[str]]) -> tuple[list[str], list[int]]:
    """The phrases that occur, best first, and for every word the place of the first of them that covers it."""
    by_first: dict[str, list[tuple[list[str], int]]] = {}
    for place, parts in enumerate(words_of):
        if parts:
            by_first.setdefault(parts[0], []).append((parts, place))
    words, breaks = text.words, text.breaks
    rank = [_NEVER] * len(words)
    found: set[int] = set()
    for start, word in enumerate(words):
        if word not in by_first:
            continue
        for parts, place in by_first[word]:
            end = start + len(parts)
            if end - start > 1 and (words[start:end] != parts or True in breaks[start + 1 : end]):
                continue
            found.add(place)
            for covered in range(start, end):
                if rank[covered] > place:
                    rank[covered] = place
    if len(found) == len(phrases):
        return phrases, rank
    new_place = {place: new for new, place in enumerate(sorted(found))}
    return [phrases[place] for place in new_place], [new_place.get(place, _NEVER) for place in rank]


def _random_order(text: str, words: Words) -> list[int]:
    order = list(range(len(words.words)))
    random.Random(derive_seed("random removal", text)).shuffle(order)
    return order


def _without(pieces: list[str], gone: Sequence[int], neutral: str | None) -> str:
    """The text of these pieces without the words at `gone` (in order), or with each replaced by `neutral`."""
    if neutral is not None:
        kept = list(pieces)
        for at in gone:
            kept[2 * at + 1] = neutral
        return "".join(kept)
    text, start = "", 0
    for stop in (*(2 * at + 1 for at in gone), len(pieces)):
        piece = "".join(pieces[start:stop]) if stop - start > 1 else pieces[start]
        if start == 0:
            text = piece
        elif not text or text[-1] in " \t\n":  # white space before the gap makes that behind it superfluous
            piece = piece.lstrip(" \t")
            if _CLOSING.match(piece) and not text.isspace():
                text = text.rstrip(" \t")
            text += piece
        else:
            text += piece
        start = stop + 1
    return text


def _statistics(built: Sequence[_Built], degrees: int) -> LadderStatistics:
    count = max(len(built), 1)
    ladders = [each for each in built if each.ladder is not None]
    left = [0] * degrees
    for each in ladders:
        assert each.ladder is not None
        for version, words in zip(each.ladder.versions, each.left, strict=True):
            left[version.degree] += words
    return LadderStatistics(
        responses=len(built),
        with_ladder=len(ladders),
        too_few_phrases=len(built) - len(ladders),
        dropped_versions=sum(each.dropped for each in built),
        phrases=sum(each.phrases for each in built) / count,
        words=sum(each.words for each in built) / count,
        words_by_degree=tuple(words / max(len(ladders), 1) for words in left),
    )
