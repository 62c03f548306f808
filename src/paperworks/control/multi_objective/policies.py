"""Actors with vector critics, many side by side: each is a row of a few matrices, so that a copy is a row's copy.

A row is all there is of a policy in training: weights, Adam's moments, the running statistics that states and rewards are
normalised by. What is trained, forked, archived and put on disk are rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator

EPSILON = 1e-5  # of Adam


@dataclass(frozen=True)
class NetShape:
    """What the nets take and give: tanh layers of these widths, for the actor and for the critic each."""

    state: int
    action: int  # numbers, or choices of a discrete action
    objectives: int
    hidden: tuple[int, ...]
    is_discrete: bool

    @cached_property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The shapes of a row's parameters, in their order."""
        found: dict[str, tuple[int, ...]] = {}
        for name, out in (("actor", self.action), ("critic", self.objectives)):
            for number, pair in enumerate(itertools.pairwise((self.state, *self.hidden, out))):
                found |= {f"{name}.{number}.weight": pair, f"{name}.{number}.bias": pair[1:]}
        return found if self.is_discrete else {**found, "log_std": (self.action,)}

    @property
    def is_critic(self) -> Bool[Tensor, " size"]:
        """Which of a row's parameters are the critic's."""
        parts = [torch.full((math.prod(of),), name.startswith("critic")) for name, of in self.parts.items()]
        return torch.cat(parts)

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.parts.values())


class Nets:
    """The parameters of rows as layers; gradients reach the rows."""

    def __init__(self, shape: NetShape, parameters: Float[Tensor, "nets size"]) -> None:
        self.shape = shape
        sizes = [math.prod(each) for each in shape.parts.values()]
        pieces = parameters.split(sizes, 1)
        self._parts = {name: piece.unflatten(1, of) for (name, of), piece in zip(shape.parts.items(), pieces)}

    def actor(self, states: Float[Tensor, "nets rows state"]) -> Float[Tensor, "nets rows action"]:
        """Logits of discrete actions, or the means of continuous ones in [-1, 1]."""
        return self._through("actor", states)

    def critic(self, states: Float[Tensor, "nets rows state"]) -> Float[Tensor, "nets rows objectives"]:
        """The value of each objective, in units of normalised rewards."""
        return self._through("critic", states)

    @property
    def log_std(self) -> Float[Tensor, "nets 1 action"]:
        return self._parts["log_std"][:, None]

    def layers(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """(weights [nets, in, out], biases [nets, out]) of every layer of the actor or critic."""
        count = len(self.shape.hidden) + 1
        return [(self._parts[f"{name}.{n}.weight"], self._parts[f"{name}.{n}.bias"]) for n in range(count)]

    def _through(self, name: str, x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(self.layers(name)):
            x = torch.baddbmm(bias[:, None], x.tanh() if number else x, weight)
        return x

    def log_prob(self, output: Float[Tensor, "nets rows action"], actions: Tensor) -> Float[Tensor, "nets rows"]:
        """The log-probability of actions, from the actor's output in their states."""
        if self.shape.is_discrete:
            return output.log_softmax(-1).gather(-1, actions[..., None]).squeeze(-1)
        scaled = (actions - output) * (-self.log_std).exp()
        return (-0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, output: Float[Tensor, "nets rows action"]) -> Float[Tensor, " nets"]:
        """The mean entropy over rows, in nats."""
        if self.shape.is_discrete:
            logs = output.log_softmax(-1)
            return -(logs.exp() * logs).sum(-1).mean(-1)
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))

    def sample(self, output: Float[Tensor, "nets rows action"], noise: Tensor) -> Tensor:
        """Actions for uniform noise in [0, 1) of the output's shape (discrete), or standard normal noise."""
        if self.shape.is_discrete:
            gumbel = -(-noise.clamp(1e-20, 1 - 1e-7).log()).log()
            return (output + gumbel).argmax(-1)
        return output + self.log_std.exp() * noise


@dataclass
class Policies:
    """n policies in the middle of training. Rewards' deviations are of their running discounted sums."""

    shape: NetShape
    rows: dict[str, Tensor]  # each [n, ...]

    @classmethod
    def fresh(cls, shape: NetShape, seeds: Sequence[int]) -> Policies:
        """One a seed. Orthogonal weights, small ones in the actor's last layer; biases 0."""
        rows = torch.stack([_start(shape, seed) for seed in seeds])
        count, size, objectives = len(seeds), shape.size, shape.objectives
        zeros = torch.zeros(count, size)
        return cls(shape, {
            "parameters": rows, "first": zeros, "second": zeros.clone(), "updates": torch.zeros(count),
            "state_count": torch.zeros(count), "state_mean": torch.zeros(count, shape.state),
            "state_variance": torch.ones(count, shape.state), "reward_count": torch.zeros(count),
            "reward_mean": torch.zeros(count, objectives), "reward_variance": torch.ones(count, objectives),
        })  # fmt: skip

    @classmethod
    def join(cls, some: Sequence[Policies]) -> Policies:
        """The policies of several, one behind the other."""
        shape = some[0].shape
        return cls(shape, {name: torch.cat([each.rows[name] for each in some]) for name in some[0].rows})

    def __len__(self) -> int:
        return len(self.rows["parameters"])

    def take(self, places: Int[Tensor, " some"] | Sequence[int] | slice) -> Policies:
        """Copies of some of them; a place may come twice."""
        index = places if isinstance(places, slice) else torch.as_tensor(places, dtype=torch.long)
        return Policies(self.shape, {name: values[index].clone() for name, values in self.rows.items()})

    def nets(self) -> Nets:
        """The networks, without gradients."""
        return Nets(self.shape, self.rows["parameters"])

    @property
    def deviation(self) -> Float[Tensor, "n state"]:
        return self.rows["state_variance"].sqrt() + 1e-2

    @property
    def reward_deviation(self) -> Float[Tensor, "n objectives"]:
        return (self.rows["reward_variance"] + 1e-8).sqrt()

    def normalised(self, states: Float[Tensor, "n ... state"]) -> Float[Tensor, "n ... state"]:
        """States as the nets take them."""
        between = (slice(None), *([None] * (states.dim() - 2)))
        return (states - self.rows["state_mean"][between]) / self.deviation[between]

    def see(self, name: str, values: Float[Tensor, "n rows width"]) -> None:
        """Take numbers into the running mean and variance `name` ("state" or "reward")."""
        rows, count = self.rows, float(values.shape[1])
        before, mean = rows[f"{name}_count"][:, None], rows[f"{name}_mean"]
        total, shift = before + count, values.mean(1) - mean
        squares = rows[f"{name}_variance"] * before + values.var(1, correction=0) * count
        rows[f"{name}_variance"] = (squares + shift.square() * before * count / total) / total
        rows[f"{name}_mean"] = mean + shift * count / total
        rows[f"{name}_count"] = total[:, 0]

    @torch.no_grad()
    def descend(
        self,
        gradient: Float[Tensor, "n size"],
        rates: Float[Tensor, " n"],
        most_gradient: float,
        still: Bool[Tensor, "n size"] | None = None,
    ) -> None:
        """A step of Adam a row, its gradient cut to a norm of `most_gradient`; what is `still` does not move."""
        rows = self.rows
        norm = gradient.norm(dim=1, keepdim=True)
        gradient = gradient * (most_gradient / (norm + 1e-6)).clamp(max=1.0)
        rows["updates"] += 1
        rows["first"].lerp_(gradient, 0.1)
        rows["second"].lerp_(gradient.square(), 0.001)
        first = rows["first"] / (1 - 0.9 ** rows["updates"])[:, None]
        second = rows["second"] / (1 - 0.999 ** rows["updates"])[:, None]
        step = rates[:, None] * first / (second.sqrt() + EPSILON)
        rows["parameters"] -= step if still is None else step.masked_fill(still, 0.0)


def _start(shape: NetShape, seed: int) -> Float[Tensor, " size"]:
    draw, last, pieces = torch_generator(seed, "policy"), len(shape.hidden), []
    for name, of in shape.parts.items():
        if not name.endswith("weight"):
            pieces.append(torch.zeros(of))
            continue
        gain = math.sqrt(2)
        if name == f"actor.{last}.weight":
            gain = 0.01
        elif name == f"critic.{last}.weight":
            gain = 1.0
        pieces.append(_orthogonal(of[0], of[1], draw) * gain)
    return torch.cat([piece.reshape(-1) for piece in pieces])


def _orthogonal(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=draw)
    q, r = torch.linalg.qr(drawn)
    q = q * r.diagonal().sign()
    return q if rows >= columns else q.T
