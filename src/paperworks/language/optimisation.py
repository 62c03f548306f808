"""The optimiser of a run: what trains at which rate, gradients summed over processes and clipped, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from paperworks.core.errors import OptionError
from paperworks.language.objectives.objective import Objective
from paperworks.language.text_model import TextModel
from paperworks.language.train_options import TrainOptions


class Optimisation:
    """AdamW over the model and the objective's own heads.

    `trained` is what checkpoints hold: the model itself where it trains alone (so that its checkpoints fit whatever
    trained it), the model and the heads otherwise.
    """

    def __init__(
        self,
        policy: TextModel,
        objective: Objective,
        modules: Mapping[str, nn.Module],
        options: TrainOptions,
        accelerator: Accelerator,
    ) -> None:
        self._accelerator, self._most = accelerator, options.max_grad_norm or math.inf
        self.trained = nn.ModuleDict({"model": policy.model, **modules}) if modules else policy.model
        self.peak = options.learning_rate or default_learning_rate(objective, policy)
        self._groups: list[dict[str, Any]] = [
            {"params": [p for p in policy.model.parameters() if p.requires_grad], "factor": 1.0}
        ]
        if not self._groups[0]["params"]:
            raise OptionError(f"nothing in {policy.name} trains; load it with trainable weights or adapters")
        factor = (objective.module_learning_rate or self.peak) / self.peak
        self._groups += [
            {"params": [p for p in module.parameters() if p.requires_grad], "factor": factor}
            for module in modules.values()
        ]
        self.optimiser = torch.optim.AdamW(
            self._groups, lr=self.peak, weight_decay=options.weight_decay, fused=_can_fuse(self._parameters)
        )

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self._groups for parameter in group["params"]]

    def gradient_norm(self) -> float:
        """Sum gradients over processes, clip them, and return the norm of the model's before clipping.

        Each group is clipped by itself, so that a head's gradient does not scale down the model's.
        """
        self._sum_gradients()
        norms = [torch.nn.utils.clip_grad_norm_(group["params"], self._most) for group in self._groups]
        return float(norms[0])

    def step(self, rate: float) -> None:
        """Take the step at this learning rate, and forget the gradients."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimiser.zero_grad(set_to_none=True)

    def _sum_gradients(self) -> None:
        """Add up gradients over processes, in buckets of about 64 MB."""
        if self._accelerator.num_processes == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([cast(Tensor, p.grad) for p in self._parameters], 1 << 24):
            flat = cast(Tensor, self._accelerator.reduce(torch.cat([g.flatten() for g in bucket]), reduction="sum"))
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


def default_learning_rate(objective: Objective, policy: TextModel) -> float:
    """The peak rate where none is given: the objective's own, for full weights or adapters."""
    full, adapters = objective.learning_rates
    return adapters if policy.has_adapters else full


def _can_fuse(parameters: Sequence[Tensor]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


def _buckets(tensors: Sequence[Tensor], numbers: int) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.numel() for t in bucket) + tensor.numel() > numbers):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
