"""A world in which a learned reward overoptimises: gold reward, preference pairs, proxy reward models, all small networks.

Answers are points of R^16. The gold reward is a fixed random network, less a penalty on extremes that good answers rarely
have and pairs rarely show (the setting of Gao et al. 2022, arXiv 2210.10760, made small). Proxies are networks trained on a
few hundred noisy pairs; all of them, of every kind, train and score as one batch of networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from paperworks.core.seeding import torch_generator

DIMENSIONS, HIDDEN = 16, 64
PAIRS = 300
CALIBRATION = 2000  # fresh answers that a proxy is standardised on
EPOCHS, BATCH, RATE, WEIGHT_DECAY, REWARD_L2 = 30, 64, 3e-3, 1e-2, 1e-3
_UNIT_T = math.sqrt(1 / 3)  # Student's t with 3 degrees of freedom has variance 3


@dataclass(frozen=True)
class World:
    """A gold reward and where answers come from. `penalty` 0 and `heavy_tails` False is the easy world."""

    seed: int
    first: Float[Tensor, "hidden dimensions"]
    bias: Float[Tensor, " hidden"]
    second: Float[Tensor, " hidden"]
    heavy_tails: bool
    penalty: float
    centre: float = 0.0
    unit: float = 1.0

    def gold(self, answers: Float[Tensor, "... dimensions"]) -> Float[Tensor, ...]:
        """Gold reward, less its mean over answers and in units of its deviation over them."""
        value = 2 * (torch.tanh(answers @ self.first.T + self.bias) @ self.second)
        extremes = relu(answers.abs() - 1).square().sum(-1).clamp(max=20)
        return (value - self.penalty * extremes - self.centre) / self.unit

    def answers(self, shape: Sequence[int], *stream: int | str) -> Float[Tensor, "... dimensions"]:
        """Answers of the unoptimised policy, fixed by the world's seed and the stream."""
        draw = torch_generator(self.seed, "overoptimisation", *stream)
        normal = torch.randn(*shape, DIMENSIONS, generator=draw)
        if not self.heavy_tails:
            return normal
        chi = torch.randn(3, *shape, DIMENSIONS, generator=draw).square().sum(0)
        return normal / (chi / 3).sqrt() * _UNIT_T


def make_world(seed: int, *, heavy_tails: bool = True, penalty: float = 0.15) -> World:
    """The world of a seed; the same network with and without heavy tails and penalty."""
    draw = torch_generator(seed, "gold")
    first = torch.randn(HIDDEN, DIMENSIONS, generator=draw) * 1.5 / 4
    bias = 0.5 * torch.randn(HIDDEN, generator=draw)
    second = torch.randn(HIDDEN, generator=draw) / 8
    raw = World(seed, first, bias, second, heavy_tails, penalty)
    values = raw.gold(raw.answers((20_000,), "scale"))
    return World(seed, first, bias, second, heavy_tails, penalty, float(values.mean()), float(values.std()))


@dataclass(frozen=True)
class AnswerPairs:
    """Labelled pairs: `better` won by the label, which is wrong for a share of them."""

    better: Float[Tensor, "pairs dimensions"]
    worse: Float[Tensor, "pairs dimensions"]


def draw_pairs(world: World, noise: float, *, pairs: int = PAIRS) -> AnswerPairs:
    """Pairs labelled by gold, each label flipped with probability `noise`, once; the same pairs whatever the noise."""
    answers = world.answers((pairs, 2), "pairs")
    gold = world.gold(answers)
    flips = torch.rand(pairs, generator=torch_generator(world.seed, "label noise")) < noise
    first_wins = (gold[:, 0] > gold[:, 1]) ^ flips
    better = torch.where(first_wins[:, None], answers[:, 0], answers[:, 1])
    worse = torch.where(first_wins[:, None], answers[:, 1], answers[:, 0])
    return AnswerPairs(better, worse)


@dataclass(frozen=True)
class Proxies:
    """Reward networks of one shape as one batch, each standardised on fresh answers."""

    weights: tuple[Tensor, ...]  # [networks, out, in] and [networks, out], layer by layer
    mean: Float[Tensor, " networks"]
    deviation: Float[Tensor, " networks"]

    @torch.no_grad()
    def score(self, answers: Float[Tensor, "... dimensions"]) -> Float[Tensor, "networks ..."]:
        """Standardised rewards of the same answers by every network."""
        flat = answers.reshape(1, -1, DIMENSIONS).expand(len(self.mean), -1, -1)
        values = (_forward(self.weights, flat) - self.mean[:, None]) / self.deviation[:, None]
        return values.view(len(self.mean), *answers.shape[:-1])


def train_proxies(
    pairs: Sequence[AnswerPairs], worlds: Sequence[World], networks: int, *, width: int = 32, epochs: int = EPOCHS
) -> list[Proxies]:
    """For each set of pairs `networks` reward models of 16-width-width-1 that differ in initialisation and order of data.

    Bradley-Terry loss with a pull of rewards to 0, AdamW; a network's result depends on nothing but its own pairs, its
    world's seed and its number. All networks of all sets move as one batch.
    """
    seeds = [(world.seed, number) for world in worlds for number in range(networks)]
    weights = [torch.stack(layer) for layer in zip(*(_fresh(*seed, width) for seed in seeds), strict=True)]
    parameters = [layer.requires_grad_() for layer in weights]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY)
    answers = torch.stack([torch.stack([p.better, p.worse]) for p in pairs]).repeat_interleave(networks, 0)
    count, index = answers.shape[2], torch.arange(len(seeds))[:, None]
    orders = [torch_generator(*seed, "order") for seed in seeds]
    for _ in range(epochs):
        order = torch.stack([torch.randperm(count, generator=each) for each in orders])
        for rows in order.split(BATCH, dim=1):
            taken = answers[index, :, rows].transpose(1, 2).flatten(1, 2)  # [networks, 2 * rows, dimensions]
            rewards = _forward(parameters, taken).view(len(seeds), 2, -1)
            loss = -logsigmoid(rewards[:, 0] - rewards[:, 1]) + REWARD_L2 * rewards.square().sum(1)
            optimiser.zero_grad()
            loss.mean(1).sum().backward()
            optimiser.step()
    trained = [layer.detach() for layer in parameters]
    out = []
    for number, world in enumerate(worlds):
        own = tuple(layer[number * networks : (number + 1) * networks] for layer in trained)
        fresh = world.answers((CALIBRATION,), "calibration").expand(networks, -1, -1)
        with torch.no_grad():
            values = _forward(own, fresh)
        out.append(Proxies(own, values.mean(1), values.std(1, correction=0)))
    return out


def save_proxies(path: str | Path, proxies: Proxies) -> None:
    """Write a batch of proxies as safetensors."""
    from safetensors.torch import save_file

    layers = {f"layer{number}": layer.contiguous() for number, layer in enumerate(proxies.weights)}
    save_file({**layers, "mean": proxies.mean, "deviation": proxies.deviation}, path)


def load_proxies(path: str | Path) -> Proxies:
    """Read what `save_proxies` wrote."""
    from safetensors.torch import load_file

    found = load_file(path)
    return Proxies(tuple(found[f"layer{number}"] for number in range(6)), found["mean"], found["deviation"])


def equal_width(networks: int, width: int = 32) -> int:
    """The width of one network with as many parameters as `networks` of `width`."""
    total = networks * (width * width + (DIMENSIONS + 3) * width + 1)
    linear = DIMENSIONS + 3
    return round((-linear + math.sqrt(linear**2 + 4 * (total - 1))) / 2)


def aggregate(scores: Float[Tensor, "members ..."], rule: str, uwo_lambda: float = 0.5) -> Float[Tensor, ...]:
    """`rewards.ensemble.combine` on tensors of any shape: mean, wco or uwo, with the population variance."""
    if rule == "wco":
        return scores.amin(0)
    mean = scores.mean(0)
    return mean if rule == "mean" else mean - uwo_lambda * scores.var(0, correction=0)


def _fresh(seed: int, number: int, width: int) -> list[Tensor]:
    """Weights and biases uniform in ±1/sqrt(inputs)."""
    draw, out = torch_generator(seed, "proxy", number), []
    for inputs, outputs in ((DIMENSIONS, width), (width, width), (width, 1)):
        bound = 1 / math.sqrt(inputs)
        for shape in ((outputs, inputs), (outputs,)):
            out.append((2 * torch.rand(*shape, generator=draw) - 1) * bound)
    return out


def _forward(weights: Sequence[Tensor], answers: Float[Tensor, "networks rows dimensions"]) -> Tensor:
    hidden = answers
    for at in range(0, 4, 2):
        hidden = relu(torch.baddbmm(weights[at + 1][:, None], hidden, weights[at].mT))
    return torch.baddbmm(weights[5][:, None], hidden, weights[4].mT).squeeze(-1)
