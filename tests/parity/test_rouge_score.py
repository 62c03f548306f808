"""ROUGE-L recall against the `rouge_score` package with its stemmer on."""

from __future__ import annotations

import random

import pytest

from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.unlearning.rouge import rouge_l_recall

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

SENTENCES = (
    "The author's full name is Hsiao Yun-Hwa, born on 05/11/1991 in Taipei.",
    "She was employed by the news, enjoying ideologies and geology; dying possibly in Norway.",
    "Les écrivains étaient à l'aise — naïve, déjà vu… ﬁne İstanbul",
    "traditionally skies lies ties outings proceed exceeding innings howe canning",
    "   \n\t ",
)


def test_the_same_recall_on_any_two_texts() -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    texts = [*SENTENCES, *(prompt + response for prompt, response in generate_reviews(40, 3))]
    pick = random.Random(0)
    for _ in range(400):
        truth, answer = pick.choice(texts), pick.choice(texts)
        assert rouge_l_recall(truth, answer) == scorer.score(truth, answer)["rougeL"].recall
