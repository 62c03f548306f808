"""Fitting a value head to numbers, on states that do not change: the model under it is never touched."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paperworks.core.errors import DataError
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.values.head import ValueHead
from paperworks.language.values.prompt_states import PromptStates

BETTER_BY = 0.01
"""A head explains something where its error is lower than a constant's by more than this share."""


@dataclass(frozen=True)
class ValueFitOptions:
    """How a head is fitted."""

    epochs: int = option(10, "passes over the prompts", low=1)
    learning_rate: float = option(1e-3, "of Adam; the paper's 7B head takes 1e-5", above=0)
    batch_size: int = option(16, "prompts a step", low=1)
    held_out: float = option(0.0, "share of prompts that choose the epoch; 0: all train, and choose it", low=0, below=1)
    start_at_mean: bool = True  # begin as the best constant (ours); False: at random weights
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, what="value fit")


@dataclass(frozen=True)
class ValueFit:
    """How well a head fits. Errors are mean squared, of the prompts that chose the epoch; epoch 0 is the start."""

    mse: float
    constant_mse: float  # of the best constant, the mean of the training targets, on the same prompts
    kept_epoch: int
    epochs: int
    prompts: int  # trained on
    held_out_prompts: int
    mse_by_epoch: tuple[float, ...]  # of the prompts that chose, the start first

    @property
    def explained(self) -> float:
        """1 - mse / constant_mse: 1 is perfect, 0 a constant's; NaN where the targets do not vary."""
        return 1 - self.mse / self.constant_mse if self.constant_mse > 0 else math.nan

    @property
    def warning(self) -> str:
        """One line where the head is no better than a constant; else empty."""
        if self.constant_mse == 0 or self.explained > BETTER_BY:
            return ""
        return (
            f"the value head is no better than a constant: its mean squared error is {self.mse:.4g}, a constant's "
            f"{self.constant_mse:.4g}, on {self.held_out_prompts or self.prompts} prompts; advantages then tell good "
            "prompts from bad ones as little; give more prompts, more epochs or another kind of head"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values for results."""
        return {**asdict(self), "explained": self.explained}


def fit_value(
    head: ValueHead,
    states: PromptStates,
    targets: Float[Tensor, " prompts"],
    options: ValueFitOptions = ValueFitOptions(),
) -> ValueFit:
    """Fit `head` in place to the targets by mean squared error with Adam, and leave it at its best epoch, in eval mode.

    The best epoch is the one of lowest error on the training prompts themselves (arXiv 2305.14718, as released), or on
    held-out ones with `options.held_out`. Random numbers are the fit's own: the global generators are as before.
    Raises DataError for targets that are not finite or not one a prompt, or where held_out leaves nothing to train on.
    """
    if len(targets) != len(states):
        raise DataError(f"value fit: {len(states)} prompts but {len(targets)} targets")
    if not bool(torch.isfinite(targets).all()):
        raise DataError(f"value fit: target {int((~torch.isfinite(targets)).nonzero()[0]) + 1} is not a finite number")
    training, held_out = _split(len(states), options)
    judged = held_out or training
    device = head.last.weight.device
    targets = targets.float().to(device)
    mean = float(targets[training].mean())
    if options.start_at_mean:
        head.start_at(mean)
    errors, kept, best = [_mse(head, states, targets, judged)], 0, copy.deepcopy(head.state_dict())
    optimiser = torch.optim.Adam(head.parameters(), lr=options.learning_rate)
    order = torch_generator(options.seed, "value fit")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(options.seed, "value dropout"))
        for epoch in range(1, options.epochs + 1):
            head.train()
            shuffled = [training[i] for i in torch.randperm(len(training), generator=order).tolist()]
            for start in range(0, len(shuffled), options.batch_size):
                chosen = shuffled[start : start + options.batch_size]
                batch, mask = states.padded(chosen)
                loss = functional.mse_loss(head(batch.to(device), mask.to(device)), targets[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            errors.append(_mse(head, states, targets, judged))
            if errors[-1] < errors[kept]:
                kept, best = epoch, copy.deepcopy(head.state_dict())
    head.load_state_dict(best)
    head.eval()
    return ValueFit(
        mse=errors[kept],
        constant_mse=float(((targets[judged] - mean) ** 2).mean()),
        kept_epoch=kept,
        epochs=options.epochs,
        prompts=len(training),
        held_out_prompts=len(held_out),
        mse_by_epoch=tuple(errors),
    )


@torch.no_grad()
def predict(
    head: ValueHead, states: PromptStates, which: Sequence[int] | None = None, *, batch: int = 64
) -> Float[Tensor, " prompts"]:
    """The head's values of prompts (all by default), dropout off; on the head's device."""
    chosen = list(range(len(states))) if which is None else list(which)
    training, device = head.training, head.last.weight.device
    out = torch.empty(len(chosen), device=device)
    order = sorted(range(len(chosen)), key=lambda place: states.lengths[chosen[place]])
    head.eval()
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        values, mask = states.padded([chosen[place] for place in places])
        out[places] = head(values.to(device), mask.to(device))
    head.train(training)
    return out


def _split(prompts: int, options: ValueFitOptions) -> tuple[list[int], list[int]]:
    order = torch.randperm(prompts, generator=torch_generator(options.seed, "value held out")).tolist()
    amount = max(1, round(options.held_out * prompts)) if options.held_out else 0
    if prompts - amount < 1:
        raise DataError(f"value fit: held_out={options.held_out:g} of {prompts} prompts leaves none to train on")
    return sorted(order[amount:]), sorted(order[:amount])


def _mse(head: ValueHead, states: PromptStates, targets: Tensor, which: Sequence[int]) -> float:
    return float(((predict(head, states, which) - targets[list(which)]) ** 2).mean())
