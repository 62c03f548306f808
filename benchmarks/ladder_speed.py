"""Answers a second turned into ladders, and key phrases against the package rake-nltk where it is installed; in turn."""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from paperworks.language.degrees import ENGLISH, build_ladders, rake
from paperworks.language.testbeds import word_banks as words

ANSWERS, WORDS = 5000, 60  # as long as an answer of Anthropic's HH data


def answers(seed: int) -> list[str]:
    """Sentences of about ten words, half of them stop words, with lists and marks between them."""
    chance = random.Random(seed)
    content = (*words.GOOD, *words.BAD, *words.FILM_NOUNS, *words.HOTEL_NOUNS, *words.GOOD_VERBS, *words.NEUTRAL)
    function = sorted(ENGLISH)
    texts = []
    for _ in range(ANSWERS):
        drawn = [chance.choice(content if chance.random() < 0.5 else function) for _ in range(WORDS)]
        ends = [chance.choice((".", ",", "?", ".\n-")) if chance.random() < 0.12 else "" for _ in drawn]
        texts.append(" ".join(word + end for word, end in zip(drawn, ends)))
    return texts


def theirs() -> Callable[[Sequence[str]], Any] | None:
    """rake-nltk over many texts, with our stop words and nltk's regular-expression tokenizers, which need no data."""
    if importlib.util.find_spec("rake_nltk") is None:
        return None
    from nltk.tokenize import RegexpTokenizer, wordpunct_tokenize
    from rake_nltk import Rake

    sentences = RegexpTokenizer(r"[^.?!\n]+")
    extractor = Rake(stopwords=set(ENGLISH), sentence_tokenizer=sentences.tokenize, word_tokenizer=wordpunct_tokenize)

    def run(texts: Sequence[str]) -> None:
        for text in texts:
            extractor.extract_keywords_from_text(text)
            extractor.get_ranked_phrases()

    return run


def rate(run: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    began = time.process_time()
    run(texts)
    return len(texts) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    peer = theirs()

    def ours(texts: Sequence[str]) -> None:
        for text in texts:
            rake(text)

    ladders, phrases, of_peer = [], [], []
    for round_ in range(args.rounds + 1):
        texts = answers(round_)
        found = rate(build_ladders, texts), rate(ours, texts), rate(peer, texts) if peer else 0.0
        if round_:  # the first round warms up
            ladders.append(found[0])
            phrases.append(found[1])
            of_peer.append(found[2])
    size = f"{ANSWERS} answers of {WORDS} words, one core"
    print(
        f"ladders of 4 degrees, {size}: {statistics.median(ladders):.0f} [{min(ladders):.0f}, {max(ladders):.0f}] answers/s"
    )
    ratios = [a / b for a, b in zip(phrases, of_peer)] if peer else []
    against = (
        f", rake-nltk {statistics.median(of_peer):.0f}: {statistics.median(ratios):.2f}x [{min(ratios):.2f}, "
        f"{max(ratios):.2f}]"
        if peer
        else " (rake-nltk is not installed)"
    )
    print(f"key phrases, {size}: ours {statistics.median(phrases):.0f} answers/s{against}")


if __name__ == "__main__":
    main()
