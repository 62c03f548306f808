"""Self-supervised preference optimisation against worked values (arXiv 2409.17791; RAKE of Rose et al. 2010)."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperworks.language.degrees import SHORT_ENGLISH, LadderOptions, build_ladder, rake, word_scores
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.degrees.words import split_words
from paperworks.language.objectives import DPO, ResponseLogps
from paperworks.language.objectives.degrees import DegreeBatch, Versions, WithDegrees

NETWORK = "The neural network is trained on the large text corpus, and the network will learn fast."
DEPOSIT = "My landlord kept the security deposit. The deposit was two months rent."
THREE = LadderOptions(degrees=3, stop_words="short")


def test_word_scores_by_hand() -> None:
    expected = {"neural": 2, "network": 1.5, "trained": 1, "large": 3, "text": 3, "corpus": 3, "learn": 2, "fast": 2}
    assert word_scores(NETWORK, SHORT_ENGLISH) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            NETWORK,
            [("large text corpus", 9), ("learn fast", 4), ("neural network", 3.5), ("network", 1.5), ("trained", 1)],
        ),
        (DEPOSIT, [("two months rent", 9), ("landlord kept", 4), ("security deposit", 3.5), ("deposit", 1.5)]),
    ],
)
def test_phrases_by_hand(text: str, expected: list[tuple[str, float]]) -> None:
    assert rake(text, SHORT_ENGLISH) == expected


def test_ladder_by_hand() -> None:
    ladder = build_ladder(DEPOSIT, THREE)
    assert ladder is not None
    assert [version.degree for version in ladder.versions] == [0, 1, 2]
    assert ladder.versions[0].text == DEPOSIT
    assert ladder.versions[1].text == "My the security deposit. The deposit was."
    assert ladder.removed[1] == ("two months rent", "landlord kept")
    assert not set(split_words(ladder.versions[2].text).words) - SHORT_ENGLISH


def softmax_batch(logits: torch.Tensor, degrees: list[int]) -> DegreeBatch:
    zeros = torch.zeros(len(degrees))
    response = ResponseLogps(zeros, zeros + 1)
    return DegreeBatch(None, Versions(torch.tensor(degrees), torch.zeros(len(degrees)).long(), response, zeros), logits)


def test_cross_entropy_by_hand() -> None:
    objective = WithDegrees(DPO(), DegreeOptions(count=3))
    logits = torch.tensor([[2.0, 0.5, -1.0]] * 3)
    losses = objective.degree_loss(softmax_batch(logits, [0, 1, 2]))
    assert losses.tolist() == pytest.approx([0.241311, 1.741311, 3.241311], abs=1e-6)
    uniform = WithDegrees(DPO(), DegreeOptions(count=4)).degree_loss(softmax_batch(torch.zeros(1, 4), [2]))
    assert uniform.item() == pytest.approx(math.log(4), abs=1e-6)


def test_permuting_versions_permutes_their_losses() -> None:
    objective = WithDegrees(DPO(), DegreeOptions(count=4))
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    order = [2, 0, 3, 1]
    losses = objective.degree_loss(softmax_batch(logits, [0, 1, 2, 3]))
    permuted = objective.degree_loss(softmax_batch(logits[order], order))
    assert torch.equal(permuted, losses[order])


def test_ordinal_loss_by_hand() -> None:
    # thresholds at degree 1: above the first, not above the second
    objective = WithDegrees(DPO(), DegreeOptions(count=3, head="ordinal"))
    loss = objective.degree_loss(softmax_batch(torch.tensor([[1.0, -2.0]]), [1]))
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_ranking_loss_by_hand() -> None:
    # log-ratios 3, 1, 0: three pairs of differences 2, 3, 1
    objective = WithDegrees(DPO(), DegreeOptions(count=3, head="ranking", ranking_beta=0.5))
    response = ResponseLogps(torch.tensor([3.0, 1.0, 0.0]), torch.ones(3), torch.zeros(3))
    versions = Versions(torch.tensor([0, 1, 2]), torch.zeros(3).long(), response, torch.ones(3))
    losses = objective.degree_loss(DegreeBatch(None, versions, None))
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-0.5 * d)) for d in (2, 3, 1)], abs=1e-6)


WORDS = st.sampled_from(
    ["big", "Dog", "dogs", "the", "of", "and", "3.5kg", "7", "1.5", "don't", "e-mail", "naïve", "ﬁne", "a_b", "x"]
)
GAPS = st.sampled_from(
    [" ", " ", " ", "  ", ". ", ", ", "\n", "\n- ", " **", "** ", " <b>", "</b> ", "-", ".", " (", ") "]
)
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=25).map(lambda parts: "".join(w + g for w, g in parts)) | st.text(
    max_size=60
)


def words(text: str) -> Counter[str]:
    return Counter(split_words(text).words)


@given(
    text=TEXTS,
    degrees=st.integers(2, 5),
    rho=st.sampled_from([0.3, 0.5, 1.0]),
    removal=st.sampled_from(["key", "random", "masked"]),
)
def test_each_version_is_contained_in_the_one_before(text: str, degrees: int, rho: float, removal: str) -> None:
    options = LadderOptions(degrees=degrees, rho=rho, removal=removal)  # type: ignore[arg-type]
    ladder = build_ladder(text, options)
    assert ladder == build_ladder(text, options)
    if ladder is None:
        return
    assert ladder.versions[0] == (text, 0)
    assert [version.degree for version in ladder.versions] == list(range(len(ladder.versions)))
    for above, below in zip(ladder.versions, ladder.versions[1:]):
        assert words(below.text) < words(above.text)
        assert below.text.strip()


@given(text=TEXTS)
def test_the_last_version_keeps_no_key_phrase(text: str) -> None:
    ladder = build_ladder(text, LadderOptions(degrees=2, stop_words="short"))
    if ladder is not None and len(ladder.versions) == 2:
        assert rake(ladder.versions[1].text, SHORT_ENGLISH) == []
        assert ladder.removed[1] == tuple(phrase.text for phrase in rake(text, SHORT_ENGLISH))
