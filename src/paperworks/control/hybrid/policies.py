"""Stochastic policies as rows of one matrix: tanh perceptrons with a Gaussian or a categorical head, and their Fisher matrix.

A net's weights, biases and free numbers (log-deviations) lie flat in a row of [nets, parameters], the form that natural
gradients want. Actions are those of the learner: real numbers, neither squashed nor clipped, or whole numbers.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.distributions import gaussian_log_prob
from paperworks.control.networks import Perceptrons


class FlatPerceptrons:
    """Perceptrons with tanh between layers whose parameters are given as rows: weights and biases, layer after layer."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.count = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(self.sizes))

    def start(
        self, seeds: Sequence[int], name: str, *, copies: int = 1, last_scale: float = 0.1
    ) -> Float[Tensor, "nets parameters"]:
        """Each seed's `copies` nets as torch's own layers begin, the last layer's weights scaled, its biases 0."""
        made = Perceptrons(self.sizes, seeds, name, copies=copies)
        parts = [part.detach().flatten(1) for pair in zip(made.weights, made.biases, strict=True) for part in pair]
        parts[-2:] = [parts[-2] * last_scale, torch.zeros_like(parts[-1])]
        return torch.cat(parts, 1)

    def layers(self, parameters: Float[Tensor, "nets parameters"]) -> list[tuple[Tensor, Tensor]]:
        """(weight [nets, in, out], bias [nets, 1, out]) of every layer, views of the rows."""
        found, at = [], 0
        for fan_in, fan_out in itertools.pairwise(self.sizes):
            weight = parameters[:, at : at + fan_in * fan_out].view(-1, fan_in, fan_out)
            at += fan_in * fan_out
            found.append((weight, parameters[:, at : at + fan_out].unsqueeze(1)))
            at += fan_out
        return found

    def __call__(
        self, parameters: Float[Tensor, "nets parameters"], inputs: Float[Tensor, "nets rows in"]
    ) -> Float[Tensor, "nets rows out"]:
        *inner, (weight, bias) = self.layers(parameters)
        for inner_weight, inner_bias in inner:
            inputs = torch.baddbmm(inner_bias, inputs, inner_weight).tanh()
        return torch.baddbmm(bias, inputs, weight)


class Policies(ABC):
    """pi(a|s) of many nets. `count` numbers make one of them; everything else is a pure function of its rows."""

    is_discrete: ClassVar[bool]

    def __init__(self, state: int, action: int, hidden: Sequence[int], free: int) -> None:
        """`free` numbers of a row stand behind those of its perceptron."""
        self.action = action
        self.nets = FlatPerceptrons((state, *hidden, action))
        self.count = self.nets.count + free

    @abstractmethod
    def start(self, seeds: Sequence[int], name: str, *, copies: int = 1) -> Float[Tensor, "nets parameters"]:
        """The first parameters of `copies` nets a seed."""

    @abstractmethod
    def sample(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], noise: Tensor) -> Tensor:
        """Actions [nets, rows, ...] from standard normal noise [nets, rows, action]."""

    @abstractmethod
    def likeliest(self, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        """The actions of highest probability."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], actions: Tensor) -> Tensor:
        """log pi(a|s), [nets, rows]."""

    @abstractmethod
    def kl(self, before: Tensor, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        """KL(pi_before || pi) in each state, [nets, rows]."""

    @abstractmethod
    def _metric(self, parameters: Tensor, output: Tensor) -> Callable[[Tensor], Tensor]:
        """The Fisher matrix of the distribution in the perceptron's output, as a product [nets, rows, out]."""

    def _free_metric(self) -> float:
        """The Fisher matrix of the free numbers, a multiple of the identity."""
        return 0.0

    def fisher(
        self,
        parameters: Float[Tensor, "nets parameters"],
        states: Float[Tensor, "nets rows state"],
        weights: Float[Tensor, "nets rows"],
    ) -> Callable[[Tensor], Tensor]:
        """v to F v with F = sum of weights x E[grad log pi grad log pi'] over rows: one pass forward, two back a product."""
        rows = parameters.detach()[:, : self.nets.count].requires_grad_()
        with torch.enable_grad():
            output = self.nets(rows, states)
            seed = torch.zeros_like(output, requires_grad=True)
            (transposed,) = torch.autograd.grad(output, rows, seed, create_graph=True)  # J' seed, linear in seed
        metric = self._metric(parameters.detach(), output.detach())
        share = weights.sum(-1, keepdim=True) * self._free_metric()

        def product(direction: Tensor) -> Tensor:
            own, free = direction[:, : self.nets.count], direction[:, self.nets.count :]
            (moved,) = torch.autograd.grad(transposed, seed, own, retain_graph=True)  # J v
            (back,) = torch.autograd.grad(output, rows, weights.unsqueeze(-1) * metric(moved), retain_graph=True)
            return torch.cat([back, share * free], 1)

        return product


class GaussianPolicies(Policies):
    """Normal actions: the perceptron's output is the mean, the log-deviations are free numbers that know no state."""

    is_discrete: ClassVar[bool] = False

    def __init__(self, state: int, action: int, hidden: Sequence[int], *, deviation: float = 1.0) -> None:
        super().__init__(state, action, hidden, free=action)
        self.deviation = deviation

    def start(self, seeds: Sequence[int], name: str, *, copies: int = 1) -> Float[Tensor, "nets parameters"]:
        rows = self.nets.start(seeds, name, copies=copies)
        return torch.cat([rows, torch.full((len(rows), self.action), math.log(self.deviation))], 1)

    def log_std(self, parameters: Float[Tensor, "nets parameters"]) -> Float[Tensor, "nets 1 action"]:
        """log of the deviation of every dimension."""
        return parameters[:, self.nets.count :].unsqueeze(1)

    def sample(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], noise: Tensor) -> Tensor:
        return self.nets(parameters, states) + self.log_std(parameters).exp() * noise

    def likeliest(self, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        return self.nets(parameters, states)

    def log_prob(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], actions: Tensor) -> Tensor:
        return gaussian_log_prob(self.nets(parameters, states), self.log_std(parameters), actions)

    def kl(self, before: Tensor, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        old, new = self.log_std(before), self.log_std(parameters)
        apart = self.nets(before, states) - self.nets(parameters, states)
        return (new - old + ((2 * old).exp() + apart.square()) / (2 * (2 * new).exp()) - 0.5).sum(-1)

    def _metric(self, parameters: Tensor, output: Tensor) -> Callable[[Tensor], Tensor]:
        precision = (-2 * self.log_std(parameters)).exp()
        return lambda moved: precision * moved

    def _free_metric(self) -> float:
        return 2.0


class CategoricalPolicies(Policies):
    """Whole-numbered actions: the perceptron's outputs are logits."""

    is_discrete: ClassVar[bool] = True

    def __init__(self, state: int, action: int, hidden: Sequence[int]) -> None:
        super().__init__(state, action, hidden, free=0)

    def start(self, seeds: Sequence[int], name: str, *, copies: int = 1) -> Float[Tensor, "nets parameters"]:
        return self.nets.start(seeds, name, copies=copies)

    def probabilities(self, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        """pi(.|s), [nets, rows, action]."""
        return self.nets(parameters, states).softmax(-1)

    def sample(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], noise: Tensor) -> Tensor:
        """Normal noise through its distribution function is uniform, and from that a Gumbel's."""
        uniform = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-7)
        return (self.nets(parameters, states) - (-uniform.log()).log()).argmax(-1)

    def likeliest(self, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        return self.nets(parameters, states).argmax(-1)

    def log_prob(self, parameters: Tensor, states: Float[Tensor, "nets rows state"], actions: Tensor) -> Tensor:
        every = self.nets(parameters, states).log_softmax(-1)
        return every.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def kl(self, before: Tensor, parameters: Tensor, states: Float[Tensor, "nets rows state"]) -> Tensor:
        old, new = (self.nets(each, states).log_softmax(-1) for each in (before, parameters))
        return (old.exp() * (old - new)).sum(-1)

    def _metric(self, parameters: Tensor, output: Tensor) -> Callable[[Tensor], Tensor]:
        share = output.softmax(-1)
        return lambda moved: share * (moved - (share * moved).sum(-1, keepdim=True))
