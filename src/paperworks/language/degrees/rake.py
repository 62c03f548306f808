"""RAKE: key phrases of a text from the text alone (Rose et al. 2010, "Automatic keyword extraction").

A candidate is a longest run of words without stop words, marks or line breaks. A word scores deg/freq: how many words
the candidates that it occurs in have (itself counted, every occurrence) over how often it occurs; a phrase scores the
sum of its words. Nothing here is learnt or drawn: the same text and stop words give the same phrases.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from paperworks.language.degrees.stop_words import ENGLISH
from paperworks.language.degrees.words import Words, split_words


class Phrase(NamedTuple):
    """A key phrase, its words in lower case with single spaces, and how much it matters."""

    text: str
    score: float


class Extractor(Protocol):
    """What finds the key phrases of a text; the order they are given in decides between equal scores."""

    def __call__(self, text: str) -> Sequence[Phrase]: ...


Candidate = tuple[str, ...]


def candidates(text: Words, stop_words: Collection[str]) -> list[Candidate]:
    """The longest runs of words that are no stop words, in order, repeated ones too."""
    runs: list[list[str]] = []
    is_open = False
    for word, is_broken in zip(text.words, text.breaks):
        if word in stop_words:
            is_open = False
        elif is_open and not is_broken:
            runs[-1].append(word)
        else:
            runs.append([word])
            is_open = True
    return [tuple(run) for run in runs]


def word_scores(text: str, stop_words: Collection[str] = ENGLISH) -> dict[str, float]:
    """deg(w) / freq(w) of every word that is no stop word, at least 1, in order of first occurrence."""
    return _word_scores(candidates(split_words(text), stop_words))


def rake(text: str, stop_words: Collection[str] = ENGLISH) -> list[Phrase]:
    """The key phrases of a text, each once, best first; equal scores in order of first occurrence.

    `stop_words` are in lower case. Numbers are words. Empty where the text has only stop words and marks.
    """
    return Rake(frozenset(stop_words))(text)


@dataclass(frozen=True)
class Rake:
    """`rake` with its stop words, as an Extractor."""

    stop_words: frozenset[str] = ENGLISH

    def __call__(self, text: str) -> list[Phrase]:
        return self.ranked(split_words(text))

    def ranked(self, text: Words) -> list[Phrase]:
        """The key phrases of a text that was taken apart already."""
        found = candidates(text, self.stop_words)
        return by_word_scores(found, _word_scores(found))


def by_word_scores(found: Sequence[Candidate], scores: dict[str, float]) -> list[Phrase]:
    """Candidates as phrases, each once, by the sum of their words' scores."""
    phrases = [Phrase(" ".join(words), sum([scores[word] for word in words])) for words in dict.fromkeys(found)]
    phrases.sort(key=lambda phrase: -phrase.score)
    return phrases


def _word_scores(found: Sequence[Candidate]) -> dict[str, float]:
    frequency: dict[str, int] = {}
    degree: dict[str, int] = {}
    for words in found:
        length = len(words)
        for word in words:
            frequency[word] = frequency.get(word, 0) + 1
            degree[word] = degree.get(word, 0) + length
    return {word: degree[word] / frequency[word] for word in frequency}
