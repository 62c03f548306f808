"""Rewards that count words: positive against negative ones, or simply how many. For tests and for debugging."""

from __future__ import annotations

import re

_POSITIVE_WORDS = """
amazing beautiful best brilliant charming clever delight delightful enjoy enjoyable excellent fantastic fine fresh fun
funny good great happy heartfelt helpful honest impressive joy kind like love lovely masterpiece moving nice perfect
pleasant pleasure smart strong superb sweet thrilling touching warm well wonderful
"""
_NEGATIVE_WORDS = """
annoying awful bad bland boring cheap clumsy confusing cruel disappointing dreadful dull empty fail failure false flat
hate horrible hurt lame lazy mess pointless poor sad silly slow stale stupid terrible tedious tired tiresome ugly
unfunny useless waste weak worse worst wrong
"""
POSITIVE = frozenset(_POSITIVE_WORDS.split())
NEGATIVE = frozenset(_NEGATIVE_WORDS.split())
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def lexicon(prompts: list[str], responses: list[str]) -> list[float]:
    """Positive minus negative words of each response, by the two lists of this file."""
    return [float(sum((word in POSITIVE) - (word in NEGATIVE) for word in _words(response))) for response in responses]


def length(prompts: list[str], responses: list[str]) -> list[float]:
    """The number of words (runs without white space) of each response."""
    return [float(len(response.split())) for response in responses]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
