"""What objectives settle from data and model before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Dataset, Feedback, Preference, Where
from paperworks.language.objectives import DPO, KTO, RPO, RobustDPO
from paperworks.language.objectives.objective import Prepared
from paperworks.language.policy import Policy

NO_POLICY = cast(Policy, None)


def preferences(*labels: tuple[int, ...], base: tuple[str, ...] = ()) -> Dataset[Any]:
    return Dataset(
        [
            Preference(f"p{i}", "good", "bad", base=base, annotator_labels=row, where=Where("prefs.jsonl", i + 1))
            for i, row in enumerate(labels)
        ]
    )


def test_most_objectives_leave_options_and_rows_alone() -> None:
    rows = preferences((), ())
    assert DPO().prepare(rows, NO_POLICY, seed=0) == Prepared(DPO(), rows)
    assert RobustDPO().prepare(rows, NO_POLICY, seed=0) == Prepared(RobustDPO(), rows)


def test_automatic_flip_rate_comes_from_disagreement() -> None:
    # 8 of 25 pairs of annotators disagree: 2 eps (1 - eps) = 0.32 at eps = 0.2
    rows = preferences(*[(1, 0)] * 8, *[(1, 1)] * 17, ())
    prepared = RobustDPO(flip_rate="auto", beta=0.3).prepare(rows, NO_POLICY, seed=0)
    objective = prepared.objective
    assert isinstance(objective, RobustDPO)
    assert objective.settled_flip_rate == pytest.approx(0.2, abs=1e-12)
    assert objective.beta == 0.3
    assert prepared.dataset is rows


def test_automatic_flip_rate_is_refused_without_repeated_labels() -> None:
    with pytest.raises(OptionError, match="annotator_labels"):
        RobustDPO(flip_rate="auto").prepare(preferences((), (1,)), NO_POLICY, seed=0)


def test_automatic_flip_rate_must_be_settled_before_the_loss(random_batch: Callable[..., Any]) -> None:
    objective = RobustDPO(flip_rate="auto")
    with pytest.raises(OptionError, match="call prepare"):
        objective.loss(random_batch(objective))


def test_base_from_the_file_takes_the_first_n_of_each_row() -> None:
    rows = preferences((), (), base=("a", "b", "c"))
    prepared = RPO(base="file", n_base=2).prepare(rows, NO_POLICY, seed=0)
    assert [row.base for row in prepared.dataset] == [("a", "b"), ("a", "b")]
    assert prepared.objective.roles == ("chosen", "rejected", "base")


def test_base_from_the_file_names_the_row_that_lacks_it() -> None:
    rows = Dataset([*preferences((), base=("a",)), Preference("q", "x", "y", where=Where("prefs.jsonl", 7))])
    with pytest.raises(DataError, match=r"prefs\.jsonl:7: field 'base'.*base=chosen"):
        RPO(base="file").prepare(rows, NO_POLICY, seed=0)


def test_base_from_the_reference_is_drawn_once_from_the_frozen_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    from paperworks.language import sampling

    calls: list[tuple[Any, ...]] = []

    def sample(policy: Any, prompts: list[str], *, n: int, max_new_tokens: int, seed: int) -> list[Any]:
        calls.append((policy, n, max_new_tokens, seed))
        return [type("Samples", (), {"texts": [f"{prompt}-{i}" for i in range(n)]}) for prompt in prompts]

    monkeypatch.setattr(sampling, "sample", sample)
    policy = cast(Policy, type("Stub", (), {"reference": lambda self: "frozen"})())
    prepared = RPO(base="ref", n_base=2, max_new_tokens=9).prepare(preferences((), ()), policy, seed=5)
    assert calls == [("frozen", 2, 9, 5)]
    assert [row.base for row in prepared.dataset] == [("p0-0", "p0-1"), ("p1-0", "p1-1")]


@pytest.mark.parametrize("objective", [RPO(base="chosen"), RPO(base="ref", eta=0.0)], ids=repr)
def test_nothing_is_sampled_where_no_base_is_imitated(objective: RPO) -> None:
    rows = preferences(())
    assert objective.prepare(rows, NO_POLICY, seed=0) == Prepared(objective, rows)
    assert objective.roles == ("chosen", "rejected")


@pytest.mark.parametrize("desirable", [True, False])
def test_kto_refuses_feedback_of_one_kind(desirable: bool) -> None:
    one_kind = Dataset([Feedback("p", "a", desirable), Feedback("p", "b", desirable)])
    with pytest.raises(DataError, match="kto needs undesirable" if desirable else "kto needs desirable"):
        KTO().prepare(one_kind, NO_POLICY, seed=0)
    both = Dataset([Feedback("p", "a", desirable), Feedback("p", "b", not desirable)])
    assert KTO().prepare(both, NO_POLICY, seed=0) == Prepared(KTO(), both)
