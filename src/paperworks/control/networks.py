"""Perceptrons side by side: every seed (and every critic of a seed) is a slice of one batched network.

Weights are [nets, in, out] and one batched product a layer serves all nets, so that N seeds cost far less than N runs. Nets
share nothing: a net's numbers do not depend on its company, and its start depends on its own seed alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control import wide
from paperworks.control.actors import Activation
from paperworks.core.seeding import torch_generator


class Perceptrons(nn.Module):
    """`len(seeds) * copies` perceptrons: [nets, rows, in] to [nets, rows, out].

    `copies` nets a seed stand next to each other (twin critics). Every layer starts as torch's own Linear does, or from
    N(0, 1 / fan_in) with biases of zero (`start="normal"`, as SELU wants it).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        name: str,
        *,
        copies: int = 1,
        activation: Activation = "relu",
        start: Literal["uniform", "normal"] = "uniform",
    ) -> None:
        super().__init__()
        self.sizes, self.copies = tuple(sizes), copies
        self.activation: Activation = activation
        draws = [torch_generator(seed, name, copy) for seed in seeds for copy in range(copies)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            for kept, shape in ((self.weights, (fan_in, fan_out)), (self.biases, (1, fan_out))):
                if start == "uniform":
                    drawn = [torch.rand(shape, generator=draw) * 2 * bound - bound for draw in draws]
                else:
                    scale = bound if kept is self.weights else 0.0
                    drawn = [torch.randn(shape, generator=draw) * scale for draw in draws]
                kept.append(nn.Parameter(torch.stack(drawn)))

    def forward(
        self, x: Float[Tensor, "some rows in"], *, every: int = 1, frozen: bool = False
    ) -> Float[Tensor, "some rows out"]:
        """Each net's output on its own rows; of every `every`-th net alone (the first of a seed's copies).

        Gradients of `frozen` nets reach `x` and no weight.
        """
        weights, biases = list(self.weights), list(self.biases)
        if every > 1:
            weights, biases = ([each[::every] for each in kept] for kept in (weights, biases))
        if frozen:
            weights, biases = ([each.detach() for each in kept] for kept in (weights, biases))
        is_plain = self.activation == "relu" and type(self).bent is Perceptrons.bent
        if is_plain and wide.suits(x, weights):
            return wide.perceptrons(x, weights, biases)
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if number + 1 < len(weights):
                x = self.bent(x)
        return x

    def bent(self, x: Float[Tensor, "some rows hidden"]) -> Float[Tensor, "some rows hidden"]:
        """What is made of a hidden layer's sums."""
        found: Tensor = getattr(torch, self.activation)(x)
        return found

    def alone(self, index: int) -> Perceptrons:
        """A copy of one net, on the CPU."""
        found = Perceptrons(self.sizes, [0], "", activation=self.activation)
        for own, among in zip(found.parameters(), self.parameters(), strict=True):
            own.data.copy_(among.detach()[index : index + 1])
        return found

    def net(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of every layer of one net, detached."""
        return [
            (weight[index].detach().clone(), bias[index, 0].detach().clone())
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]


class Critics(nn.Module):
    """Q(s, a) of `copies` critics a seed: [seeds, copies, rows]."""

    def __init__(
        self,
        state: int,
        action: int,
        hidden: Sequence[int],
        seeds: Sequence[int],
        *,
        copies: int = 2,
        name: str = "critic",
    ) -> None:
        super().__init__()
        self.copies = copies
        self.nets = Perceptrons((state + action, *hidden, 1), seeds, name, copies=copies)

    def forward(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        *,
        frozen: bool = False,
    ) -> Float[Tensor, "seeds copies rows"]:
        """Every critic's value; `frozen` where the gradient is for the actions alone."""
        inputs = torch.cat([states, actions], -1)
        if self.copies > 1:
            inputs = inputs.repeat_interleave(self.copies, 0)
        return self.nets(inputs, frozen=frozen).squeeze(-1).view(len(states), self.copies, -1)

    def first(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        *,
        frozen: bool = False,
    ) -> Float[Tensor, "seeds rows"]:
        """The first critic alone."""
        found: Tensor = self.nets(torch.cat([states, actions], -1), every=self.copies, frozen=frozen)
        return found.squeeze(-1)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source (Polyak averaging)."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
