"""Policy gradients on a policy's own answers: REINFORCE, RLOO, GRPO and PPO.

Each says how rewards become credit for tokens (`credit`, once an iteration, constants) and what the loss of an optimiser
step is (`loss`, on scores that carry the gradient). Rewards are maximised; losses are what is minimised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.core.options import option
from paperworks.language.data.schemas import PromptRow
from paperworks.language.objectives.objective import Objective, ResponseLogps, StepInputs, require
from paperworks.language.online.credit import (
    KlEstimator,
    generalised_advantages,
    group_normalised,
    kl_terms,
    leave_one_out,
    token_rewards,
    whitened,
)
from paperworks.language.values.head import ValueHead, ValueHeadOptions

if TYPE_CHECKING:
    from paperworks.language.online.rollouts import Rollouts
    from paperworks.language.policy import Policy
    from paperworks.language.values.critic import Critic

Averaging = Literal["response", "token"]

HEAD_RATE = 1e-3  # a value head starts from nothing and learns faster than what it stands on


@dataclass(frozen=True)
class Penalty:
    """The KL penalty of an iteration: its weight (a controller's) and its estimator."""

    weight: float
    estimator: KlEstimator = "k1"

    def of(self, rollouts: Rollouts) -> Float[Tensor, " tokens"]:
        """weight * KL term of every token; zeros where there is no reference."""
        if rollouts.reference is None or self.weight == 0:
            return torch.zeros_like(rollouts.logps)
        return self.weight * kl_terms(rollouts.log_ratio, self.estimator)


@dataclass(frozen=True)
class RolloutLogps:
    """Answers that the policy wrote, with what `credit` said of their tokens."""

    response: ResponseLogps
    credit: Mapping[str, Float[Tensor, " tokens"]]
    critic: nn.Module | None = None

    @property
    def log_ratio(self) -> Float[Tensor, " tokens"]:
        """log pi_theta(y_t) - log pi_old(y_t), against the policy that wrote the answers."""
        assert self.response.by_token is not None
        return self.response.by_token.policy - self.credit["old_logp"]

    def summed(self, values: Tensor) -> Float[Tensor, " items"]:
        """The sum over each answer's tokens."""
        assert self.response.by_token is not None
        return self.response.by_token.summed(values)

    def token_weight(self, averaging: Averaging) -> Float[Tensor, " tokens"]:
        """Weights by which tokens are averaged: each alike, or each answer alike."""
        by_token = self.response.by_token
        assert by_token is not None and self.response.weight is not None
        weight = self.response.weight if averaging == "token" else self.response.weight / self.response.tokens
        return weight[by_token.response]


def clipped_surrogate(
    log_ratio: Tensor, advantage: Tensor, low: float, high: float | None = None
) -> tuple[Tensor, Tensor]:
    """PPO's loss max(-rho A, -clip(rho, 1 - low, 1 + high) A) (arXiv 1707.06347, Eq. 7), and where it is clipped."""
    ratio = log_ratio.exp()
    plain, held = -ratio * advantage, -ratio.clamp(1 - low, 1 + (low if high is None else high)) * advantage
    return torch.maximum(plain, held), held > plain


def clipped_value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half the squared error, or that of the value held within `clip` of the old one, whichever is larger."""
    held = old + (value - old).clamp(-clip, clip) if clip else value
    return 0.5 * torch.maximum((value - target).square(), (held - target).square())


class RolloutObjective(Objective):
    """Base of objectives on a policy's own answers."""

    schema: ClassVar[type] = PromptRow
    needs_reference: ClassVar[bool] = False  # reference scores come with the rollouts
    needs_tokens: ClassVar[bool] = True
    needs_critic: ClassVar[bool] = False
    token_numbers: ClassVar[tuple[str, ...]] = ("advantage", "old_logp")

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Float[Tensor, " tokens"]]:
        """The token numbers that the loss reads."""
        raise NotImplementedError

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> RolloutLogps:
        credit = {name: inputs.token_numbers[name]["response"] for name in self.token_numbers}
        return RolloutLogps(scores["response"], credit, inputs.modules.get("critic"))


def _everywhere(values: Float[Tensor, " responses"], rollouts: Rollouts) -> dict[str, Tensor]:
    """One advantage for all tokens of a response."""
    return {"advantage": values[rollouts.response], "old_logp": rollouts.logps}


@dataclass(frozen=True)
class Reinforce(RolloutObjective):
    """REINFORCE (Williams 1992) on whole answers: loss = -(R - b) log pi(y|x), R the reward minus the KL penalty.

    The baseline b is the mean of the iteration's other answers, or 0.
    """

    name: ClassVar[str] = "reinforce"

    baseline: Literal["mean", "none"] = option("mean", "subtract the mean of the iteration's other answers, or nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.baseline in ("mean", "none"), "baseline", self.baseline, "mean or none")

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Tensor]:
        return self._credited(rollouts.rewards - rollouts.summed(penalty.of(rollouts)), rollouts)

    def _credited(self, total: Float[Tensor, " responses"], rollouts: Rollouts) -> dict[str, Tensor]:
        if self.baseline == "mean":
            total = leave_one_out(total, torch.zeros_like(rollouts.group))
        return _everywhere(total, rollouts)

    def terms(self, batch: RolloutLogps) -> dict[str, Tensor]:
        by_token = batch.response.by_token
        assert by_token is not None
        return {"loss": batch.summed(-by_token.policy * batch.credit["advantage"])}

    def weights(self, batch: RolloutLogps) -> dict[str, Tensor]:
        assert batch.response.weight is not None
        return {"loss": batch.response.weight}


@dataclass(frozen=True)
class RLOO(RolloutObjective):
    """REINFORCE leave-one-out (arXiv 2402.14740): the baseline of an answer is its prompt's other answers.

    The ratio is that of whole answers, clipped as in PPO; with one update on each answer it is 1.
    """

    name: ClassVar[str] = "rloo"

    clip: float = option(0.2, "the answers' likelihood ratio counts within 1 +- this", above=0, below=1)
    whiten: bool = option(False, "divide advantages by the iteration's standard deviation, mean removed")

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Tensor]:
        total = rollouts.rewards - rollouts.summed(penalty.of(rollouts))
        advantage = leave_one_out(total, rollouts.group)
        return _everywhere(whitened(advantage) if self.whiten else advantage, rollouts)

    def _surrogate(self, batch: RolloutLogps) -> tuple[Tensor, Tensor]:
        advantage = batch.summed(batch.credit["advantage"]) / batch.response.tokens
        return clipped_surrogate(batch.summed(batch.log_ratio), advantage, self.clip)

    def terms(self, batch: RolloutLogps) -> dict[str, Tensor]:
        return {"loss": self._surrogate(batch)[0]}

    def weights(self, batch: RolloutLogps) -> dict[str, Tensor]:
        assert batch.response.weight is not None
        return {"loss": batch.response.weight}

    @torch.no_grad()
    def metrics(self, batch: RolloutLogps) -> dict[str, Any]:
        return {"clipped": (self._surrogate(batch)[1].float(), self.weights(batch)["loss"])}


@dataclass(frozen=True)
class GRPO(RolloutObjective):
    """Group-relative policy optimisation (arXiv 2402.03300): rewards normalised within a prompt's answers.

    The KL to the reference is a term of the loss (k3, as in the paper without an importance weight, which makes its
    gradient that of KL(pi_ref || pi) on policy, unless `weigh_kl`) and not of the reward; its weight is `beta`, and the
    run's kl_coef is not used. Token ratios are clipped.
    """

    name: ClassVar[str] = "grpo"
    token_numbers: ClassVar[tuple[str, ...]] = ("advantage", "old_logp", "reference_logp")

    beta: float = option(0.04, "weight of the KL term in the loss", low=0)
    clip: float = option(0.2, "a token's likelihood ratio counts within 1 +- this", above=0, below=1)
    scale_rewards: bool = option(True, "divide by the standard deviation of the prompt's rewards")
    averaging: Averaging = option("response", "average tokens within each answer first (the paper), or all alike")
    weigh_kl: bool = option(
        False,
        "weigh the KL term by the token's ratio (arXiv 2512.02556): its gradient is then that of KL(pi || pi_ref)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.averaging in get_args(Averaging), "averaging", self.averaging, "response or token")

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Tensor]:
        advantage = group_normalised(rollouts.rewards, rollouts.group, scale=self.scale_rewards)
        reference = rollouts.logps if rollouts.reference is None else rollouts.reference
        return {**_everywhere(advantage, rollouts), "reference_logp": reference}

    def terms(self, batch: RolloutLogps) -> dict[str, Tensor]:
        by_token = batch.response.by_token
        assert by_token is not None
        loss, _ = clipped_surrogate(batch.log_ratio, batch.credit["advantage"], self.clip)
        if self.beta:
            kl = kl_terms(by_token.policy - batch.credit["reference_logp"], "k3")
            loss = loss + self.beta * (batch.log_ratio.exp() * kl if self.weigh_kl else kl)
        return {"loss": loss}

    def weights(self, batch: RolloutLogps) -> dict[str, Tensor]:
        return {"loss": batch.token_weight(self.averaging)}

    @torch.no_grad()
    def metrics(self, batch: RolloutLogps) -> dict[str, Any]:
        _, clipped = clipped_surrogate(batch.log_ratio, batch.credit["advantage"], self.clip)
        return {"clipped": (clipped.float(), self.weights(batch)["loss"])}


@dataclass(frozen=True)
class PPO(RolloutObjective):
    """Proximal policy optimisation (arXiv 1707.06347) with a value head, the per-token KL penalty in the reward.

    r_t = -beta KL_t, plus the answer's reward on its last token; advantages by GAE (arXiv 1506.02438), normalised over
    the iteration's tokens; ratio and value clipped. The critic is a head on the policy's hidden states, or a model of its own.
    """

    name: ClassVar[str] = "ppo"
    needs_critic: ClassVar[bool] = True
    token_numbers: ClassVar[tuple[str, ...]] = ("advantage", "old_logp", "value", "return")

    clip: float = option(0.2, "a token's likelihood ratio counts within 1 +- this", above=0, below=1)
    value_clip: float = option(0.2, "the value counts within +- this of the old one; 0: always", low=0)
    value_weight: float = option(0.1, "weight of the value loss", low=0)
    gamma: float = option(1.0, "discount a token", above=0, high=1)
    gae_decay: float = option(0.95, "GAE's lambda: 1 is the return, 0 the one-step error", low=0, high=1)
    whiten_rewards: bool = option(False, "divide token rewards by their standard deviation, mean kept")
    whiten_advantages: bool = option(True, "normalise advantages over the iteration's tokens")
    averaging: Averaging = option("token", "average all tokens alike, or within each answer first")
    critic: str | None = option(
        None,
        "a model for the values: a reward model's or language model's folder or Hub id; none: a head on the policy",
    )
    critic_rate: float | None = option(
        None, "peak learning rate of the critic; none: 1e-3 for a head, the policy's for a model of its own", above=0
    )
    critic_trains_policy: bool = option(True, "let the value loss reach the policy's weights under a head")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.averaging in get_args(Averaging), "averaging", self.averaging, "response or token")

    @property
    def state_roles(self) -> tuple[str, ...]:
        return ("response",)

    @property
    def module_learning_rate(self) -> float | None:
        return HEAD_RATE if self.critic_rate is None and self.critic is None else self.critic_rate

    def modules(self, policy: Policy) -> dict[str, nn.Module]:
        if self.critic is not None:
            from paperworks.language.values.critic import Critic

            return {"critic": Critic.load(self.critic, policy)}
        head = ValueHead(int(policy.base.config.hidden_size), ValueHeadOptions(kind="mean", dropout=0.0))
        head.start_at(0.0)
        return {"critic": head}

    def rewards_by_token(self, rollouts: Rollouts, penalty: Penalty) -> Float[Tensor, " tokens"]:
        """What the return of a token is made of."""
        return token_rewards(rollouts.rewards, rollouts.response, penalty.of(rollouts))

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Tensor]:
        values = torch.zeros_like(rollouts.logps) if rollouts.values is None else rollouts.values
        rewards = self.rewards_by_token(rollouts, penalty)
        if self.whiten_rewards:
            rewards = whitened(rewards, shift=False)
        advantage, returns = generalised_advantages(
            rewards, values, rollouts.response, gamma=self.gamma, decay=self.gae_decay
        )
        if self.whiten_advantages:
            advantage = whitened(advantage)
        return {"advantage": advantage, "old_logp": rollouts.logps, "value": values, "return": returns}

    def _value(self, batch: RolloutLogps) -> Float[Tensor, " tokens"]:
        by_token = batch.response.by_token
        assert by_token is not None and by_token.states is not None and batch.critic is not None
        is_of_policy = self.critic is None
        states = by_token.states.detach() if is_of_policy and not self.critic_trains_policy else by_token.states
        return cast("ValueHead | Critic", batch.critic).at_positions(states)

    def terms(self, batch: RolloutLogps) -> dict[str, Tensor]:
        loss, _ = clipped_surrogate(batch.log_ratio, batch.credit["advantage"], self.clip)
        value = clipped_value_loss(self._value(batch), batch.credit["value"], batch.credit["return"], self.value_clip)
        return {"policy": loss, "value": self.value_weight * value}

    def weights(self, batch: RolloutLogps) -> dict[str, Tensor]:
        return {"policy": batch.token_weight(self.averaging), "value": batch.token_weight(self.averaging)}

    @torch.no_grad()
    def metrics(self, batch: RolloutLogps) -> dict[str, Any]:
        weight = batch.token_weight(self.averaging)
        _, clipped = clipped_surrogate(batch.log_ratio, batch.credit["advantage"], self.clip)
        error = (self._value(batch) - batch.credit["return"]).square()
        return {"clipped": (clipped.float(), weight), "value_error": (error, weight)}
