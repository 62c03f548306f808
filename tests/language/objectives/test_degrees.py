"""The degree loss beside other objectives: what it leaves alone, what it trains, which rows it takes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.checkpoints import trainable
from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Dataset, Feedback, Preference, preferences_to_feedback
from paperworks.language.data.schemas import Graded
from paperworks.language.degrees import ENGLISH, Phrase
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.items import tokenise
from paperworks.language.objectives import DPO, IPO, KTO, RPO, SFT, Objective, SimPO
from paperworks.language.objectives.degrees import WithDegrees, with_degrees
from paperworks.language.objectives.objective import PairLogps
from paperworks.language.policy import Policy
from paperworks.language.reference_scores import Reference
from paperworks.language.step_losses import StepLosses
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.training import TrainOptions, train

FAST = TrainOptions(steps=3, batch_size=8, micro_batch=8, learning_rate=1e-3, select="last")
DEGREES = DegreeOptions(weight=1.0, count=3)


def fresh(tokenizer: Any) -> Policy:
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)


def joined(base: Objective, **options: Any) -> WithDegrees:
    return WithDegrees(base, dataclasses.replace(DEGREES, **options))


def rows_for(objective: Objective, pairs: Dataset[Preference]) -> Dataset[Any]:
    return pairs if objective.schema is Preference else Dataset(tuple(preferences_to_feedback(pairs.rows)))


def weights_after(objective: Objective, tokenizer: Any, rows: Dataset[Any], **more: Any) -> tuple[Any, Any]:
    policy = fresh(tokenizer)
    result = train(policy, objective, rows, dataclasses.replace(FAST, **more))
    return trainable(policy.model), result


def is_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def degree_batch(tokenizer: Any, pairs: Dataset[Preference]) -> Callable[..., Any]:
    """The objective as prepared, and its batch of eight rows under a fresh policy."""

    def build(objective: WithDegrees, rows: Dataset[Any] | None = None, policy: Policy | None = None) -> Any:
        policy = policy or fresh(tokenizer)
        data = rows_for(objective, pairs).take(8) if rows is None else rows
        prepared = objective.prepare(data, policy, seed=0)
        ready: Any = prepared.objective
        items = tokenise(prepared.dataset, policy, ready.roles, numbers=ready.numbers)
        torch.manual_seed(0)
        losses = StepLosses(policy, ready, FAST, lambda values: values, ready.modules(policy))
        needs_none = dataclasses.replace(ready, options=dataclasses.replace(ready.options, rewards=False))
        if not needs_none.reference_roles:
            losses.objective = needs_none
            return needs_none, losses._batch(items, range(len(items)), Reference(), None)[0], losses
        known = {
            role: [torch.zeros(sum(map(len, item.responses.get(role, ())))) for item in items.items]
            for role in ready.reference_roles
        }
        return ready, losses._batch(items, range(len(items)), Reference(known), None)[0], losses

    return build


# ------------------------------------------------------------------------------------------------- what it leaves alone


@pytest.mark.parametrize("base", [DPO(), SimPO(), KTO(), RPO(beta=0.1, eta=0.5)], ids=lambda base: base.name)
def test_weight_0_is_the_base_bit_for_bit(base: Objective, tokenizer: Any, pairs: Dataset[Preference]) -> None:
    rows = rows_for(base, pairs)
    alone, _ = weights_after(base, tokenizer, rows)
    beside, result = weights_after(joined(base, weight=0.0), tokenizer, rows)
    assert is_equal(alone, beside)
    assert "degree" not in result.final


def test_the_alignment_terms_are_those_of_the_base(degree_batch: Callable[..., Any]) -> None:
    base = RPO(beta=0.1, eta=0.5)
    objective, batch, _ = degree_batch(joined(base))
    assert isinstance(batch.base, PairLogps)
    terms = objective.terms(batch)
    assert list(terms) == ["dpo", "sft", "degree"]
    for name, value in base.terms(batch.base).items():
        assert torch.equal(terms[name], value)
    assert torch.equal(objective.loss(batch), base.loss(batch.base))


def test_a_term_called_loss_is_not_counted_twice(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    _, result = weights_after(joined(DPO(), weight=0.5), tokenizer, pairs)
    final = result.final
    assert final["loss"] == pytest.approx(final["alignment"] + final["degree"])


# --------------------------------------------------------------------------------------------------------- what trains


def test_detached_features_give_the_policy_no_gradient(degree_batch: Callable[..., Any], tokenizer: Any) -> None:
    for detached in (True, False):
        policy = fresh(tokenizer)
        objective, batch, losses = degree_batch(
            dataclasses.replace(joined(SimPO()), detach_features=detached), policy=policy
        )
        parameters = [p for p in policy.model.parameters() if p.requires_grad]
        head = list(losses.modules["degree"].parameters())
        loss = objective.degree_loss(batch).sum()
        gradients = torch.autograd.grad(loss, [*parameters, *head], allow_unused=True)
        of_policy, of_head = gradients[: len(parameters)], gradients[len(parameters) :]
        assert any(g is not None and bool(g.any()) for g in of_policy) != detached
        assert all(bool(g.any()) for g in of_head)


@pytest.mark.parametrize("head", ["softmax", "ordinal", "ranking"])
def test_each_head_learns_degrees(head: str, tokenizer: Any, pairs: Dataset[Preference]) -> None:
    options = {"steps": 25, "batch_size": 20, "micro_batch": 20, "learning_rate": 3e-3}
    objective = joined(DPO(), head=head, head_lr=1e-2, weight=1.0, ranking_beta=1.0)
    policy = fresh(tokenizer)
    result = train(policy, objective, pairs, dataclasses.replace(FAST, **options))
    assert result.final["degree"] < 0.8 * result.first["degree"]
    if head == "ranking":
        assert result.final["degree_correlation"] > 0.5
    else:
        assert result.final["degree_accuracy"] > result.first["degree_accuracy"]


def test_micro_batches_change_nothing(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    found = [
        weights_after(joined(DPO(), source="both"), tokenizer, pairs, steps=2, micro_batch=micro) for micro in (8, 3, 1)
    ]
    for weights, result in found[1:]:
        for name in ("loss", "degree", "degree_accuracy", "degree_correlation"):
            assert result.final[name] == pytest.approx(found[0][1].final[name], abs=1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(value, found[0][0][name], atol=5e-5, rtol=1e-3)


def test_the_head_is_not_saved_with_the_model(tokenizer: Any, pairs: Dataset[Preference], tmp_path: Path) -> None:
    policy = fresh(tokenizer)
    names = list(policy.model.state_dict())
    train(policy, joined(SimPO()), pairs, FAST, folder=tmp_path)
    assert list(policy.model.state_dict()) == names
    policy.save(tmp_path / "model")
    assert list(Policy.load(tmp_path / "model", device="cpu").model.state_dict()) == names


def test_a_head_takes_none_of_the_random_numbers(tokenizer: Any) -> None:
    policy = fresh(tokenizer)
    torch.manual_seed(3)
    head = joined(DPO()).modules(policy)["degree"]
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    assert head.out_features == 3 and not head.bias.any()
    assert joined(DPO(), head="ordinal").modules(policy)["degree"].out_features == 2
    assert joined(DPO(), head="ranking").modules(policy) == {}


# ----------------------------------------------------------------------------------------------------------- versions


def test_the_response_itself_is_degree_0_and_scored_once(degree_batch: Callable[..., Any]) -> None:
    objective, batch, _ = degree_batch(joined(SimPO()))
    assert "degrees" in objective.roles and objective.feature_roles == ("chosen", "degrees")
    versions = batch.versions
    with_ladder = versions.response.row[versions.degree == 0]
    assert len(with_ladder) == len(versions.ladder.unique()) > 0
    assert torch.equal(versions.response.policy[versions.degree == 0], batch.base.chosen.policy[with_ladder])
    # two more versions of each, in the role of their own
    assert torch.equal(torch.bincount(versions.degree), torch.full((3,), len(with_ladder)))


def test_both_responses_of_a_pair_have_ladders_of_their_own(degree_batch: Callable[..., Any]) -> None:
    _, batch, _ = degree_batch(joined(SimPO(), source="both"))
    versions = batch.versions
    rejected = versions.ladder % 2 == 1
    assert bool(rejected.any()) and not bool(rejected.all())
    own = rejected & (versions.degree == 0)
    assert torch.equal(versions.response.policy[own], batch.base.rejected.policy[versions.response.row[own]])


def test_rows_without_a_ladder_stay_for_alignment(degree_batch: Callable[..., Any]) -> None:
    rows = [Preference("Tell.", " Yes.", " No."), Preference("Tell.", " red apple and green pear and plum.", " No.")]
    objective, batch, _ = degree_batch(joined(SimPO()), Dataset(tuple(rows)))
    assert len(batch.base.chosen.policy) == 2
    assert batch.versions.response.row.tolist() == [1, 1, 1]
    assert len(objective.terms(batch)["degree"]) == 3


def test_a_micro_batch_without_versions_costs_nothing(degree_batch: Callable[..., Any]) -> None:
    rows = Dataset((Preference("Tell.", " red apple and green pear.", " No.", degrees=(Graded(" red.", 1),)),))
    objective, _, losses = degree_batch(joined(SimPO()), rows)
    bare = tokenise(Dataset((Preference("Tell.", " Yes.", " No."),)), losses.policy, objective.roles)
    means = losses.means(bare, [0], Reference(), backward=True)
    assert means["degree"] == 0 and means["loss"] == means["alignment"]


def test_only_desirable_feedback_is_graded(degree_batch: Callable[..., Any]) -> None:
    text = " red apple and green pear and plum."
    rows = Dataset((Feedback("Tell.", text, True), Feedback("Tell.", text, False)))
    options = joined(KTO()).options
    graded = joined(KTO()).prepare(rows, None, seed=0).dataset  # type: ignore[arg-type]
    assert [len(row.degrees) for row in graded] == [2, 0]
    both = WithDegrees(KTO(), dataclasses.replace(options, source="both"))
    assert [len(row.degrees) for row in both.prepare(rows, None, seed=0).dataset] == [2, 2]  # type: ignore[arg-type]


def test_samples_of_the_start_are_graded(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    objective = joined(SimPO(), source="sampled", max_new_tokens=30, count=2)
    once, again = (objective.prepare(pairs.take(6), fresh(tokenizer), seed=1) for _ in range(2))
    assert once.dataset.rows == again.dataset.rows
    assert once.objective.feature_roles == ("degrees",)
    assert any(version.degree == 0 for row in once.dataset for version in row.degrees)


def test_padding_does_not_change_the_pooled_feature(tokenizer: Any) -> None:
    policy = fresh(tokenizer)
    rows = [Preference("Tell.", " red apple.", " No."), Preference("Tell me more of it.", " green pear " * 9, " No.")]
    items = tokenise(Dataset(tuple(rows)), policy, ("chosen", "rejected")).items
    trees = [item.tree() for item in items]
    together = policy.scores(trees, keep_hidden=True).features()
    alone = torch.cat([policy.scores([tree], keep_hidden=True).features() for tree in trees])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------- own degrees


def test_degrees_of_the_rows_own_are_taken_as_they_are() -> None:
    own = (Graded(" worst", 2), Graded(" Yes.", 0), Graded(" bad", 1), Graded(" as bad", 1))
    rows = Dataset((Preference("Tell.", " Yes.", " No.", degrees=own),))
    prepared = joined(SimPO()).prepare(rows, None, seed=0)  # type: ignore[arg-type]
    assert prepared.dataset[0].degrees == (Graded(" bad", 1), Graded(" as bad", 1), Graded(" worst", 2))
    assert prepared.facts["degrees"] == {"built": None, "rows_with_own_degrees": 1}


def test_a_degree_out_of_range_is_named() -> None:
    rows = Dataset((Preference("Tell.", " Yes.", " No.", degrees=(Graded(" bad", 3),)),))
    with pytest.raises(DataError, match=r"field 'degrees': expected degrees from 0 to 2 .*, found 3"):
        joined(DPO()).prepare(rows, None, seed=0)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------- preparation, errors


def test_the_run_keeps_its_ladders_and_stop_words(pairs: Dataset[Preference], tokenizer: Any, tmp_path: Path) -> None:
    result = train(fresh(tokenizer), joined(SimPO()), pairs, FAST, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "ladders.jsonl").read_text().splitlines()]
    built = result.preparation["degrees"]["built"]
    assert sum(line["degree"] == 0 for line in lines) == built["with_ladder"] > 0
    assert set((tmp_path / "stop_words.txt").read_text().split()) == ENGLISH
    assert any("responses have a ladder" in note for note in result.notes)


def test_too_few_ladders_stop_training_but_not_evaluation(pairs: Dataset[Preference]) -> None:
    objective = joined(SimPO(), count=30)
    with pytest.raises(DataError, match="only 0 of 40 responses have the 29 key phrases"):
        objective.prepare(pairs, None, seed=0)  # type: ignore[arg-type]
    held_out = objective.prepare(pairs, None, seed=0, held_out=True)  # type: ignore[arg-type]
    assert all(row.degrees == () for row in held_out.dataset)


def test_held_out_rows_are_judged_by_the_tf_idf_of_the_training_rows() -> None:
    text = " rare gem and common thing"
    training = Dataset(tuple(Preference("Tell.", " common thing and big dog", f" No {i}.") for i in range(5)))
    objective = joined(SimPO(), count=2, rho=0.5, extractor="tfidf")
    prepared = objective.prepare(training, None, seed=0)  # type: ignore[arg-type]
    held_out = Dataset((Preference("Tell.", text, " No."),))
    found = prepared.objective.prepare(held_out, None, seed=0, held_out=True).dataset  # type: ignore[arg-type]
    assert found[0].degrees == (Graded(" and common thing", 1),)


def test_an_extractor_of_ones_own() -> None:
    rows = Dataset((Preference("Tell.", " red apple and green pear", " No."),))
    objective = with_degrees(SimPO(), DegreeOptions(count=2), extractor=lambda _: [Phrase("pear", 1.0)])
    assert objective.prepare(rows, None, seed=0).dataset[0].degrees == (Graded(" red apple and green", 1),)  # type: ignore[arg-type]


def test_what_is_asked_of_the_reference() -> None:
    assert joined(DPO()).reference_roles == ("chosen", "rejected", "degrees")
    assert joined(DPO(), rewards=False).reference_roles == ("chosen", "rejected")
    assert joined(SimPO()).reference_roles == () and not joined(SimPO()).needs_reference
    assert joined(SimPO(), head="ranking").reference_roles == ("chosen", "degrees")
    assert joined(KTO()).reference_roles == ("response", "mismatched", "degrees")


def test_with_degrees_joins_pairs_and_feedback_only() -> None:
    assert with_degrees(IPO(), DegreeOptions(weight=0.0)) == IPO()
    assert with_degrees(IPO(), DegreeOptions()).name == "ipo"
    with pytest.raises(OptionError, match="joins objectives on preference pairs or feedback, not sft"):
        with_degrees(SFT(), DegreeOptions())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -0.1}, "degrees: weight=-0.1 is out of range: it must be ≥ 0"),
        ({"count": 1}, "degrees: count=1 is out of range: it must be ≥ 2"),
        ({"rho": 1.5}, "degrees: rho=1.5"),
        ({"head": "linear"}, "degrees: head=linear: expected softmax, ordinal, ranking"),
        ({"source": "rejected"}, "degrees: source=rejected: expected chosen, both, sampled"),
        ({"removal": "some"}, "removal=some"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        DegreeOptions(**options)
