"""Wide perceptrons on a CPU: net by net and a few hundred rows at a time through all layers, so that what is between two
products never leaves the cache.

The numbers are those of a batched product a layer. Narrow nets, whose products are too small to be worth a call each, and
other devices are better off with that one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_NUMBERS = 1 << 15  # rows x width of the widest layer: fewer are sooner done in one batched product
CHUNK_ROWS = 512


def suits(x: Float[Tensor, "nets rows in"], weights: Sequence[Tensor]) -> bool:
    """Whether nets of these weights are wide enough, and nothing looks into the pass (`torch.func`, forward mode)."""
    widest = max(weight.shape[2] for weight in weights)
    return (
        x.device.type == "cpu"
        and x.shape[1] * widest >= LEAST_NUMBERS
        and x.dtype == torch.float32
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


def perceptrons(
    x: Float[Tensor, "nets rows in"], weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Float[Tensor, "nets rows out"]:
    """Each net's output on its own rows, ReLU between layers. Weights are [nets, in, out], biases [nets, 1, out]."""
    found: Tensor = _Perceptrons.apply(x, *weights, *biases)
    return found


class _Perceptrons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        nets, rows = x.shape[:2]
        # a tensor a net: memory of this size is kept when it is freed, that of all nets together would not be
        hidden = [[x.new_empty(rows, weight.shape[2]) for _ in range(nets)] for weight in weights[:-1]]
        found = x.new_empty(nets, rows, weights[-1].shape[2])
        layers: list[Any] = [x, *hidden, found]
        for net in range(nets):
            for start in range(0, rows, CHUNK_ROWS):
                part = slice(start, start + CHUNK_ROWS)
                for number in range(depth):
                    out = layers[number + 1][net][part]
                    torch.mm(layers[number][net][part], weights[number][net], out=out)
                    out.add_(biases[number][net])
                    if number + 1 < depth:
                        out.relu_()
        ctx.depth = depth
        ctx.save_for_backward(*parameters, x, *itertools.chain(*hidden))
        return found

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        depth, nets, saved = ctx.depth, len(outer[0]), ctx.saved_tensors
        weights, biases, x, hidden = saved[:depth], saved[depth : 2 * depth], saved[2 * depth], saved[2 * depth + 1 :]
        layers: list[Any] = [x, *(hidden[at : at + nets] for at in range(0, len(hidden), nets))]
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            return _differentiable(ctx.needs_input_grad, x, weights, biases, outer[0])
        to_input, to_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        by_input = torch.empty_like(x) if to_input else None
        by_weights = [torch.zeros_like(weight) for weight in weights] if to_weights else []
        by_biases = [torch.zeros_like(bias) for bias in biases] if to_weights else []
        for net in range(nets):
            for start in range(0, outer[0].shape[1], CHUNK_ROWS):
                part = slice(start, start + CHUNK_ROWS)
                gradient = outer[0][net, part]
                for number in reversed(range(depth)):
                    entered = layers[number][net][part]
                    if to_weights:
                        by_weights[number][net].addmm_(entered.t(), gradient)
                        by_biases[number][net] += gradient.sum(0, keepdim=True)
                    if number:
                        gradient = gradient @ weights[number][net].t()
                        torch.ops.aten.threshold_backward.grad_input(gradient, entered, 0, grad_input=gradient)
                    elif by_input is not None:
                        torch.mm(gradient, weights[0][net].t(), out=by_input[net, part])
        if not to_weights:
            return (by_input, *[None] * (2 * depth))
        return (by_input, *by_weights, *by_biases)


def _differentiable(
    wanted: Sequence[bool], x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    out = x
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out = torch.baddbmm(bias, out, weight)
        out = out.relu() if number + 1 < len(weights) else out
    inputs = [each for each, is_wanted in zip((x, *weights, *biases), wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(out, inputs, gradient, create_graph=True))
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)
