"""Unlearning: make some answers unlikely and keep others; what its objectives share, and those by gradient ascent.

A subclass gives a forget loss (its own `loss`); beside it stand, by weight, the cross-entropy on answers to keep and the
divergence from the reference. Names with `-rt` or `-kl` differ from the plain name in the default of one weight alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.language.data.conversation import is_blank
from paperworks.language.data.schemas import Forget, Retain
from paperworks.language.objectives.objective import (
    Objective,
    Prepared,
    ResponseLogps,
    StepInputs,
    UnlearningLogps,
    note_unless,
    require,
)

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy

KL_ON = {"retain": ("retain",), "forget": ("forget",), "both": ("forget", "retain")}
ROLES = ("forget", "alternative", "retain")


def retain_weight_option(default: float) -> Any:
    """The option of that name with a default of its own."""
    return option(default, "weight of the cross-entropy on answers to keep, a mean over their tokens", low=0)


def kl_weight_option(default: float) -> Any:
    """The option of that name with a default of its own."""
    return option(default, "weight of KL(reference || model) over the vocabulary, a mean over answer tokens", low=0)


def kl_on_option(default: str) -> Any:
    """The option of that name with a default of its own."""
    return option(default, "answers at whose tokens that divergence is taken")


@dataclass(frozen=True)
class UnlearningObjective(Objective):
    """A forget loss, and by weight what keeps the rest of the model: a subclass gives `loss` for each row to forget.

    Total = forget_weight * forget loss + retain_weight * token mean of -log pi on retain answers + kl_weight * token mean
    of KL(pi_ref(.|x, y_<t) || pi_theta(.|x, y_<t)). The KL is taken at answer tokens; the code released with NPO takes it
    at all positions of a padded batch, those of prompt and padding too, which is not offered here.
    """

    schema: ClassVar[type] = Forget
    needs_reference: ClassVar[bool] = False
    learning_rates: ClassVar[tuple[float, float]] = (1e-5, 1e-4)
    forgets_by: ClassVar[tuple[str, ...]] = ("forget",)  # the roles that `loss` is made of

    forget_weight: float = option(1.0, "weight of the forget loss", above=0)
    retain_weight: float = retain_weight_option(0.0)
    kl_weight: float = kl_weight_option(0.0)
    kl_on: Literal["retain", "forget", "both"] = kl_on_option("retain")
    collapse_warn: float | None = option(
        None,
        "warn when answers to forget reach this many nats a token; none: the log of the vocabulary's size",
        above=0,
    )
    retain_rise_warn: float = option(
        0.5, "warn when answers to keep are this many nats a token less likely than at the first step", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kl_on in KL_ON, "kl_on", self.kl_on, ", ".join(KL_ON))

    def option_notes(self) -> list[str]:
        return note_unless(
            self.kl_weight > 0 or type(self).kl_on == self.kl_on,
            "kl_on",
            self.kl_on,
            "it changes nothing while kl_weight is 0",
        )

    @property
    def needs_retain(self) -> bool:
        """Whether there must be answers to keep."""
        return self.retain_weight > 0 or "retain" in self.kl_roles

    @property
    def needs_alternative(self) -> bool:
        """Whether every row to forget must have an answer to give in its place."""
        return "alternative" in (*self.forgets_by, self.step_kl_role)

    @property
    def roles(self) -> tuple[str, ...]:
        wanted = {*self.forgets_by, *self.kl_roles, *(("retain",) if self.needs_retain else ())}
        return tuple(role for role in ROLES if role in wanted)

    @property
    def kl_roles(self) -> tuple[str, ...]:
        return KL_ON[self.kl_on] if self.kl_weight > 0 else ()

    @property
    def reference_roles(self) -> tuple[str, ...]:
        """Only what the forget loss compares with the reference; the divergence has `kl_roles`."""
        if not self.needs_reference:
            return ()
        return tuple(role for role in ROLES if role in (*self.forgets_by, self.step_kl_role))

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Settle `collapse_warn` by the vocabulary. Raises DataError where rows lack what this objective needs."""
        to_forget = [row for row in dataset.rows if isinstance(row, Forget)]
        if not to_forget:
            raise DataError(f"no rows to forget; {self.name} needs at least one (--forget FILE)")
        if self.needs_retain and not any(isinstance(row, Retain) for row in dataset.rows):
            raise DataError(f"no rows to keep; {self.name} needs some (--retain FILE)")
        for row in to_forget if self.needs_alternative else ():
            if is_blank(row.alternative):
                raise DataError(
                    f"missing; {self.name} needs an answer to give in place of the one to forget (--idk FILE)",
                    file=row.where.file or None,
                    line=row.where.line or None,
                    field="alternative",
                )
        if self.collapse_warn is not None:
            return Prepared(self, dataset)
        return Prepared(replace(self, collapse_warn=math.log(len(policy.tokenizer))), dataset)

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> UnlearningLogps:
        none = inputs.weight.new_zeros(0)
        empty = ResponseLogps(none, none)
        forget, alternative, retain = (scores.get(role, empty) for role in ROLES)
        return UnlearningLogps(forget, alternative, retain, inputs.step_kl)

    def forget_weights(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        """The weight of each value of `loss` in its mean: that of its row."""
        return row_weight(batch.forget)

    def terms(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        terms = {"forget": self.forget_weight * self.loss(batch)}
        if self.retain_weight > 0:
            terms["retain"] = -self.retain_weight * batch.retain.mean
        return terms | {name: self.kl_weight * value for name, value in self.kl_terms(batch).items()}

    def weights(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        weights = {"forget": self.forget_weights(batch)}
        if self.retain_weight > 0:
            weights["retain"] = token_weight(batch.retain)
        return weights | self.kl_weights(batch)

    def kl_terms(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        """The divergence a token of every answer it is taken at, as the term "kl"; empty while kl_weight is 0."""
        sides = [_kl_per_token(getattr(batch, role)) for role in self.kl_roles]
        return {"kl": torch.cat(sides)} if sides else {}

    def kl_weights(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        """The weights of `kl_terms`: every token counts the same."""
        sides = [token_weight(getattr(batch, role)) for role in self.kl_roles]
        return {"kl": torch.cat(sides)} if sides else {}

    @torch.no_grad()
    def metrics(self, batch: UnlearningLogps) -> dict[str, Any]:
        """Negative log-likelihoods of what is scored: of answers to forget summed, of every role a token; and the KL."""
        values: dict[str, Any] = {}
        if "forget" in self.roles:
            values["forget_nll"] = (-batch.forget.policy, row_weight(batch.forget))
        for role in self.roles:
            side = getattr(batch, role)
            values[f"{role}_nll_per_token"] = (-side.mean, token_weight(side))
        weights = self.kl_weights(batch)
        return values | {f"{name}_per_token": (value, weights[name]) for name, value in self.kl_terms(batch).items()}

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        found = []
        forgotten = now.get("forget_nll_per_token", math.nan)
        if self.collapse_warn is not None and forgotten > self.collapse_warn:
            found.append(
                f"collapse: answers to forget are at {forgotten:.3g} nats a token, above {self.collapse_warn:.3g} "
                "(collapse_warn; a uniform guess has the log of the vocabulary's size); stop earlier or lower the "
                "learning rate"
            )
        rise = now.get("retain_nll_per_token", math.nan) - first.get("retain_nll_per_token", math.nan)
        if rise > self.retain_rise_warn:
            found.append(
                f"damage: answers to keep are {rise:.3g} nats a token less likely than at the first step "
                f"(retain_rise_warn={self.retain_rise_warn:g}); raise retain_weight, stop earlier or lower the learning "
                "rate"
            )
        return found


@dataclass(frozen=True)
class GradientAscent(UnlearningObjective):
    """Gradient ascent on the likelihood loss: loss = log pi(y|x), a mean over all tokens to forget of the step.

    Unbounded below: its push never fades, and the model collapses when training goes on.
    """

    name: ClassVar[str] = "ga"

    def loss(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return batch.forget.mean

    def forget_weights(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return token_weight(batch.forget)


@dataclass(frozen=True)
class GradientDifference(GradientAscent):
    """Gradient ascent with the cross-entropy on answers to keep (GradDiff, GD)."""

    name: ClassVar[str] = "grad-diff"

    retain_weight: float = retain_weight_option(1.0)


@dataclass(frozen=True)
class GradientAscentKL(GradientAscent):
    """Gradient ascent with the divergence from the reference on answers to keep (TOFU's "KL minimisation")."""

    name: ClassVar[str] = "ga-kl"

    kl_weight: float = kl_weight_option(1.0)


@dataclass(frozen=True)
class GradientAscentForgetKL(GradientAscentKL):
    """Gradient ascent with the divergence from the reference on the answers to forget themselves."""

    name: ClassVar[str] = "ga-forget-kl"

    kl_on: Literal["retain", "forget", "both"] = kl_on_option("forget")


def row_weight(side: ResponseLogps) -> Float[Tensor, " items"]:
    """The weight of each response's row, 1 where none was given."""
    return torch.ones_like(side.tokens) if side.weight is None else side.weight


def token_weight(side: ResponseLogps) -> Float[Tensor, " items"]:
    """The weight that makes a mean of values a token one over all tokens of the step."""
    return row_weight(side) * side.tokens


def _kl_per_token(side: ResponseLogps) -> Float[Tensor, " items"]:
    """The divergence over the vocabulary at each response's tokens, their mean."""
    if side.vocabulary_kl is None:
        raise OptionError("kl_weight above 0 takes the divergence over the vocabulary, which the batch has not")
    return side.vocabulary_kl / side.tokens
