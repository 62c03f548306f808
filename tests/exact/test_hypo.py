"""Hybrid preference optimisation against closed forms (arXiv 2406.01462), in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives import DPO, HybridLogps, HyPO, ResponseLogps
from paperworks.language.testbeds import kl_gradients, unseen_response
from paperworks.language.testbeds.exact import random_token_mdp
from paperworks.language.testbeds.kl_gradients import Estimator

CHECKS = [  # logits of pi, pi_ref, KL, gradient in the logits
    ([0.0, 1.0], [0.5, 0.5], 0.110944, [-0.196612, 0.196612]),
    ([0.2, -0.4, 1.1], [0.5, 0.3, 0.2], 0.407036, [-0.274993, -0.163128, 0.438121]),
]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def hybrid(logits: Tensor, reference: Tensor, drawn: Sequence[Sequence[int]]) -> HybridLogps:
    """A policy over a few responses; each row has a pair that says nothing and the samples of `drawn`."""
    logp = torch.log_softmax(logits, dim=-1)
    rows = len(drawn)
    same = ResponseLogps(
        torch.zeros(rows, dtype=torch.float64), torch.ones(rows), torch.zeros(rows, dtype=torch.float64)
    )
    index = torch.tensor([sample for row in drawn for sample in row])
    of = torch.tensor([number for number, row in enumerate(drawn) for _ in row])
    online = ResponseLogps(logp[index], torch.ones(len(index)), reference.log()[index], row=of)
    return HybridLogps(same, same, torch.ones(rows, dtype=torch.float64), online=online)


def gradient(objective: HyPO, logits: Tensor, reference: Tensor, drawn: Sequence[int]) -> Tensor:
    """Of lam * S in the logits, with these samples of one prompt."""
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(objective.terms(hybrid(logits, reference, [drawn]))["kl"].sum(), logits)[0]


def expected(objective: HyPO, logits: Tensor, reference: Tensor, k: int) -> Tensor:
    """The gradient's mean over all ways to draw k samples."""
    ways = list(itertools.product(range(len(logits)), repeat=k))
    chance = torch.softmax(logits, dim=-1)[torch.tensor(ways)].prod(1)
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(chance @ objective.terms(hybrid(logits, reference, ways))["kl"], logits)[0]


@pytest.mark.parametrize(("logits", "reference", "kl", "exact"), CHECKS)
def test_the_exact_kl_and_its_gradient(
    logits: list[float], reference: list[float], kl: float, exact: list[float]
) -> None:
    theta = tensor(*logits).requires_grad_()
    logp = torch.log_softmax(theta, dim=-1)
    ratio = logp - tensor(*reference).log()
    found = (logp.exp() * ratio).sum()
    assert found.item() == pytest.approx(kl, abs=5e-7)
    assert torch.autograd.grad(found, theta, retain_graph=True)[0].tolist() == pytest.approx(exact, abs=5e-7)
    assert (logp.exp() * (ratio - found)).tolist() == pytest.approx(exact, abs=5e-7)


@pytest.mark.parametrize(("logits", "reference", "kl", "exact"), CHECKS)
@pytest.mark.parametrize(("baseline", "k"), [("rloo", 2), ("rloo", 3), ("none", 1), ("none", 2)])
def test_the_surrogate_s_expected_gradient_is_exact(
    logits: list[float], reference: list[float], kl: float, exact: list[float], baseline: str, k: int
) -> None:
    objective = HyPO(lam=1.0, baseline=baseline)  # type: ignore[arg-type]
    assert expected(objective, tensor(*logits), tensor(*reference), k).tolist() == pytest.approx(exact, abs=5e-7)


def test_differentiating_the_mean_log_ratio_itself_gives_nothing() -> None:
    logits = tensor(0.2, -0.4, 1.1).requires_grad_()
    logp = torch.log_softmax(logits, dim=-1)
    of_samples = (logp.detach().exp() * logp).sum()  # the mean of log pi over fixed samples; pi_ref is a constant
    assert torch.autograd.grad(of_samples, logits)[0].abs().max() < 1e-15


def test_the_baseline_leaves_the_sample_itself_out() -> None:
    logits, reference = tensor(0.2, -0.4, 1.1), tensor(0.5, 0.3, 0.2)
    logp = torch.log_softmax(logits, dim=-1)
    ratio = logp - reference.log()
    score = torch.eye(3, dtype=torch.float64) - logp.exp()
    by_hand = (score[0] * (ratio[0] - ratio[2]) + score[2] * (ratio[2] - ratio[0])) / 2
    assert torch.allclose(gradient(HyPO(lam=1.0), logits, reference, [0, 2]), by_hand)


def test_a_likelier_sample_than_under_the_reference_is_pushed_down() -> None:
    pushed = gradient(HyPO(lam=1.0), tensor(0.0, 2.0), tensor(0.5, 0.5), [1, 0])
    assert pushed[1] > 0 > pushed[0]  # descent lowers the logit of the likelier one


def test_at_the_reference_the_kl_part_is_nothing() -> None:
    logits = tensor(0.3, -0.2, 0.5)
    reference = torch.softmax(logits, dim=-1)
    for baseline in ("rloo", "none"):
        found = gradient(HyPO(lam=1.0, baseline=baseline), logits, reference, [0, 2, 1])  # type: ignore[arg-type]
        assert found.abs().max() < 1e-15
        surrogate = HyPO(lam=1.0, baseline=baseline).surrogate(hybrid(logits, reference, [[0, 2, 1]]))  # type: ignore[arg-type]
        assert surrogate.abs().max() < 1e-14


def test_a_constant_of_the_reference_does_not_change_the_rloo_gradient() -> None:
    logits, reference = tensor(0.2, -0.4, 1.1), tensor(0.5, 0.3, 0.2)
    shifted = math.exp(-3) * reference
    drawn = [2, 0, 2]
    assert torch.allclose(
        gradient(HyPO(lam=1.0), logits, reference, drawn), gradient(HyPO(lam=1.0), logits, shifted, drawn), atol=1e-14
    )


@pytest.mark.parametrize("start", [[3.0, -2.0, 0.0], [-4.0, 4.0, 1.0]])
def test_without_pairs_training_returns_to_the_reference(start: list[float]) -> None:
    reference, logits = tensor(0.5, 0.3, 0.2), tensor(*start)
    for _ in range(150):  # steps along the exact expectation of the estimate
        logits = logits - 2.0 * expected(HyPO(lam=1.0), logits, reference, 2)
    assert torch.allclose(torch.softmax(logits, dim=-1), reference, atol=1e-3)


# ------------------------------------------------------------------------------------------------ the objective's form


def test_without_lam_it_is_dpo_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    losses, gradients = [], []
    policy, reference = -30 * torch.rand(2, 2, 6, generator=generator, dtype=torch.float64)
    for objective in (DPO(beta=0.2), HyPO(beta=0.2, lam=0.0)):
        sides = [ResponseLogps(p.clone().requires_grad_(), torch.ones(6), r) for p, r in zip(policy, reference)]
        online = ResponseLogps(tensor(-3.0, -4.0), tensor(1, 1), tensor(-2.0, -9.0), row=torch.tensor([1, 1]))
        batch = HybridLogps(sides[0], sides[1], torch.ones(6, dtype=torch.float64), online=online)
        loss = objective.loss(batch)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), [side.policy for side in sides]))
    assert torch.equal(*losses)
    assert all(torch.equal(*each) for each in zip(*gradients, strict=True))


def test_each_row_s_samples_are_its_own_and_rows_without_samples_do_not_count() -> None:
    logits, reference = tensor(0.2, -0.4, 1.1), tensor(0.5, 0.3, 0.2)
    objective = HyPO(lam=0.7)
    batch = hybrid(logits, reference, [[0, 1, 1], [], [2, 0]])
    alone = [objective.surrogate(hybrid(logits, reference, [drawn])) for drawn in ([0, 1, 1], [2, 0])]
    surrogate = objective.surrogate(batch)
    assert torch.allclose(surrogate[[0, 2]], torch.cat(alone)) and surrogate[1] == 0
    assert objective.weights(batch)["kl"].tolist() == [1, 0, 1]
    assert objective.weights(batch)["dpo"].tolist() == [1, 1, 1]


def test_prompts_without_a_pair_count_in_the_kl_alone() -> None:
    full = hybrid(tensor(0.2, -0.4, 1.1), tensor(0.5, 0.3, 0.2), [[0, 1], [2, 0]])

    def cut(side: ResponseLogps) -> ResponseLogps:
        assert side.reference is not None
        return ResponseLogps(side.policy[:1], side.tokens[:1], side.reference[:1], weight=full.weight[:1])

    batch = dataclasses.replace(full, chosen=cut(full.chosen), rejected=cut(full.rejected))
    terms, weights = HyPO(lam=1.0).terms(batch), HyPO(lam=1.0).weights(batch)
    assert {name: len(value) for name, value in terms.items()} == {"dpo": 1, "kl": 2}
    assert {name: len(value) for name, value in weights.items()} == {"dpo": 1, "kl": 2}
    with pytest.raises(OptionError, match="some rows have no pair"):
        HyPO(lam=1.0).loss(batch)


def test_held_out_quality_is_the_loss_on_pairs_plus_the_kl_itself() -> None:
    assert HyPO(lam=0.1).quality({"loss": 3.0, "dpo": 0.5, "kl_online": 2.0}) == pytest.approx(-0.7)
    assert HyPO(lam=0.1).quality({"loss": 3.0, "dpo": 0.5}) == -0.5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"lam": -1e-3}, "lam=-0.001 is out of range"),
        ({"baseline": "mean"}, "baseline=mean: expected rloo or none"),
        ({"beta": 0.0}, "beta=0.0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        HyPO(**options)  # type: ignore[arg-type]


def test_one_sample_has_no_others_to_compare_with() -> None:
    batch = hybrid(tensor(0.2, -0.4), tensor(0.5, 0.5), [[0, 1], [1]])
    with pytest.raises(OptionError, match="a prompt has 1 online sample, baseline=rloo needs 2 or more"):
        HyPO().terms(batch)


def test_samples_without_rows_are_refused() -> None:
    batch = hybrid(tensor(0.2, -0.4), tensor(0.5, 0.5), [[0, 1]])
    assert batch.online is not None
    lost = dataclasses.replace(batch, online=dataclasses.replace(batch.online, row=None))
    with pytest.raises(OptionError, match="which row each online sample belongs to"):
        HyPO().terms(lost)


# ----------------------------------------------------------------------------------------------- estimators, enumerated


@pytest.fixture(scope="module")
def mdp_and_logits():
    mdp = random_token_mdp(0, vocabulary=4, horizon=3)
    generator = torch.Generator().manual_seed(1)
    return mdp, mdp.reference_logits + torch.randn(mdp.reference_logits.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("estimator", "k", "bias"),
    [("rloo", 2, 0), ("rloo", 8, 0), ("none", 1, 0), ("none", 2, 0), ("detached-mean", 2, 1)],
)
def test_bias_of_sequence_estimators(mdp_and_logits, estimator: Estimator, k: int, bias: float) -> None:
    assert kl_gradients.quality(*mdp_and_logits, estimator, k).bias == pytest.approx(bias, abs=1e-10)


@pytest.mark.parametrize("estimator", ["token-exact", "token-score"])
def test_estimators_token_by_token_are_biased(mdp_and_logits, estimator: Estimator) -> None:
    assert kl_gradients.quality(*mdp_and_logits, estimator, 2).bias > 0.05


def test_token_exact_is_right_where_no_prefix_depends_on_the_policy() -> None:
    mdp = random_token_mdp(0, vocabulary=4, horizon=1)
    logits = torch.randn(mdp.reference_logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = kl_gradients.quality(mdp, logits, "token-exact", 1)
    assert found.bias == pytest.approx(0, abs=1e-12)
    assert found.variance == pytest.approx(0, abs=1e-12)


def test_variance_of_rloo_is_that_of_all_pairs_of_samples() -> None:
    mdp = random_token_mdp(3, vocabulary=2, horizon=2)
    logits = torch.randn(mdp.reference_logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    probability, score = mdp.log_probabilities(logits).exp(), kl_gradients.scores(mdp, logits).flatten(1)
    ratio = mdp.log_probabilities(logits) - mdp.reference
    size = float(kl_gradients.exact_gradient(mdp, logits).square().sum())
    for k in (2, 3):
        first, second = torch.zeros(score.shape[1], dtype=torch.float64), 0.0
        for way in itertools.product(range(len(ratio)), repeat=k):
            drawn = list(way)
            others = (ratio[drawn].sum() - ratio[drawn]) / (k - 1)
            estimate = (score[drawn] * (ratio[drawn] - others)[:, None]).mean(0)
            chance = float(probability[drawn].prod())
            first, second = first + chance * estimate, second + chance * float(estimate.square().sum())
        variance = (second - float(first.square().sum())) / size
        assert kl_gradients.quality(mdp, logits, "rloo", k).variance == pytest.approx(variance, rel=1e-9)


def test_more_samples_and_a_baseline_lower_the_variance(mdp_and_logits) -> None:
    of = {k: kl_gradients.quality(*mdp_and_logits, "rloo", k).variance for k in (2, 4, 8)}
    assert of[2] > of[4] > of[8] > 0


def test_rloo_needs_two_samples(mdp_and_logits) -> None:
    with pytest.raises(OptionError, match="k=1 samples: rloo needs 2"):
        kl_gradients.quality(*mdp_and_logits, "rloo", 1)


# ---------------------------------------------------------------------------------------------- the unseen response


def test_dpo_gives_the_unseen_response_everything_and_a_kl_holds_it() -> None:
    _, unseen, kl = unseen_response.train(
        [DPO(beta=0.1)] * 2, range(3), kl_penalties=[0.0, 0.1], steps=600, learning_rate=0.05
    )
    assert unseen[0].flatten().tolist() == pytest.approx([1e-3] * 6)
    assert unseen[-1, 0].min() > 0.95
    assert kl[-1, 0].min() > 6
    assert unseen[-1, 1].max() < 0.2
    assert kl[-1, 1].max() < 2
    assert (kl[-1, 1] - kl[-10, 1]).abs().max() < 1e-3  # it has come to rest


def test_the_unseen_response_lies_beyond_the_better_one() -> None:
    phi = unseen_response.features(range(2))
    assert torch.allclose(phi[:, 2] - phi[:, 0], phi[:, 0] - phi[:, 1])
    with pytest.raises(OptionError, match="mass=0"):
        unseen_response.log_reference(range(2), mass=0)
