"""Objectives that train a reward model: from pairs (Bradley-Terry) or from scores (regression).

Here a response's score is the reward model's one output for it, not a log-probability; there is no reference. Of an ensemble
it is one output a member, in place of the response's tokens.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paperworks.core.errors import DataError, ModelError
from paperworks.core.options import option
from paperworks.language.data.schemas import Preference, Scored
from paperworks.language.logprobs import Tree
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.member_rewards import bootstrap_weights, member_rewards, with_draws
from paperworks.language.objectives.objective import (
    Objective,
    Prepared,
    ResponseLogps,
    StepInputs,
    note_unless,
    require,
)
from paperworks.language.objectives.row_rewards import reward_rule, rewards_of

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.rewards.model import RewardModel
    from paperworks.language.text_model import TextModel

_STATES_FOR_SCALE = 256  # responses whose hidden states settle where a head without bias starts


@dataclass(frozen=True)
class RewardPairs:
    """Rewards of chosen and rejected responses to the same prompts."""

    chosen: ResponseLogps  # `policy` is the reward
    rejected: ResponseLogps
    margin: Float[Tensor, " items"]  # how much better chosen is by the row; NaN where it does not say
    weight: Float[Tensor, " items"]
    member_weight: Float[Tensor, "items members"] | None = None  # how often each member has the row; None: once


@dataclass(frozen=True)
class RewardTargets:
    """Rewards of single responses, and what they should be."""

    response: ResponseLogps  # `policy` is the reward
    reward: Float[Tensor, " items"]
    weight: Float[Tensor, " items"]


@dataclass(frozen=True)
class RewardObjective(Objective):
    """Base of what trains reward models."""

    trains: ClassVar[Literal["policy", "reward-model"]] = "reward-model"
    needs_reference: ClassVar[bool] = False
    learning_rates: ClassVar[tuple[float, float]] = (1e-5, 1e-4)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        """The reward itself."""
        return response.policy


@dataclass(frozen=True)
class BradleyTerry(RewardObjective):
    """A reward whose differences are the log-odds of human choices (Bradley and Terry 1952; arXiv 2203.02155, eq. 1).

    loss = -(1 - e) log sigmoid(d) - e log sigmoid(-d) + c (r_chosen + r_rejected)^2,
    d = r_chosen - r_rejected - margin_weight * margin. A margin (arXiv 2307.09288, eq. 2) is the row's own, 0 where it
    has none; c holds rewards, of which only differences matter else, around 0 (arXiv 2312.09244); e is `label_smoothing`.

    With `ensemble` = K, K members train in one run on the mean of their losses, each from a head drawn for it and, with
    `bootstrap`, on its own Poisson(1) resample of the rows. What they share: the batches' order, and all layers below the
    last `member_layers`, which are computed once. Frozen (`freeze_shared`), these leave every member a model of its own above
    them; trained on all members' losses, they pull the members together. With member_layers=0 members are heads on one trunk
    (arXiv 2406.01013) and hardly disagree.
    """

    name: ClassVar[str] = "reward-model"
    schema: ClassVar[type] = Preference

    margin_weight: float = option(1.0, "factor on the rows' margins; 0 leaves them out", low=0)
    centring: float = option(0.0, "pull of rewards to a mean of 0: factor on (r_chosen + r_rejected)^2", low=0)
    label_smoothing: float = option(0.0, "assumed share of pairs whose label is wrong", low=0, below=0.5)
    ensemble: int = option(1, "members trained in one run: heads on one backbone; combined at use (--combine)", low=1)
    member_layers: int | None = option(
        None, "with an ensemble: top layers of each member's own (default: a sixth); 0: heads alone", low=0
    )
    freeze_shared: bool | None = option(
        None,
        "with an ensemble: layers below the members' own are not trained (default: in models of 12 layers or more)",
    )
    bootstrap: bool = option(True, "with an ensemble: each member has its own resample of the rows")

    @property
    def numbers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The rows' margins, and the draw behind each member's weight of a row."""
        return ("margin", "member_draw") if self.ensemble > 1 else ("margin",)

    @property
    def needs_tokens(self) -> bool:  # type: ignore[override]
        """An ensemble's members stand where a response's tokens do."""
        return self.ensemble > 1

    def prepare(self, dataset: Dataset, policy: TextModel, *, seed: int, held_out: bool = False) -> Prepared:
        """Give the model a head a member, and every training row a draw. Raises ModelError where it has other heads."""
        model = cast("RewardModel", policy)
        if self.ensemble == 1 and getattr(model, "members", 1) > 1:
            raise ModelError(f"{model.name} has {model.members} members; train it with --ensemble {model.members}")
        if self.ensemble == 1 or held_out:
            return Prepared(self, dataset)
        model.make_ensemble(self.ensemble, layers=self.member_layers, freeze_shared=self.freeze_shared, seed=seed)
        return Prepared(self, with_draws(dataset, seed) if self.bootstrap else dataset)

    def modules(self, policy: Any) -> dict[str, nn.Module]:
        """The own layers of all members but the first, whose own are the model's; saved with the model."""
        return {f"member_{number}": top for number, top in enumerate(getattr(policy, "tops", ()), start=2)}

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        """The reward itself; of an ensemble the mean of its members."""
        return member_rewards(response, self.ensemble).mean(1)

    def option_notes(self) -> list[str]:
        return note_unless(
            self.centring <= 1, "centring", self.centring, "0.01 is usual", "large values leave no room for differences"
        )

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> RewardPairs:
        margin = inputs.numbers.get("margin", torch.full_like(inputs.weight, math.nan))
        draws = inputs.numbers.get("member_draw") if self.ensemble > 1 else None
        weights = None if draws is None else bootstrap_weights(draws, self.ensemble)
        return RewardPairs(scores["chosen"], scores["rejected"], margin, inputs.weight, weights)

    def loss(self, batch: RewardPairs) -> Float[Tensor, " items"]:
        chosen, rejected = (member_rewards(part, self.ensemble) for part in (batch.chosen, batch.rejected))
        margin = torch.where(batch.margin.isnan(), 0.0, batch.margin).to(chosen.dtype)[:, None]
        difference = chosen - rejected - self.margin_weight * margin
        loss = (1 - self.label_smoothing) * logistic(difference) + self.label_smoothing * logistic(-difference)
        loss = loss + self.centring * (chosen + rejected).square()
        return (loss if batch.member_weight is None else loss * batch.member_weight).mean(1)

    @torch.no_grad()
    def metrics(self, batch: RewardPairs) -> dict[str, Any]:
        each = member_rewards(batch.chosen, self.ensemble) - member_rewards(batch.rejected, self.ensemble)
        chosen, rejected = (self.implicit_reward(part).detach() for part in (batch.chosen, batch.rejected))
        more = {}
        if self.ensemble > 1:
            more["member_disagreement"] = (each.sign().amax(1) != each.sign().amin(1)).to(each.dtype)
        return {
            **more,
            "accuracy": ((chosen - rejected).sign() + 1) / 2,
            "margin": chosen - rejected,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
        }


@dataclass(frozen=True)
class RewardRegression(RewardObjective):
    """A reward fitted to scores by squared error, or by Huber's loss where scores have outliers.

    error e = (reward - score) / s, loss = e^2 or Huber(e). With `standardise` s is the standard deviation of the training
    rows' scores and the head starts at their mean and scale, so that any scale trains alike; rewards are on the scale of
    the scores throughout, in training and in the saved model. A row's score is its `reward`, or the weighted sum of its
    `rewards`. Raises DataError (in `prepare`) where all scores are equal.
    """

    name: ClassVar[str] = "reward-regression"
    schema: ClassVar[type] = Scored
    numbers: ClassVar[tuple[str, ...]] = ("reward",)

    error: Literal["squared", "huber"] = option("squared", "squared, or huber: linear beyond huber_delta")
    huber_delta: float = option(1.0, "where Huber's loss becomes linear, in units of the (standardised) error", above=0)
    standardise: bool = option(True, "divide errors by the deviation of the training scores and start at their mean")
    scale: float | None = option(None, "deviation to divide errors by; none: that of the training scores", above=0)
    reward_weights: tuple[float, ...] = option((), "factor on each of several rewards of a row; none: 1 each")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(map(math.isfinite, self.reward_weights)), "reward_weights", self.reward_weights, "finite numbers")
        require(
            self.standardise or self.scale is None, "scale", self.scale, "none with standardise=false", "leave one out"
        )

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def prepare(self, dataset: Dataset, policy: TextModel, *, seed: int, held_out: bool = False) -> Prepared:
        """Write one score a row, and put the model's head on the scores' scale. Raises DataError."""
        rule = reward_rule(dataset.rows, weights=self.reward_weights)
        scores = rewards_of(rule, dataset.rows, check_range=False)
        rows = [dataclasses.replace(row, reward=score) for row, score in zip(dataset.rows, scores, strict=True)]
        scored = dataset.with_rows(rows)
        if held_out:
            return Prepared(self, scored)
        mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
        if len(scores) > 1 and deviation <= 1e-9 * (1 + abs(mean)):
            raise DataError(
                f"all {len(scores)} responses have the reward {scores[0]:g}: nothing to learn from; give rewards that differ",
                file=dataset.report.source or None,
                field="rewards" if rule.names else "reward",
            )
        facts = {"reward": {"formula": rule.formula, "mean": mean, "deviation": deviation}}
        if not self.standardise:
            return Prepared(self, scored, facts=facts)
        scale = self.scale or deviation or 1.0
        if getattr(policy, "fresh_modules", ()):  # a head that is trained already is on some scale
            cast("RewardModel", policy).start_on_scale(mean, scale, _trees(policy, rows))
        return Prepared(dataclasses.replace(self, scale=scale), scored, facts=facts)

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> RewardTargets:
        return RewardTargets(scores["response"], inputs.numbers["reward"], inputs.weight)

    def loss(self, batch: RewardTargets) -> Float[Tensor, " items"]:
        reward = batch.response.policy
        error = (reward - batch.reward.to(reward.dtype)) / (self.scale or 1.0)
        if self.error == "squared":
            return error.square()
        return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.huber_delta)

    @torch.no_grad()
    def metrics(self, batch: RewardTargets) -> dict[str, Any]:
        reward = batch.response.policy.detach()
        return {"squared_error": (reward - batch.reward.to(reward.dtype)).square(), "reward": reward}


def _trees(model: TextModel, rows: Sequence[Scored]) -> list[Tree]:
    """A spread sample of the rows as token ids that fit the model."""
    spread = rows[:: max(1, len(rows) // _STATES_FOR_SCALE)][:_STATES_FOR_SCALE]
    limit = model.context_length
    responses = model.encode_responses([row.response for row in spread])
    prompts = [model.encode_prompt(row.prompt)[-max(1, limit // 2) :] for row in spread]
    return [Tree(prompt, [ids[: limit - len(prompt)]]) for prompt, ids in zip(prompts, responses, strict=True)]
