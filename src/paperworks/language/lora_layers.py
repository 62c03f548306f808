"""LoRA's linear layers with one product added in place, where PEFT forms three tensors of the layer's width.

y = x W + s (x A) B costs PEFT a tensor for each of x W, (x A) B, its multiple and the sum; here the last product is added
onto x W as it is formed. The values are PEFT's to rounding, forward and backward, and so are all parameters and files.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional


class AddedInPlace(Linear):
    """PEFT's layer; whatever is not the plain case goes PEFT's own way."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = None if args or kwargs else self._plain_adapter(x)
        if name is None:
            return super().forward(x, *args, **kwargs)
        base, first, second = (
            cast(nn.Linear, each) for each in (self.base_layer, self.lora_A[name], self.lora_B[name])
        )
        flat = x.reshape(-1, x.shape[-1])
        out = functional.linear(flat, base.weight, base.bias)
        out = out.addmm_(functional.linear(flat, first.weight), second.weight.t(), alpha=self.scaling[name])
        return out.view(*x.shape[:-1], out.shape[-1])

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The one adapter at work on a plain layer in one precision; None where anything else is asked for."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or type(self.base_layer) is not nn.Linear:
            return None
        dropout, second = self.lora_dropout[name], self.lora_B[name]
        drops = self.training and not isinstance(dropout, nn.Identity)
        same = x.dtype == self.base_layer.weight.dtype == second.weight.dtype
        if drops or second.bias is not None or not same or torch.is_autocast_enabled(x.device.type):
            return None
        return name


def add_in_place(model: nn.Module) -> None:
    """Let the plain LoRA layers of a PEFT model work so."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = AddedInPlace
