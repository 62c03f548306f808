"""Text as words and what stands between them: what key phrases are found in and removed from.

Markup is no text. Inline tags and emphasis are passed over, so that a phrase runs through them; code, other tags and
line breaks are breaks that no phrase crosses, as marks are. None of it is ever a word, so removing words leaves it whole.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_INLINE = "a|abbr|b|big|cite|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|u"
_MARKUP = re.compile(
    rf"(</?(?:{_INLINE})(?:\s[^<>]*)?>)"  # passed over
    r"|```.*?(?:```|\Z)|`[^`\n]+`|<!--.*?-->|</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);",
    re.DOTALL | re.IGNORECASE,
)
_PASSED_OVER, _BREAK = "\0", "\n"  # what stands for each character of markup while words are found


def _word(letter: str) -> re.Pattern[str]:
    """A number with its unit, or letters with what may stand inside a word. Two words never touch."""
    return re.compile(rf"(\d+(?:[.,]\d+)+{letter}*|{letter}+(?:['’_-]{letter}+)*)")


# Vowel signs and accents of their own are parts of letters, but not `\w` to Python. Few texts have them.
_SIGNS = "".join(chr(code) for code in range(0x300, 0x1000) if unicodedata.category(chr(code)).startswith("M"))
_SIGN = re.compile(f"[{_SIGNS}]")
_WORD, _WORD_WITH_SIGNS = _word(r"[^\W_]"), _word(rf"(?:[^\W_]|[{_SIGNS}])")


class Words(NamedTuple):
    """The words of a text in order, and the text itself in pieces."""

    words: list[str]  # in lower case, ’ written as '
    breaks: list[bool]  # whether something that no phrase crosses stands before each word
    pieces: list[str]  # gap, word, gap, …, word, gap as they stand in the text; joined they are the text


def split_words(text: str) -> Words:
    """The words of a text and what stands between them."""
    pattern = _WORD if text.isascii() or not _SIGN.search(text) else _WORD_WITH_SIGNS
    if "<" not in text and "`" not in text and "&" not in text:
        pieces = pattern.split(text)
        gaps = pieces[::2]
    else:
        shape = pattern.split(_MARKUP.sub(_blank, text))
        pieces, gaps, at = [], shape[::2], 0
        for piece in shape:
            pieces.append(text[at : at + len(piece)])
            at += len(piece)
    words = "\n".join(pieces[1::2]).lower().replace("’", "'").split("\n") if len(pieces) > 1 else []
    breaks = [gap != " " and _is_break(gap) for gap in gaps]
    return Words(words, breaks[:-1], pieces)


def _blank(match: re.Match[str]) -> str:
    return (_PASSED_OVER if match[1] else _BREAK) * len(match[0])


@lru_cache(4096)
def _is_break(gap: str) -> bool:
    between = gap.replace(_PASSED_OVER, "").strip("*_")  # marks of emphasis touch the words
    return bool(between.strip()) or "\n" in between or "\r" in between
