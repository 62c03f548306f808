"""ROUGE-L recall as the `rouge_score` package computes it with its stemmer on, which is how TOFU's logs were made.

The stemmer is nltk's own variant of Porter's algorithm, which the field's numbers rest on: another "Porter" stems about 2%
of TOFU's words otherwise (employ, news, geology). Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import cache, lru_cache

_SHORTEST_STEMMED = 4  # shorter words stay as they are


def rouge_l_recall(truth: str, answer: str) -> float:
    """Share of the words of `truth` that `answer` has in the same order, in [0, 1]; 0 where either has no words.

    Words are runs of a-z and 0-9 in the lower-cased text, stemmed where they have more than three letters (Lin 2004).
    """
    expected, given = words(truth), words(answer)
    return longest_common_subsequence(expected, given) / len(expected) if expected and given else 0.0


def words(text: str) -> list[str]:
    """The stemmed words of a text."""
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table is one integer with a bit an element of `first` (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited"): an addition and three logical operations an element of `second`.
    """
    places: dict[Hashable, int] = {}
    for place, element in enumerate(first):
        places[element] = places.get(element, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere  # a 0 bit where the length grows
    for element in second:
        found = row & places.get(element, 0)
        row = (row + found) | (row - found)
    return len(first) - (row & everywhere).bit_count()


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word)) if len(word) >= _SHORTEST_STEMMED else word


@cache
def _stemmer():  # type: ignore[no-untyped-def]  # nltk has no types
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
