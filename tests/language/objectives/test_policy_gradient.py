"""Policy gradients: ratios of 1 at first, identities between methods, and gradients against enumeration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives.objective import ByToken, ResponseLogps, StepInputs
from paperworks.language.objectives.policy_gradient import GRPO, PPO, RLOO, Penalty, Reinforce, RolloutObjective
from paperworks.language.online.credit import group_normalised
from paperworks.language.online.rollouts import Rollouts

LENGTHS = [2, 1, 3, 2]
GROUP = torch.tensor([0, 0, 1, 1])
RESPONSE = torch.arange(4).repeat_interleave(torch.tensor(LENGTHS))
OLD = torch.tensor([-1.0, -0.5, -2.0, -0.3, -1.2, -0.7, -0.4, -0.9])


def rollouts(**more: Any) -> Rollouts:
    given: dict[str, Any] = {
        "prompts": ["a", "b"], "rows": [None, None], "prompt_ids": [(1,), (2,)], "prefixes": [(), ()],
        "texts": ["w", "x", "y", "z"], "ids": [tuple(range(n)) for n in LENGTHS], "group": GROUP,
        "finished": torch.ones(4, dtype=torch.bool), "response": RESPONSE, "logps": OLD, "reference": OLD - 0.1,
        "values": torch.zeros(8), "rewards": torch.tensor([1.0, -0.5, 2.0, 0.25]),
    }  # fmt: skip
    return Rollouts(**{**given, **more})


def batch_of(objective: RolloutObjective, logps: Tensor, credit: Mapping[str, Tensor], **more: Any) -> Any:
    """The objective's batch of these four answers scored at `logps`."""
    by_token = ByToken(logps, None, RESPONSE, 4, more.pop("states", None))
    sums, counts = by_token.summed(logps), torch.tensor(LENGTHS, dtype=torch.float32)
    weight, row = torch.ones(4), torch.tensor([0, 0, 1, 1])
    scores = {"response": ResponseLogps(sums, counts, by_token=by_token, weight=weight, row=row)}
    numbers = {name: {"response": credit[name]} for name in objective.token_numbers}
    return objective.batch(scores, StepInputs(torch.ones(2), token_numbers=numbers, modules=more.pop("modules", {})))


def step_loss(objective: RolloutObjective, batch: Any) -> Tensor:
    terms, weights = objective.terms(batch), objective.weights(batch)
    return torch.stack([(weights[name] * terms[name]).sum() / weights[name].sum() for name in terms]).sum()


def gradient(objective: RolloutObjective, credit: Mapping[str, Tensor], logps: Tensor = OLD) -> Tensor:
    """Of the step's loss, by each token's log-probability."""
    leaf = logps.clone().requires_grad_()
    (found,) = torch.autograd.grad(step_loss(objective, batch_of(objective, leaf, credit)), leaf)
    return found


class PolicyTermOnly(PPO):
    """PPO without its critic."""

    def terms(self, batch: Any) -> dict[str, Tensor]:
        from paperworks.language.objectives.policy_gradient import clipped_surrogate

        return {"policy": clipped_surrogate(batch.log_ratio, batch.credit["advantage"], self.clip)[0]}


# ------------------------------------------------------------------------------------------------------------- on policy


@pytest.mark.parametrize("objective", [RLOO(), GRPO(), PPO()])
def test_the_ratio_is_one_on_the_policy_that_wrote(objective: RolloutObjective) -> None:
    batch = batch_of(objective, OLD, objective.credit(rollouts(), Penalty(0.05)))
    torch.testing.assert_close(batch.log_ratio.exp(), torch.ones(8))
    assert not bool(batch.log_ratio.any())


def test_on_policy_ppo_is_reinforce() -> None:
    """No values, lambda 1, no whitening, no KL: every token of an answer has the answer's reward as its advantage.

    PPO averages over tokens (8) and REINFORCE over answers (4), which is the whole difference.
    """
    ppo = PolicyTermOnly(gae_decay=1.0, whiten_advantages=False)
    reinforce = Reinforce(baseline="none")
    ours, theirs = ppo.credit(rollouts(), Penalty(0.0)), reinforce.credit(rollouts(), Penalty(0.0))
    torch.testing.assert_close(ours["advantage"], theirs["advantage"])
    torch.testing.assert_close(8 * gradient(ppo, ours), 4 * gradient(reinforce, theirs))


def test_with_a_kl_penalty_ppo_pays_only_what_is_still_to_come() -> None:
    ppo = PPO(gae_decay=1.0, whiten_advantages=False)
    credit = ppo.credit(rollouts(), Penalty(0.5))["advantage"]  # 0.05 a token
    torch.testing.assert_close(credit[:3], torch.tensor([1 - 0.10, 1 - 0.05, -0.5 - 0.05]))


def test_on_policy_rloo_is_reinforce_with_its_own_baseline() -> None:
    credit = RLOO().credit(rollouts(), Penalty(0.05))
    torch.testing.assert_close(gradient(RLOO(), credit), gradient(Reinforce(), credit))


def test_what_is_clipped_has_no_gradient() -> None:
    """The first answer has a positive advantage and has become twice as likely."""
    moved = OLD + torch.tensor([0.35, 0.35, 0, 0, 0, 0, 0, 0])
    credit = RLOO().credit(rollouts(), Penalty(0.0))
    found = gradient(RLOO(clip=0.2), credit, moved)
    assert found[:2].tolist() == [0.0, 0.0] and bool(found[2:].all())
    share, weight = RLOO(clip=0.2).metrics(batch_of(RLOO(), moved, credit))["clipped"]
    assert share.tolist() == [1.0, 0.0, 0.0, 0.0] and weight.tolist() == [1.0] * 4


# ------------------------------------------------------------------------------------------------------------------- GRPO


def test_grpo_s_advantages_and_its_kl_gradient() -> None:
    """On policy: the gradient by a token is (-A + beta (1 - exp(-log-ratio))) times the token's weight."""
    objective = GRPO(beta=0.3)
    advantage = group_normalised(rollouts().rewards, GROUP)[RESPONSE]
    kl = 0.3 * (1 - torch.full((8,), -0.1).exp())
    by_answer = 1 / (4 * torch.tensor(LENGTHS, dtype=torch.float32))[RESPONSE]
    credit = objective.credit(rollouts(), Penalty(9.0))  # the run's penalty is not used
    torch.testing.assert_close(gradient(objective, credit), (kl - advantage) * by_answer)
    by_token = dataclasses.replace(objective, averaging="token")
    torch.testing.assert_close(gradient(by_token, credit), (kl - advantage) / 8)


def test_without_beta_the_reference_does_not_matter() -> None:
    one, two = (GRPO(beta=0.0).credit(rollouts(reference=OLD - by), Penalty(0.0)) for by in (0.0, 5.0))
    torch.testing.assert_close(gradient(GRPO(beta=0.0), one), gradient(GRPO(beta=0.0), two))


# -------------------------------------------------------------------------------------------------------------------- PPO


class FixedValues(torch.nn.Module):
    """Stands in for a value head: the first of the states."""

    def at_positions(self, states: Tensor) -> Tensor:
        return states[:, 0]


def test_the_value_loss_reaches_the_weights_beneath_only_when_let(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperworks.language.objectives.policy_gradient.ValueHead", FixedValues)
    for lets in (True, False):
        objective = PPO(critic_trains_policy=lets, value_weight=0.1)
        states = torch.zeros(8, 4, requires_grad=True)
        credit = objective.credit(rollouts(), Penalty(0.0))
        batch = batch_of(
            objective, OLD.clone().requires_grad_(), credit, states=states, modules={"critic": FixedValues()}
        )
        loss = step_loss(objective, batch)
        (found,) = torch.autograd.grad(loss, states, allow_unused=True)
        if lets:  # 0.1 * mean of half the square of (0 - return): -return/80 each
            torch.testing.assert_close(found[:, 0], -0.1 * credit["return"] / 8)
        else:
            assert found is None


def test_ppo_whitens_over_the_iteration() -> None:
    found = PPO().credit(rollouts(), Penalty(0.05))["advantage"]
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    assert float(found.var(correction=0)) == pytest.approx(1, abs=1e-5)


# --------------------------------------------------------------------------------------------------------- by enumeration


def expected_gradient(objective: RolloutObjective, logits: Tensor, rewards: Tensor, n: int) -> Tensor:
    """E over n independent one-token answers of the step's descent direction, by enumeration of all draws."""
    actions = len(logits)
    total = torch.zeros(actions)
    for draws in torch.cartesian_prod(*[torch.arange(actions)] * n):
        leaf = logits.clone().requires_grad_()
        logps = leaf.log_softmax(-1)
        old = logps.detach()
        given = Rollouts(
            prompts=["?"], rows=[None], prompt_ids=[(0,)], prefixes=[()], texts=["."] * n,
            ids=[(int(a),) for a in draws], group=torch.zeros(n, dtype=torch.long),
            finished=torch.ones(n, dtype=torch.bool), response=torch.arange(n), logps=old[draws],
            reference=old[draws], rewards=rewards[draws],
        )  # fmt: skip
        by_token = ByToken(logps[draws], None, torch.arange(n), n)
        response = ResponseLogps(
            logps[draws], torch.ones(n), by_token=by_token, weight=torch.ones(n), row=torch.zeros(n, dtype=torch.long)
        )
        credit = objective.credit(given, Penalty(0.0))
        numbers = {name: {"response": credit[name]} for name in objective.token_numbers}
        batch = objective.batch({"response": response}, StepInputs(torch.ones(1), token_numbers=numbers))
        (found,) = torch.autograd.grad(step_loss(objective, batch), leaf)
        total -= old[draws].sum().exp() * found
    return total


ENUMERATED: Sequence[tuple[RolloutObjective, float]] = [
    (RLOO(), 1.0), (Reinforce(), 1.0), (Reinforce(baseline="none"), 1.0), (GRPO(beta=0.0, scale_rewards=False), 2 / 3)
]  # fmt: skip


@pytest.mark.parametrize(("objective", "factor"), ENUMERATED, ids=lambda each: getattr(each, "name", ""))
def test_the_expected_gradient_is_the_policy_gradient(objective: RolloutObjective, factor: float) -> None:
    """dJ/dlogit_a = pi_a (r_a - J). GRPO's baseline counts the answer itself: (n - 1)/n of it."""
    logits, rewards = torch.tensor([0.5, -0.2, 0.1]), torch.tensor([1.0, -2.0, 0.7])
    policy = logits.softmax(-1)
    exact = policy * (rewards - (policy * rewards).sum())
    torch.testing.assert_close(expected_gradient(objective, logits, rewards, 3), factor * exact, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRPO(averaging="rows"), "averaging=rows: expected response or token"),  # type: ignore[arg-type]
        (lambda: PPO(gae_decay=1.5), "gae_decay"),
        (lambda: RLOO(clip=0.0), "clip"),
        (lambda: Reinforce(baseline="median"), "baseline=median: expected mean or none"),  # type: ignore[arg-type]
    ],
)
def test_options_out_of_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
