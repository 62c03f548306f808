"""What an objective is: sequence log-probabilities in, one loss value an item out.

An objective is a frozen dataclass of hyperparameters with one pure method. It never averages: it returns a value and a
weight for every item, and the training loop forms the weighted mean over the whole optimiser step (all micro-batches,
all processes), so that no loss changes with padding, batch split, accumulation or the number of processes.

The scale of a sequence score is the sum over response tokens, the end token included, prompt and padding excluded.

A *role* names a kind of response (chosen, rejected; forget, retain). Rows need not have the same roles, nor as many
responses in one: each role's scores are one flat tensor, and say which row each response belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges
from paperworks.language.data.schemas import Demonstration, Feedback, Preference

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.items import Items
    from paperworks.language.policy import Policy


@dataclass(frozen=True)
class ByToken:
    """The log-probabilities that a role's sums are made of, responses one after another."""

    policy: Float[Tensor, " tokens"]  # log pi_theta(y_t | x, y_<t); carries the gradient
    reference: Float[Tensor, " tokens"] | None  # the same under the reference; None when not needed
    response: Int[Tensor, " tokens"]  # which of the role's responses each token belongs to
    responses: int
    states: Float[Tensor, "tokens width"] | None = None  # the last hidden state from which each token is predicted

    def summed(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " items"]:
        """The sum of token values over each response."""
        return values.new_zeros(self.responses).index_add(0, self.response, values)


@dataclass(frozen=True)
class ResponseLogps:
    """Scores of one role's responses (the chosen ones, say) under the policy and its frozen reference.

    What is None was not asked for: see `Objective`.
    """

    policy: Float[Tensor, " items"]  # sum over response tokens of log pi_theta(y_t | x, y_<t); carries the gradient
    tokens: Float[Tensor, " items"]  # how many response tokens that sum has, at least 1
    reference: Float[Tensor, " items"] | None = None  # the same sum under the reference
    by_token: ByToken | None = None
    vocabulary_kl: Float[Tensor, " items"] | None = None  # sum_t KL(pi_ref(.|x, y_<t) || pi_theta(.|x, y_<t)), nats
    features: Float[Tensor, "items width"] | None = None  # mean of the last hidden states over response tokens, float32
    weight: Float[Tensor, " items"] | None = None  # the weight of the row each response belongs to
    row: Int[Tensor, " items"] | None = None  # that row's place in the micro-batch

    @property
    def log_ratio(self) -> Float[Tensor, " items"]:
        """log pi_theta(y|x) - log pi_ref(y|x), summed over tokens."""
        if self.reference is None:
            raise OptionError("this objective asked for no reference (needs_reference is False) but uses log_ratio")
        return self.policy - self.reference

    @property
    def mean_log_ratio(self) -> Float[Tensor, " items"]:
        """The log-ratio divided by the response's own token count."""
        return self.log_ratio / self.tokens

    @property
    def mean(self) -> Float[Tensor, " items"]:
        """log pi_theta(y|x) divided by the response's own token count."""
        return self.policy / self.tokens


@dataclass(frozen=True)
class StepInputs:
    """What a micro-batch brings beside the scores of its responses."""

    weight: Float[Tensor, " rows"]  # the rows' own weights, 1 by default
    numbers: Mapping[str, Float[Tensor, " rows"]] = field(default_factory=dict)  # fields named in Objective.numbers
    graded: Mapping[str, Int[Tensor, " items"]] = field(default_factory=dict)  # degrees of the responses of such roles
    step_kl: Float[Tensor, ""] | None = None  # mean log-ratio of step_kl_role over the whole optimiser step, detached
    modules: Mapping[str, nn.Module] = field(default_factory=dict)  # the objective's own heads, by name
    response_numbers: Mapping[str, Mapping[str, Float[Tensor, " items"]]] = field(default_factory=dict)  # name, role
    token_numbers: Mapping[str, Mapping[str, Float[Tensor, " tokens"]]] = field(default_factory=dict)  # name, role


@dataclass(frozen=True)
class PairLogps:
    """Chosen and rejected responses to the same prompts."""

    chosen: ResponseLogps
    rejected: ResponseLogps
    weight: Float[Tensor, " items"]  # the rows' own weights, 1 by default
    base: ResponseLogps | None = None  # responses of a baseline policy, for objectives with the role "base"


@dataclass(frozen=True)
class FeedbackLogps:
    """Single responses, each marked desirable or not."""

    response: ResponseLogps
    desirable: Float[Tensor, " items"]  # 1 desirable, 0 undesirable
    weight: Float[Tensor, " items"]
    kl: Float[Tensor, ""]  # mean log-ratio of mismatched prompt-response pairs over the whole optimiser step, detached


@dataclass(frozen=True)
class DemonstrationLogps:
    """Single responses to imitate."""

    response: ResponseLogps
    weight: Float[Tensor, " items"]


@dataclass(frozen=True)
class ScoredLogps:
    """Single responses with a reward, and how much better than the reference's own responses they are."""

    response: ResponseLogps
    reward: Float[Tensor, " items"]
    advantage: Float[Tensor, " items"]
    weight: Float[Tensor, " items"]


@dataclass(frozen=True)
class UnlearningLogps:
    """Responses to forget, what to answer in their place, and responses to keep; each may have no items."""

    forget: ResponseLogps
    alternative: ResponseLogps
    retain: ResponseLogps
    step_kl: Float[Tensor, ""] | None = None  # mean log-ratio of the alternatives over the whole step, detached


@dataclass(frozen=True)
class Prepared:
    """What `Objective.prepare` settled: the objective and the rows to train with, and what is to be told and kept."""

    objective: Objective
    dataset: Dataset
    notes: tuple[str, ...] = ()  # one line each, for the user
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values for the run's results
    save: Callable[[Path], None] | None = None  # writes what belongs beside the model into that existing folder


class Objective:
    """Base of all objectives. A subclass is a frozen dataclass with a `name` and a `loss`.

    Class attributes (a property where they depend on options) say what the loop must compute, so that nothing else is:
    `schema` (the rows it trains on), `needs_reference`, `needs_tokens` (scores token by token), `numbers` (numeric fields
    of the rows), `response_numbers` and `token_numbers` (the same with a value for each response, for each token),
    `kl_roles` (divergence over the whole vocabulary), `feature_roles` (pooled hidden states), `state_roles` (the hidden
    state of each token, in `by_token`),
    `step_kl_role` (the role whose mean log-ratio over the whole step is wanted; "mismatched" are other rows' responses).
    """

    name: ClassVar[str]  # what users type
    schema: ClassVar[type] = Preference
    trains: ClassVar[Literal["policy", "reward-model"]] = "policy"
    needs_reference: ClassVar[bool] = True
    needs_tokens: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ()
    response_numbers: ClassVar[tuple[str, ...]] = ()
    token_numbers: ClassVar[tuple[str, ...]] = ()
    step_kl_role: ClassVar[str | None] = None
    learning_rates: ClassVar[tuple[float, float]] = (1e-6, 5e-5)  # peak rates by default: full weights, adapters

    def __post_init__(self) -> None:
        """Checks that numbers are finite and in the range their field states. Raises OptionError."""
        if not is_dataclass(self):
            return
        check_ranges(self, what=f"objective {self.name}")
        for each in fields(self):
            value = getattr(self, each.name)
            require(not isinstance(value, float) or math.isfinite(value), each.name, value, "a finite number")

    @property
    def roles(self) -> tuple[str, ...]:
        """The responses of a row that are scored with gradient, in the order the loop scores them."""
        raise OptionError(f"objective {self.name!r} does not say which responses it scores (property roles)")

    @property
    def kl_roles(self) -> tuple[str, ...]:
        """Roles whose `vocabulary_kl` is wanted. None by default."""
        return ()

    @property
    def feature_roles(self) -> tuple[str, ...]:
        """Roles whose `features` are wanted. None by default."""
        return ()

    @property
    def state_roles(self) -> tuple[str, ...]:
        """Roles whose tokens' hidden states are wanted in `by_token`. None by default."""
        return ()

    @property
    def reference_roles(self) -> tuple[str, ...]:
        """Roles scored under the reference: those scored with gradient, and `step_kl_role`."""
        if not self.needs_reference:
            return ()
        more = () if self.step_kl_role in (None, *self.roles) else (self.step_kl_role,)
        return (*self.roles, *more)

    def modules(self, policy: Policy) -> dict[str, nn.Module]:
        """Fresh heads of the objective's own that train beside the model and are left out of what is saved."""
        return {}

    @property
    def module_learning_rate(self) -> float | None:
        """Peak learning rate of `modules`; None: that of the model."""
        return None

    def sampling(self, items: Items) -> Tensor | None:
        """Weights [rows] to draw the rows by, with replacement; None: every row once an epoch."""
        return None

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Settle what depends on data or model before training (an automatic option, samples of the reference).

        The prepared objective prepares the held-out rows in its turn, with `held_out`. Raises DataError.
        """
        return Prepared(self, dataset)

    def option_notes(self) -> list[str]:
        """One-line remarks on options that are allowed but unusual; shown before training. None by default."""
        return []

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        """One-line warnings on how training goes, from the step means of `metrics` at the first step and now.

        None by default. A line begins with its kind and a colon ("runaway margin: ..."), the same at every step, so
        that each kind is shown once. A key that is missing raises no error and gives no warning.
        """
        return []

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> Any:
        """The named batch that `loss` takes, from the scores of each role."""
        raise NotImplementedError

    def loss(self, batch: Any) -> Float[Tensor, " items"]:
        """One loss value an item; never averaged here."""
        raise NotImplementedError

    def terms(self, batch: Any) -> dict[str, Tensor]:
        """The loss as a sum of weighted means, by name. One term, `loss`, unless an objective mixes averages.

        A term has a value for each item that it is a mean over, which need not be the rows.
        """
        return {"loss": self.loss(batch)}

    def weights(self, batch: Any) -> dict[str, Tensor]:
        """The weight of every item in each term's mean. May depend on token counts, never on log-probabilities."""
        return dict.fromkeys(("loss",), batch.weight)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        """The reward the objective reads out of a policy: what it would rank responses by."""
        return response.log_ratio if self.needs_reference else response.mean

    def quality(self, values: Mapping[str, float]) -> float:
        """How good held-out means are: the weights of the highest are kept. Minus the loss, by default."""
        return -values["loss"]

    def metrics(self, batch: Any) -> dict[str, Any]:
        """Named values, logged as weighted means over the step: one a row, or (values, weights) of other items."""
        return {}


class PairObjective(Objective):
    """An objective on preference pairs; the margin is the difference of implicit rewards."""

    schema: ClassVar[type] = Preference

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> PairLogps:
        return PairLogps(scores["chosen"], scores["rejected"], inputs.weight, scores.get("base"))

    def margin(self, pair: PairLogps) -> Float[Tensor, " items"]:
        """implicit reward of chosen minus that of rejected."""
        return self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Any]:
        margin = self.margin(batch)
        return {
            "accuracy": (margin > 0).to(margin.dtype) + 0.5 * (margin == 0).to(margin.dtype),
            "margin": margin,
            "logp_chosen": batch.chosen.policy.detach(),
            "logp_rejected": batch.rejected.policy.detach(),
        }


class FeedbackObjective(Objective):
    """An objective on single responses marked desirable or not."""

    schema: ClassVar[type] = Feedback
    numbers: ClassVar[tuple[str, ...]] = ("desirable",)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> FeedbackLogps:
        kl = inputs.weight.new_zeros(()) if inputs.step_kl is None else inputs.step_kl
        return FeedbackLogps(scores["response"], inputs.numbers["desirable"], inputs.weight, kl)

    @torch.no_grad()
    def metrics(self, batch: FeedbackLogps) -> dict[str, Any]:
        return {"reward": self.implicit_reward(batch.response), "logp": batch.response.policy.detach()}


class DemonstrationObjective(Objective):
    """An objective on responses to imitate."""

    schema: ClassVar[type] = Demonstration
    needs_reference: ClassVar[bool] = False

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> DemonstrationLogps:
        return DemonstrationLogps(scores["response"], inputs.weight)

    @torch.no_grad()
    def metrics(self, batch: DemonstrationLogps) -> dict[str, Any]:
        return {"logp": batch.response.policy.detach()}


def require(holds: bool, option: str, value: object, expected: str, advice: str = "") -> None:
    """Raise the one-line OptionError for a hyperparameter out of its range unless `holds`."""
    if not holds:
        raise OptionError(f"option {option}={value}: expected {expected}" + (f"; {advice}" if advice else ""))


def note_unless(usual: bool, option: str, value: object, expected: str, advice: str = "") -> list[str]:
    """The one-line remark of `option_notes` for a hyperparameter that is allowed but unusual; nothing when `usual`."""
    return [] if usual else [f"option {option}={value} is unusual: {expected}" + (f"; {advice}" if advice else "")]
