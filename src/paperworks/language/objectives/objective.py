"""What an objective is: sequence log-probabilities in, one loss value an item out.

An objective is a frozen dataclass of hyperparameters with one pure method. It never averages: it returns a value and a
weight for every item, and the training loop forms the weighted mean over the whole optimiser step (all micro-batches,
all processes), so that no loss changes with padding, batch split, accumulation or the number of processes.

The scale of a sequence score is the sum over response tokens, the end token included, prompt and padding excluded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges
from paperworks.language.data.schemas import Demonstration, Feedback, Preference

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy


@dataclass(frozen=True)
class ResponseLogps:
    """Scores of one role's responses (the chosen ones, say) under the policy and its frozen reference."""

    policy: Float[Tensor, " items"]  # sum over response tokens of log pi_theta(y_t | x, y_<t); carries the gradient
    tokens: Float[Tensor, " items"]  # how many response tokens that sum has, at least 1
    reference: Float[Tensor, " items"] | None = None  # the same sum under the reference; None when not needed

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


class Objective:
    """Base of all objectives. A subclass is a frozen dataclass with a `name` and a `loss`.

    Class attributes say what the loop must compute, so that nothing else is computed:
    `schema` (the rows it trains on), `needs_reference`, `needs_mismatched` (the step-wide KL estimate of KTO).
    """

    name: ClassVar[str]  # what users type
    schema: ClassVar[type] = Preference
    needs_reference: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Checks that numbers are finite and in the range their field states. Raises OptionError."""
        if not is_dataclass(self):
            return
        check_ranges(self, what=f"objective {self.name}")
        for field in fields(self):
            value = getattr(self, field.name)
            require(not isinstance(value, float) or math.isfinite(value), field.name, value, "a finite number")

    @property
    def roles(self) -> tuple[str, ...]:
        """The responses of a row that are scored with gradient, in the order the loop scores them."""
        raise OptionError(f"objective {self.name!r} does not say which responses it scores (property roles)")

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int) -> tuple[Objective, Dataset]:
        """Settle what depends on data or model before training (an automatic option, samples of the reference).

        Returns the objective to train with and the rows to train on; both unchanged by default.
        """
        return self, dataset

    def option_notes(self) -> list[str]:
        """One-line remarks on options that are allowed but unusual; shown before training. None by default."""
        return []

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        """One-line warnings on how training goes, from the step means of `metrics` at the first step and now.

        None by default. A line begins with its kind and a colon ("runaway margin: ..."), the same at every step, so
        that each kind is shown once. A key that is missing raises no error and gives no warning.
        """
        return []

    def batch(
        self,
        scores: Mapping[str, ResponseLogps],
        *,
        weight: Float[Tensor, " items"],
        desirable: Float[Tensor, " items"] | None = None,
        kl: Float[Tensor, ""] | None = None,
    ) -> Any:
        """The named batch that `loss` takes, from the scores of each role."""
        raise NotImplementedError

    def loss(self, batch: Any) -> Float[Tensor, " items"]:
        """One loss value an item; never averaged here."""
        raise NotImplementedError

    def terms(self, batch: Any) -> dict[str, Float[Tensor, " items"]]:
        """The loss as a sum of weighted means, by name. One term, `loss`, unless an objective mixes averages."""
        return {"loss": self.loss(batch)}

    def weights(self, batch: Any) -> dict[str, Float[Tensor, " items"]]:
        """The weight of every item in each term's mean. May depend on token counts, never on log-probabilities."""
        return dict.fromkeys(("loss",), batch.weight)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        """The reward the objective reads out of a policy: what it would rank responses by."""
        return response.log_ratio if self.needs_reference else response.mean

    def metrics(self, batch: Any) -> dict[str, Float[Tensor, " items"]]:
        """Named values an item, logged as means over the step."""
        return {}


class PairObjective(Objective):
    """An objective on preference pairs; the margin is the difference of implicit rewards."""

    schema: ClassVar[type] = Preference

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected")

    def batch(
        self,
        scores: Mapping[str, ResponseLogps],
        *,
        weight: Float[Tensor, " items"],
        desirable: Float[Tensor, " items"] | None = None,
        kl: Float[Tensor, ""] | None = None,
    ) -> PairLogps:
        return PairLogps(scores["chosen"], scores["rejected"], weight, scores.get("base"))

    def margin(self, pair: PairLogps) -> Float[Tensor, " items"]:
        """implicit reward of chosen minus that of rejected."""
        return self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
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

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def batch(
        self,
        scores: Mapping[str, ResponseLogps],
        *,
        weight: Float[Tensor, " items"],
        desirable: Float[Tensor, " items"] | None = None,
        kl: Float[Tensor, ""] | None = None,
    ) -> FeedbackLogps:
        assert desirable is not None
        return FeedbackLogps(scores["response"], desirable, weight, weight.new_zeros(()) if kl is None else kl)

    @torch.no_grad()
    def metrics(self, batch: FeedbackLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"reward": self.implicit_reward(batch.response), "logp": batch.response.policy.detach()}


class DemonstrationObjective(Objective):
    """An objective on responses to imitate."""

    schema: ClassVar[type] = Demonstration
    needs_reference: ClassVar[bool] = False

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def batch(
        self,
        scores: Mapping[str, ResponseLogps],
        *,
        weight: Float[Tensor, " items"],
        desirable: Float[Tensor, " items"] | None = None,
        kl: Float[Tensor, ""] | None = None,
    ) -> DemonstrationLogps:
        return DemonstrationLogps(scores["response"], weight)

    @torch.no_grad()
    def metrics(self, batch: DemonstrationLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"logp": batch.response.policy.detach()}


def require(holds: bool, option: str, value: object, expected: str, advice: str = "") -> None:
    """Raise the one-line OptionError for a hyperparameter out of its range unless `holds`."""
    if not holds:
        raise OptionError(f"option {option}={value}: expected {expected}" + (f"; {advice}" if advice else ""))


def note_unless(usual: bool, option: str, value: object, expected: str, advice: str = "") -> list[str]:
    """The one-line remark of `option_notes` for a hyperparameter that is allowed but unusual; nothing when `usual`."""
    return [] if usual else [f"option {option}={value} is unusual: {expected}" + (f"; {advice}" if advice else "")]
