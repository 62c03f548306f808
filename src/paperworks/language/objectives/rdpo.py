"""Preference labels that are flipped at random: the loss with that bias removed, and the smoothed loss beside it.

With probability flip_rate the chosen and rejected responses of a row were swapped. `debiased` takes any loss of the
margin to one whose mean over the flips is the loss on clean labels; `smoothed` to its mean under an assumed flip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO, logistic
from paperworks.language.objectives.ipo import squared
from paperworks.language.objectives.objective import PairLogps, Prepared, require
from paperworks.language.objectives.slic import hinge

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy

PairLoss = Callable[[Tensor], Tensor]  # loss of each pair from its margin; -margin is the margin of the swapped pair


def debiased(pair_loss: PairLoss, margin: Float[Tensor, " items"], flip_rate: float) -> Float[Tensor, " items"]:
    """[(1 - eps) f(m) - eps f(-m)] / (1 - 2 eps): unbiased for f on clean labels when labels flip with rate eps.

    Chowdhury et al. 2024, arXiv 2403.00409. A flip rate of 0 gives `pair_loss(margin)` itself, bit for bit.
    For losses that are linear far out (logistic, hinge) the result falls without bound as the margin grows.
    """
    if flip_rate == 0:
        return pair_loss(margin)
    return ((1 - flip_rate) * pair_loss(margin) - flip_rate * pair_loss(-margin)) / (1 - 2 * flip_rate)


def smoothed(pair_loss: PairLoss, margin: Float[Tensor, " items"], flip_rate: float) -> Float[Tensor, " items"]:
    """(1 - eps) f(m) + eps f(-m): label smoothing. Bounded below, but biased: it under-fits clean labels."""
    if flip_rate == 0:
        return pair_loss(margin)
    return (1 - flip_rate) * pair_loss(margin) + flip_rate * pair_loss(-margin)


def debiased_accuracy(noisy: Float[Tensor, " *shape"], flip_rate: float) -> Float[Tensor, " *shape"]:
    """(accuracy on flipped labels - eps) / (1 - 2 eps): unbiased for the accuracy on clean labels; may leave [0, 1]."""
    return (noisy - flip_rate) / (1 - 2 * flip_rate)


def _require_flip_rate(flip_rate: float) -> None:
    require(
        0 <= flip_rate < 0.5,
        "flip_rate",
        flip_rate,
        "a probability in [0, 0.5)",
        "at 0.5 or more the labels carry no information or are inverted: are chosen and rejected swapped?",
    )


@dataclass(frozen=True)
class ConservativeDPO(DPO):
    """DPO with label smoothing, cDPO (E. Mitchell 2023, "A note on DPO with noisy preferences").

    loss = (1 - eps) l(m) + eps l(-m) with l(m) = -log sigmoid(m): smallest at m = log((1 - eps)/eps).
    """

    name: ClassVar[str] = "cdpo"

    flip_rate: float = option(0.1, "assumed probability that a label is flipped", low=0, below=0.5)

    def __post_init__(self) -> None:
        _require_flip_rate(self.flip_rate)
        super().__post_init__()

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return smoothed(logistic, self.margin(batch), self.flip_rate)


@dataclass(frozen=True)
class RobustDPO(DPO):
    """DPO with the bias of randomly flipped labels removed, rDPO (Chowdhury et al. 2024, arXiv 2403.00409).

    loss = [(1 - eps) l(m) - eps l(-m)] / (1 - 2 eps). Averaged over flips it is l on clean labels; flip_rate=0 is DPO.
    Negative values are normal: under `sigmoid` and `hinge` the loss has no lower bound, hence `max_margin_warn`.
    """

    name: ClassVar[str] = "rdpo"

    flip_rate: float | Literal["auto"] = option(
        0.1,
        "probability that a label is flipped; auto: from how often the rows' annotator_labels disagree",
        low=0,
        below=0.5,
    )
    pair_loss: Literal["sigmoid", "hinge", "ipo"] = option(
        "sigmoid", "loss whose bias is removed; ipo takes beta as its tau and sums of log-ratios"
    )
    max_margin_warn: float = option(50.0, "warn when the mean margin passes this: the loss has no lower bound", above=0)

    def __post_init__(self) -> None:
        if isinstance(self.flip_rate, str):
            require(self.flip_rate == "auto", "flip_rate", self.flip_rate, "a probability in [0, 0.5), or auto")
        else:
            _require_flip_rate(self.flip_rate)
        require(self.pair_loss in ("sigmoid", "hinge", "ipo"), "pair_loss", self.pair_loss, "sigmoid, hinge or ipo")
        super().__post_init__()

    @property
    def settled_flip_rate(self) -> float:
        """The flip rate as a number. Raises OptionError while it still is `auto`."""
        if isinstance(self.flip_rate, str):
            raise OptionError("option flip_rate=auto is settled from the data: call prepare(dataset, policy) first")
        return self.flip_rate

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Replace flip_rate=auto by its estimate. Raises OptionError where no row was labelled twice."""
        if self.flip_rate != "auto":
            return Prepared(self, dataset)
        from paperworks.language.data import estimate_flip_rate

        return Prepared(replace(self, flip_rate=estimate_flip_rate(dataset.rows)), dataset)

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return debiased(self._pair_loss, self.margin(batch), self.settled_flip_rate)

    def _pair_loss(self, margin: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        if self.pair_loss == "hinge":
            return hinge(margin, 1.0)
        if self.pair_loss == "ipo":
            return squared(margin / self.beta, self.beta)
        return logistic(margin)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        values = super().metrics(batch)
        return values | {"debiased_accuracy": debiased_accuracy(values["accuracy"], self.settled_flip_rate)}

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        unbounded = self.pair_loss != "ipo" and self.flip_rate != 0
        if not unbounded or now.get("margin", 0.0) <= self.max_margin_warn:
            return []
        return [
            f"runaway margin: its mean {now['margin']:.3g} is above max_margin_warn={self.max_margin_warn:g}, and this "
            "loss has no lower bound; stop earlier, lower the learning rate, or add weight decay"
        ]
