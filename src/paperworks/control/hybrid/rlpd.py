"""RLPD: SAC whose every batch is half log, half replay, with layer-normalised critics (Ball et al. 2023; from memory).

All data is off-policy here: whatever was lived through is bootstrapped like the log. Who trains it fills the batches.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm

from paperworks.control.batches import Batch, Log
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.control.networks import Critics, Perceptrons
from paperworks.control.online.sac import SAC, SACOptions
from paperworks.core.options import option


@dataclass(frozen=True)
class RLPDOptions(SACOptions):
    """RLPD's own; the paper of HNPG runs it with batches of 128, rate 1e-3, tau 0.01 and one update a sample."""

    tau: float = option(0.01, "rate at which the target critics follow", above=0, high=1)
    critics: int = option(2, "critics; targets and the actor take the lowest", low=1)


class NormalisedPerceptrons(Perceptrons):
    """Perceptrons whose hidden layers are normalised (without scale and shift) before they bend."""

    def bent(self, x: Float[Tensor, "some rows hidden"]) -> Float[Tensor, "some rows hidden"]:
        return super().bent(layer_norm(x, x.shape[-1:]))


class NormalisedCritics(Critics):
    """Critics of such."""

    def __init__(self, state: int, action: int, hidden: Sequence[int], seeds: Sequence[int], *, copies: int) -> None:
        super().__init__(state, action, hidden, seeds, copies=copies)
        self.nets = NormalisedPerceptrons((state + action, *hidden, 1), seeds, "critic", copies=copies)


class RLPD(SAC):
    """SAC on half a log and half a replay; see `mixed`."""

    name: ClassVar[str] = "rlpd"
    options_class: ClassVar[type[LearnerOptions]] = RLPDOptions

    def __init__(self, shapes: Shapes, options: RLPDOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.critics = NormalisedCritics(shapes.state, shapes.action, options.hidden, seeds, copies=options.critics)
        self.target_critics = copy.deepcopy(self.critics)
        self.learns("critic", self.critics)


def mixed(log: Batch, replay: Batch) -> Batch:
    """One batch of both: [seeds, rows of the log + rows of the replay]."""
    names = ("rows", "states", "actions", "rewards", "next_states", "goes_on")
    return Batch(*(torch.cat([getattr(log, name), getattr(replay, name)], 1) for name in names))
