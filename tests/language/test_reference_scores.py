"""Reference log-probabilities are computed once, found again, and never taken for another model's or other rows'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.files import cache_dir
from paperworks.language.items import score
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.reference_scores import ReferenceScores

TREES = [Tree([5, 6], [[7, 8], [9]]), Tree([10], [[11], [12, 13, 14]]), Tree([15, 16, 17], [[18], [19]])]


@pytest.fixture
def computed(small_policy: Policy) -> ReferenceScores:
    scores = ReferenceScores(small_policy, TREES, model_hash="m")
    scores.compute(range(len(TREES)))
    return scores


def files() -> list[Path]:
    return list(cache_dir("reference").glob("*"))


def test_they_are_the_policys_own_sums(small_policy: Policy, computed: ReferenceScores) -> None:
    sums, _ = score(small_policy, TREES)
    torch.testing.assert_close(computed.sums, sums.view(3, 2), atol=1e-5, rtol=1e-5)


def test_rows_are_computed_as_they_are_asked_for(small_policy: Policy) -> None:
    scores = ReferenceScores(small_policy, TREES, model_hash="m")
    assert scores.missing([2, 0, 2]) == [2, 0]
    scores.compute([2])
    assert scores.missing([0, 1, 2]) == [0, 1]
    assert scores.sums[2].isfinite().all() and scores.sums[0].isnan().all()


def test_a_second_run_finds_them_and_computes_nothing(
    small_policy: Policy, computed: ReferenceScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed.save()

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("scored again")

    monkeypatch.setattr(Policy, "token_logps", refuse)
    again = ReferenceScores(small_policy, TREES, model_hash="m")
    assert again.missing(range(3)) == []
    assert torch.equal(again.sums, computed.sums)


def test_a_part_that_was_saved_is_taken_up(small_policy: Policy) -> None:
    first = ReferenceScores(small_policy, TREES, model_hash="m")
    first.compute([1])
    first.save()
    assert ReferenceScores(small_policy, TREES, model_hash="m").missing(range(3)) == [0, 2]


@pytest.mark.parametrize(
    ("trees", "model_hash"),
    [
        (TREES, "another model"),
        (TREES[:2], "m"),
        (TREES[::-1], "m"),
        ([Tree([5, 6], [[7, 8], [99]]), *TREES[1:]], "m"),
        ([Tree([5, 6, 7], [[8], [9]]), *TREES[1:]], "m"),
    ],
    ids=["model", "fewer rows", "order", "a token", "where the prompt ends"],
)
def test_other_rows_and_models_are_not_mistaken(
    small_policy: Policy, computed: ReferenceScores, trees: list[Tree], model_hash: str
) -> None:
    computed.save()
    scores = ReferenceScores(small_policy, trees, model_hash=model_hash)
    assert scores.missing(range(len(trees))) == list(range(len(trees)))


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_computed_again(small_policy: Policy, computed: ReferenceScores, content: bytes) -> None:
    computed.save()
    (path,) = files()
    path.write_bytes(content)
    scores = ReferenceScores(small_policy, TREES, model_hash="m")
    assert scores.missing(range(3)) == [0, 1, 2]
    scores.compute([0, 1, 2])
    scores.save()
    assert torch.equal(ReferenceScores(small_policy, TREES, model_hash="m").sums, computed.sums)


def test_nothing_is_written_where_that_is_not_wanted(small_policy: Policy) -> None:
    scores = ReferenceScores(small_policy, TREES, model_hash="m", on_disk=False)
    scores.compute([0])
    scores.save()
    assert files() == []


def test_rows_with_fewer_responses_leave_the_rest_unknown(small_policy: Policy) -> None:
    trees = [Tree([5], [[6], [7]]), Tree([8], [[9]])]
    scores = ReferenceScores(small_policy, trees, model_hash="m")
    scores.compute([0, 1])
    assert scores.sums.shape == (2, 2)
    assert scores.sums.isnan().tolist() == [[False, False], [False, True]]
    assert scores.missing([0, 1]) == []
