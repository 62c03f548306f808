"""Small decoders aligned for how they are deployed: RLOO on rewards that are raw, standardised, or calibrated and transformed.

A world is a policy that imitated generated text, a reward model learned from its judged answers, and a scale and an offset
that this reward has for each prompt by itself. Answers begin with a token that says how bold they are: how much the rest
can win or lose. Calibration, transforms and win rates are the library's; all seeds and KL weights of an arm are nets of one
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.rewards.best_of import best_of_weights, win_rate
from paperworks.language.rewards.calibration import Numbers, Transform, quantiles
from paperworks.language.rewards.inference_planner import QuantilePolicy
from paperworks.language.testbeds.bold_letters import LETTERS, PROMPT, STEPS, Source
from paperworks.language.testbeds.decoder_learning import (
    by_setting,
    kl_of,
    leave_one_out_by_net,
    policy_gradient_update,
    summed_logps,
)
from paperworks.language.testbeds.decoders import (
    Adam,
    Decoders,
    Shape,
    fit_scores,
    imitate,
    mean_scores_of,
)
from paperworks.language.testbeds.world_files import Worlds, save_world

SAMPLES = 4  # answers to a prompt in RLOO
KL_SAMPLES = 8  # answers a prompt whose token KLs are summed exactly

RewardKind = Literal["raw", "standardised"]


@dataclass(frozen=True)
class WorldSize:
    """How much there is of everything, and how long the nets of the world learn."""

    prompts: int = 96
    calibration: int = 64  # K, the reference's answers a prompt
    judged: int = 32  # answers a prompt that win rates are taken from, of the reference and of every policy
    imitation_steps: int = 300
    reward_steps: int = 300
    width: int = 32


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side; every tensor begins with them."""

    size: WorldSize
    seeds: tuple[int, ...]
    reference: Decoders
    reward_model: Decoders
    prompts: Int[Tensor, "seeds prompts three"]
    scale: Float[Tensor, "seeds prompts"]
    offset: Float[Tensor, "seeds prompts"]
    answers: Int[Tensor, "seeds prompts calibration steps"]  # the reference's own, for calibration and distillation
    rewards: Float[Tensor, "seeds prompts calibration"]  # of those, sorted ascending, as the answers are
    judged: Float[Tensor, "seeds prompts judged"]  # rewards of other answers of the reference
    pair_accuracy: Float[Tensor, " seeds"]  # of the reward model, on pairs of the reference's answers

    def save(self, path: Path) -> None:
        """Everything as one safetensors file."""
        nets, tensors = ({name: getattr(self, name) for name in names} for names in (_NETS, _TENSORS))
        save_world(path, nets, tensors)

    def reward(
        self, model: Decoders, tokens: Int[Tensor, "nets rows length"], chosen: Int[Tensor, "nets rows"]
    ) -> Float[Tensor, "nets rows"]:
        """The reward of answers to the `chosen` prompts, in each prompt's scale; nets by setting, then seed."""
        repeats = len(tokens) // len(self.seeds)
        scale, offset = (values.repeat(repeats, 1).gather(1, chosen) for values in (self.scale, self.offset))
        with torch.no_grad():
            return scale * mean_scores_of(model, tokens, PROMPT) + offset


_TENSORS = ("prompts", "scale", "offset", "answers", "rewards", "judged", "pair_accuracy")
_NETS = ("reference", "reward_model")


@dataclass(frozen=True)
class Recipe:
    """How long and how fast every arm learns."""

    steps: int = 100
    prompts: int = 16  # a step, with four answers each
    rate: float = 2e-3


@dataclass(frozen=True)
class Outcome:
    """Every net measured: [nets]."""

    kl: Tensor  # nats an answer
    standard: Tensor  # win rates over the reference: of one answer, of the best of n, of the worst of n
    best: Tensor
    worst: Tensor
    saturated: Tensor  # share of answers beyond all of the calibration's


# ---------------------------------------------------------------------------------------------------------------- worlds


def make_world(seed: int, size: WorldSize = WorldSize()) -> World:
    """The world of one seed."""
    source, draw = Source.of(seed), torch_generator(seed, "prompts")
    codes = torch.randperm(LETTERS**PROMPT, generator=draw)[: size.prompts]
    prompts = 1 + torch.stack([codes // LETTERS**power % LETTERS for power in range(PROMPT)], 1)
    scale = torch.randn(size.prompts, generator=draw).exp()
    offset = 2 * torch.randn(size.prompts, generator=draw)
    reference = _imitator(seed, source, size)
    answers = _drawn(reference, prompts, size.calibration, torch_generator(seed, "calibration"))
    judged = _drawn(reference, prompts, size.judged, torch_generator(seed, "judged reference"))
    model = _reward_model(seed, source, prompts, answers, size)
    rewards, others = (_rewards(model, prompts, each, scale, offset) for each in (answers, judged))
    order = rewards.argsort(1)
    answers = answers.gather(1, order[..., None].expand_as(answers))
    accuracy = _accuracy(source, prompts, judged, others)
    tensors = (prompts, scale, offset, answers, rewards.gather(1, order), others, accuracy)
    return World(size, (seed,), reference, model, *(value[None] for value in tensors))


def load_worlds(files: Sequence[Path], seeds: Sequence[int], size: WorldSize) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    reference, reward_model = (found.nets(name, _shape(size)) for name in _NETS)
    return World(size, tuple(seeds), reference, reward_model, *(found[name] for name in _TENSORS))


def _shape(size: WorldSize) -> Shape:
    return Shape(LETTERS + 1, PROMPT + STEPS, width=size.width, heads=2)


def _imitator(seed: int, source: Source, size: WorldSize) -> Decoders:
    draw = torch_generator(seed, "imitation")

    def batch(step: int) -> Tensor:
        prompts = torch.randint(1, LETTERS + 1, (64, PROMPT), generator=draw)
        return torch.cat([prompts, source.written(prompts, draw)], 1)[None]

    return imitate(Decoders.fresh(_shape(size), [seed]), batch, PROMPT, steps=size.imitation_steps, rate=5e-3)


def _drawn(
    policy: Decoders, prompts: Int[Tensor, "prompts three"], count: int, generator: torch.Generator
) -> Int[Tensor, "prompts count steps"]:
    written = policy.sample(prompts.repeat_interleave(count, 0)[None], STEPS, generator)
    return written.answers[0].view(len(prompts), count, STEPS)


def _rewards(
    model: Decoders,
    prompts: Int[Tensor, "prompts three"],
    answers: Int[Tensor, "prompts count steps"],
    scale: Float[Tensor, " prompts"],
    offset: Float[Tensor, " prompts"],
) -> Float[Tensor, "prompts count"]:
    tokens = torch.cat([prompts.repeat_interleave(answers.shape[1], 0), answers.flatten(0, 1)], 1)
    with torch.no_grad():
        scores = mean_scores_of(model, tokens[None], PROMPT).view(answers.shape[:2])
    return scale[:, None] * scores + offset[:, None]


def _accuracy(
    source: Source,
    prompts: Int[Tensor, "prompts three"],
    answers: Int[Tensor, "prompts count steps"],
    rewards: Float[Tensor, "prompts count"],
) -> Float[Tensor, ""]:
    """Share of pairs of answers to a prompt that rewards order as their worth does."""
    worth = source.worth(prompts.repeat_interleave(answers.shape[1], 0), answers.flatten(0, 1)).view_as(rewards)
    better, higher = worth[:, :, None] > worth[:, None], rewards[:, :, None] > rewards[:, None]
    return higher[better].float().mean()


def _reward_model(
    seed: int,
    source: Source,
    prompts: Int[Tensor, "prompts three"],
    answers: Int[Tensor, "prompts count steps"],
    size: WorldSize,
) -> Decoders:
    """Bradley-Terry on two of the reference's answers to a prompt, judged with Bradley-Terry noise."""
    draw = torch_generator(seed, "reward model")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(prompts), (48,), generator=draw)
        pair = answers[at].gather(
            1, torch.rand(48, answers.shape[1], generator=draw).argsort(1)[:, :2, None].expand(-1, -1, STEPS)
        )
        worth = torch.stack([source.worth(prompts[at], pair[:, side]) for side in (0, 1)], 1)
        first = torch.rand(48, generator=draw) < (3 * (worth[:, 0] - worth[:, 1])).sigmoid()
        chosen, rejected = (
            torch.cat([prompts[at], torch.where(which[:, None], pair[:, 0], pair[:, 1])], 1)
            for which in (first, ~first)
        )
        return chosen[None], rejected[None]

    start = Decoders.fresh(_shape(size), [derive_seed(seed, "reward model")])
    return fit_scores(start, batch, PROMPT, steps=size.reward_steps, rate=6e-3, score=mean_scores_of)


# -------------------------------------------------------------------------------------------------------------- training


def train(world: World, reward: RewardKind | Transform, betas: Sequence[float], recipe: Recipe = Recipe()) -> Decoders:
    """RLOO on reward - beta log ratio, for every seed at every weight of the KL (nets by weight, then seed)."""
    seeds, repeats = len(world.seeds), len(betas)
    reference, model = (nets.take(list(range(seeds)) * repeats) for nets in (world.reference, world.reward_model))
    policy, beta = reference.trainable(), by_setting(seeds * repeats, betas)
    adam = Adam(policy, recipe.rate)
    for step in range(recipe.steps):
        chosen = _chosen(world, recipe, step).repeat(repeats, 1)
        written = policy.sample(_picked(world.prompts, chosen), STEPS, torch_generator("written", step))
        raw = world.reward(model, written.tokens, chosen)
        with torch.no_grad():
            ratio = written.logps.sum(-1) - summed_logps(reference, written.tokens, PROMPT)
        gain = shown_reward(world, reward, raw, chosen) - beta[:, None] * ratio
        advantage = leave_one_out_by_net(gain, SAMPLES)
        policy_gradient_update(policy, adam, written, advantage, factor=1 - step / recipe.steps)
    return policy.take(range(len(policy)))


def distil(world: World, sizes: Sequence[int], recipe: Recipe = Recipe()) -> Decoders:
    """The reference after supervised training on the best of n of its calibration answers, n random ones each time.

    Nets by n, then seed. n is what a weight of the KL is to RL: a perfect student is log n - (n-1)/n nats away.
    """
    start = world.reference.take(list(range(len(world.seeds))) * len(sizes))

    def batch(step: int) -> Tensor:
        chosen = _chosen(world, recipe, step)
        prompts = _picked(world.prompts, chosen)
        return torch.cat([torch.cat([prompts, best_answers(world, chosen, n, step)], 2) for n in sizes])

    return imitate(start, batch, PROMPT, steps=recipe.steps, rate=recipe.rate)


def best_answers(world: World, chosen: Int[Tensor, "seeds rows"], n: int, step: int) -> Int[Tensor, "seeds rows steps"]:
    """The best of n random ones of the calibration answers to each chosen prompt.

    Of K answers that of rank i is the best of n with the chance `best_of_weights(K, n)`.
    """
    upper = torch.tensor(best_of_weights(world.size.calibration, n), dtype=torch.float32).cumsum(0)
    uniform = torch.stack(
        [torch.rand(chosen.shape[1], generator=torch_generator(each, "best", step)) for each in world.seeds]
    )
    ranks = torch.searchsorted(upper, uniform).clamp(max=world.size.calibration - 1)
    return world.answers[torch.arange(len(chosen))[:, None], chosen, ranks]


def shown_reward(
    world: World, kind: RewardKind | Transform, raw: Float[Tensor, "nets rows"], chosen: Int[Tensor, "nets rows"]
) -> Float[Tensor, "nets rows"]:
    """What the optimiser sees of rewards: as they are, standardised over each net's batch, or calibrated and transformed."""
    if kind == "raw":
        return raw
    if kind == "standardised":
        return (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True)
    assert isinstance(kind, Transform)
    return torch.tensor(kind(calibrated(world, raw, chosen), world.size.calibration), dtype=torch.float32)


def calibrated(world: World, raw: Float[Tensor, "nets rows"], chosen: Int[Tensor, "nets rows"]) -> Numbers:
    """The quantile of each reward among the reference's own for the prompt: [nets, rows]."""
    known, values, places = world.rewards.numpy(), raw.numpy(), chosen.numpy()
    out = np.empty(values.shape)
    for net, (row, of) in enumerate(zip(values, places, strict=True)):
        for place in np.unique(of):
            out[net, of == place] = quantiles(row[of == place], known[net % len(known), place])
    return out


# ------------------------------------------------------------------------------------------------------------- measuring


def measure(world: World, policy: Decoders, n: int, *, block: int = 16) -> Outcome:
    """KL and win rates over the reference of every net, on fresh answers to all prompts."""
    repeats, size = len(policy) // len(world.seeds), world.size
    nets = list(range(len(world.seeds))) * repeats
    reference, model = world.reference.take(nets), world.reward_model.take(nets)
    rewards, kls, saturated = [], [], []
    for start in range(0, size.prompts, block):
        places = torch.arange(start, min(start + block, size.prompts)).expand(len(policy), -1)
        few, many = (places.repeat_interleave(count, 1) for count in (KL_SAMPLES, size.judged))
        kl, _ = kl_of(policy, reference, _picked(world.prompts, few), STEPS, torch_generator("kl", start))
        kls.append(kl * places.shape[1])
        written = policy.sample(_picked(world.prompts, many), STEPS, torch_generator("judged", start))
        raw = world.reward(model, written.tokens, many)
        saturated.append(torch.tensor(calibrated(world, raw, many) >= 1).sum(1))
        rewards.append(raw.view(len(policy), -1, size.judged))
    ours, theirs = torch.cat(rewards, 1).numpy(), world.judged.repeat(repeats, 1, 1).numpy()
    rates = [
        torch.tensor(win_rate(ours, theirs, kind=kind, n=of)).mean(1)  # type: ignore[arg-type]
        for kind, of in (("sample", 1), ("bon", n), ("won", n))
    ]
    share = torch.stack(saturated).sum(0) / (size.prompts * size.judged)
    return Outcome(torch.stack(kls).sum(0) / size.prompts, rates[0], rates[1], rates[2], share)


def at_kl(target: float, kl: Sequence[float], values: Sequence[float], start: float = 0.5) -> float:
    """The value at a KL, on straight lines between the points and the reference's (0, start); NaN beyond the last."""
    points = sorted([(0.0, start), *zip(kl, values, strict=True)])
    x, y = zip(*points, strict=True)
    return float(np.interp(target, x, y)) if target <= x[-1] else float("nan")


def drawn_quantiles(policy: QuantilePolicy, prompts: int, answers: int, seed: int) -> tuple[Numbers, Numbers]:
    """Quantiles of answers of the reference and of a policy, each [prompts, answers]."""
    chance, grid = np.random.default_rng(derive_seed(seed, "quantiles")), len(policy.density)
    theirs, uniform, within = (chance.random((prompts, answers)) for _ in range(3))
    cell = np.searchsorted(np.cumsum(policy.density) / grid, uniform).clip(max=grid - 1)
    return theirs, (cell + within) / grid


def _chosen(world: World, recipe: Recipe, step: int) -> Int[Tensor, "seeds rows"]:
    """The prompts of a step, each four times in a row."""
    draws = [
        torch.randperm(world.size.prompts, generator=torch_generator(seed, "chosen", step)) for seed in world.seeds
    ]
    return torch.stack(draws)[:, : recipe.prompts].repeat_interleave(SAMPLES, 1)


def _picked(prompts: Int[Tensor, "seeds prompts three"], chosen: Int[Tensor, "nets rows"]) -> Tensor:
    return prompts.repeat(len(chosen) // len(prompts), 1, 1).gather(1, chosen[..., None].expand(-1, -1, PROMPT))
