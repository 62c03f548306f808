"""How to train, whatever the objective: the options, the rows of each step, the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import torch_generator
from paperworks.language.items import LongPrompts

Schedule = Literal["cosine", "linear", "constant"]
Tracker = Literal["none", "tensorboard", "wandb"]


@dataclass(frozen=True)
class TrainOptions:
    """How to train, whatever the objective."""

    epochs: float = option(1.0, "passes over the training rows; --steps overrides it", above=0)
    steps: int | None = option(None, "optimiser steps", low=1)
    batch_size: int = option(16, "rows an optimiser step, over all processes", low=1)
    micro_batch: int = option(4, "rows a forward pass; changes memory and speed, not the result", low=1)
    learning_rate: float | None = option(
        None, "peak learning rate (default by objective; preferences 1e-6 full, 5e-5 LoRA, sft 2e-5, 2e-4)", above=0
    )
    schedule: Schedule = option("cosine", "learning rate after the warm-up")
    warmup: float = option(0.1, "share of the steps over which the learning rate rises", low=0, below=1)
    weight_decay: float = option(0.0, "AdamW's decoupled weight decay", low=0)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0 leaves them", low=0)
    max_length: int | None = option(None, "most tokens of prompt and response (default: the model's context)", low=2)
    long_prompts: LongPrompts = option("error", "prompts that leave no room: stop, cut their front, or skip the row")
    autocast: Literal["none", "bf16"] = option("none", "mixed precision: bf16 arithmetic on float32 weights")
    eval_every: int | None = option(None, "steps between evaluations on held-out rows (default: 4 in a run)", low=1)
    select: Literal["best", "last"] = option(
        "best", "which weights to keep: those that evaluate best (the lowest held-out loss, say), or the last"
    )
    save_every: int = option(50, "steps between checkpoints", low=1)
    tracker: Tracker = option("none", "log to tensorboard or wandb as well, through accelerate")
    seed: int = option(0, "order of rows, dropout, held-out split")

    def __post_init__(self) -> None:
        check_ranges(self)


class Plan:
    """Which rows each optimiser step takes: a new order every epoch, the last step of an epoch may be smaller.

    `rows` of them are stepped through. With `sampling`, weights [rows], an epoch is as many draws with replacement. The
    `companions` that follow them (indices from `rows` on) are taken one beside each row, in an endless shuffled cycle.
    """

    def __init__(
        self, rows: int, options: TrainOptions, *, companions: int = 0, sampling: torch.Tensor | None = None
    ) -> None:
        self._rows, self._size, self._seed = rows, options.batch_size, options.seed
        self._companions, self._sampling = companions, sampling
        self.per_epoch = math.ceil(rows / options.batch_size)
        self.steps = options.steps or max(1, round(options.epochs * self.per_epoch))
        self._orders: dict[tuple[str, int], list[int]] = {}

    def rows(self, step: int) -> list[int]:
        """Row indices of a step (0-based); each row's companion follows it."""
        epoch, at = divmod(step, self.per_epoch)
        first = at * self._size
        rows = self._order("order", epoch, self._rows, self._sampling)[first : first + self._size]
        if not self._companions:
            return rows
        out = []
        for place, row in enumerate(rows, start=epoch * self._rows + first):
            cycle, of_cycle = divmod(place, self._companions)
            out += [row, self._rows + self._order("companions", cycle, self._companions, None)[of_cycle]]
        return out

    def planned(self) -> list[int]:
        """The rows that training will come to, each once, in the order of their indices."""
        if self.steps >= self.per_epoch and not self._companions and self._sampling is None:
            return list(range(self._rows))
        return sorted({row for step in range(self.steps) for row in self.rows(step)})

    def _order(self, what: str, turn: int, size: int, sampling: torch.Tensor | None) -> list[int]:
        if (what, turn) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != what or key[1] == turn - 1}
            draw = torch_generator(self._seed, what, turn)
            drawn = (
                torch.randperm(size, generator=draw)
                if sampling is None
                else torch.multinomial(sampling, size, replacement=True, generator=draw)
            )
            self._orders[what, turn] = drawn.tolist()
        return self._orders[what, turn]


def learning_rate(step: int, steps: int, peak: float, options: TrainOptions) -> float:
    """The rate of a step (0-based): a linear rise over the warm-up, then cosine or linear to 0, or constant."""
    warmup = math.ceil(options.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if options.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (1 - progress) if options.schedule == "linear" else peak
