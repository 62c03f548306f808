"""Key phrases by how much their words stand out from a collection of texts, in place of RAKE's word scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from paperworks.language.degrees.rake import Phrase, by_word_scores, candidates
from paperworks.language.degrees.stop_words import ENGLISH
from paperworks.language.degrees.words import Words, split_words


@dataclass(frozen=True)
class TfIdf:
    """RAKE's candidates, each scored by the sum over its words of tf * (1 + log((1 + n) / (1 + df))).

    tf counts a word in the text, df the texts that have it, n all texts. Our own choice: the SPO paper names RAKE alone.
    """

    texts: int
    document_frequency: dict[str, int] = field(repr=False)
    stop_words: frozenset[str] = field(default=ENGLISH, repr=False)

    @classmethod
    def of(cls, texts: Iterable[str], stop_words: Collection[str] = ENGLISH) -> TfIdf:
        """Counted over `texts`."""
        count, frequency = 0, Counter[str]()
        for text in texts:
            count += 1
            frequency.update(set(split_words(text).words))
        return cls(count, dict(frequency), frozenset(stop_words))

    def __call__(self, text: str) -> list[Phrase]:
        return self.ranked(split_words(text))

    def ranked(self, text: Words) -> list[Phrase]:
        """The key phrases of a text that was taken apart already, best first."""
        found = candidates(text, self.stop_words)
        counts = Counter(word for words in found for word in words)
        scores = {
            word: count * (1 + math.log((1 + self.texts) / (1 + self.document_frequency.get(word, 0))))
            for word, count in counts.items()
        }
        return by_word_scores(found, scores)
