"""PPO on filtered samples of small decoders that write stack programs, under a reward model learned from tests.

A world is what exists before reinforcement learning: a policy that imitated a fallible programmer, a reward model fitted to
pairs of that policy's programs, and specifications to train on, to choose by and to judge with. Reward, credit, filter and
surrogate are the library's; all seeds and learning rates of an arm are nets of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.errors import DataError
from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.sources.filters import Budget, Filter
from paperworks.language.testbeds import stack_programs
from paperworks.language.testbeds.decoder_learning import Credit, by_setting, ppo_credit, ppo_update, repeated
from paperworks.language.testbeds.decoders import Adam, Decoders, Responses, Shape, fit_scores, imitate, scores_of
from paperworks.language.testbeds.stack_programs import PROMPT, STEPS, Habits, Specifications
from paperworks.language.testbeds.world_files import Worlds, save_world

RewardKind = Literal["learned", "true", "noisy"]

CHOICE_SAMPLES = 5  # a prompt, of the samples that the filter is chosen on


@dataclass(frozen=True)
class WorldSize:
    """How many specifications there are of each kind, and how long policy and reward model learn beforehand."""

    training: int = 1024
    validation: int = 256
    held_out: int = 256
    imitation_steps: int = 300
    reward_prompts: int = 1024  # five samples each; the two that differ most are a pair, where their scores differ
    reward_steps: int = 200
    width: int = 32


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side; every tensor begins with them."""

    size: WorldSize
    seeds: tuple[int, ...]
    policy: Decoders
    reward_model: Decoders
    prompts: Int[Tensor, "seeds specifications prompt"]  # training, validation, held out
    programs: Int[Tensor, "seeds specifications steps"]
    tests: Int[Tensor, "seeds tests two"]
    rewards: Float[Tensor, "seeds prompts samples"]  # of the policy's programs for validation specifications
    scores: Float[Tensor, "seeds prompts samples"]
    noise: Float[Tensor, "seeds prompts samples"]  # what the noisy reward adds there
    pair_accuracy: Float[Tensor, " seeds"]  # of the reward model, on samples of one prompt with different scores

    def scored(self, answers: Int[Tensor, "nets rows steps"], chosen: Int[Tensor, "nets rows"]) -> Tensor:
        """The share of hidden tests passed; `chosen` are specifications of the nets' worlds, nets by rate, then seed."""
        repeats = len(answers) // len(self.seeds)
        right = picked(self.programs.repeat(repeats, 1, 1), chosen)
        return stack_programs.passed_share(answers, right, self.tests.repeat(repeats, 1, 1)[:, None])

    def take(self, places: Sequence[int]) -> World:
        """Some of the seeds, by their place."""
        index = torch.tensor(list(places))
        tensors = {name: getattr(self, name)[index] for name in _TENSORS}
        nets = {name: getattr(self, name).take(places) for name in _NETS}
        return replace(self, seeds=tuple(self.seeds[place] for place in places), **nets, **tensors)

    def rewards_of(self, kind: RewardKind) -> Float[Tensor, "seeds prompts samples"]:
        """What a reward says of the samples that a filter is chosen on; mean 0 and variance 1 in each world."""
        return _mixed(self, kind, self.rewards, self.scores, self.noise)

    def save(self, path: Path) -> None:
        """Everything as one safetensors file."""
        nets, tensors = ({name: getattr(self, name) for name in names} for names in (_NETS, _TENSORS))
        save_world(path, nets, tensors)


_TENSORS = ("prompts", "programs", "tests", "rewards", "scores", "noise", "pair_accuracy")
_NETS = ("policy", "reward_model")


@dataclass(frozen=True)
class Recipe:
    """One arm: what is drawn an iteration, which of it is kept, and how it is learned from."""

    filter: Filter
    budget: Budget = "kept_only"
    samples: int = 5  # a prompt
    reward: RewardKind = "learned"
    corrected: bool = False  # weigh kept samples by 1 / the filter's weight
    generated: int = 80  # samples an iteration, all prompts
    updates: int = 2  # optimiser steps an iteration
    kl_weight: float = 0.1
    iterations: int = 100
    judge_every: int = 10


@dataclass(frozen=True)
class Course:
    """What became of every net [points, nets]; `passed` and `score` are of greedy programs for held-out specifications."""

    at: list[int]
    validation: Tensor  # share of validation specifications whose greedy program passes all tests
    passed: Tensor
    score: Tensor
    generated_score: Tensor  # of everything written since the point before
    generated_reward: Tensor
    kept_score: Tensor  # of what was trained on
    kept_reward: Tensor
    kl: Tensor  # nats a program
    trained: int  # samples in gradients an iteration
    ties: float  # share of prompts whose best reward several samples have


_COLUMNS = (
    "validation",
    "passed",
    "score",
    "generated_score",
    "generated_reward",
    "kept_score",
    "kept_reward",
    "kl",
)  # as `train` gathers them


def make_world(seed: int, size: WorldSize = WorldSize()) -> World:
    """The world of one seed."""
    every = stack_programs.all_specifications()
    count = size.training + size.validation + size.held_out
    every = every.take(torch.randperm(len(every), generator=torch_generator(seed, "specifications"))[:count])
    train = every.take(range(size.training))
    tests = stack_programs.hidden_tests(seed)
    policy = _imitator(seed, train, size)
    reward_model = _reward_model(seed, policy, train, tests, size)
    validation = every.take(range(size.training, size.training + size.validation))
    tokens, scores = _written(policy, validation, tests, torch_generator(seed, "choice"))
    if float(scores.min()) == float(scores.max()):
        raise DataError(
            f"world {seed}: all programs score {float(scores.min()):g}; raise imitation_steps or validation"
        )
    with torch.no_grad():
        rewards = scores_of(reward_model, tokens.flatten(0, 1)[None], PROMPT).view(scores.shape)
    noise = _noise(tokens.flatten(0, 1)[None], [seed]).view(scores.shape)
    higher, better = rewards[:, :, None] > rewards[:, None], scores[:, :, None] > scores[:, None]
    accuracy = higher[better].float().mean()
    shown = (every.prompts, every.programs, tests, rewards, scores, noise, accuracy)
    return World(size, (seed,), policy, reward_model, *(value[None] for value in shown))


def load_worlds(files: Sequence[Path], seeds: Sequence[int], size: WorldSize) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    policy, reward_model = (found.nets(name, _shape(size)) for name in _NETS)
    return World(size, tuple(seeds), policy, reward_model, *(found[name] for name in _TENSORS))


def train(world: World, recipe: Recipe, rates: Sequence[float]) -> Course:
    """PPO on what the recipe's filter keeps, for every seed at every learning rate (nets by rate, then seed)."""
    seeds, repeats = len(world.seeds), len(rates)
    start, reward_model = (nets.take(list(range(seeds)) * repeats) for nets in (world.policy, world.reward_model))
    policy, rate = start.trainable(), by_setting(seeds * repeats, rates)
    adam = Adam(policy, rate)
    prompts = world.prompts.repeat(repeats, 1, 1)
    points: list[list[Tensor]] = [_judged(world, policy)]
    told: list[list[Tensor]] = []
    rows, ties, at = 0, [], [0]
    for iteration in range(recipe.iterations):
        chosen = _chosen(world, recipe, iteration).repeat(repeats, 1)
        written = policy.sample(picked(prompts, chosen), STEPS, torch_generator("written", iteration))
        score = world.scored(written.answers, chosen)
        with torch.no_grad():
            reward = _reward(world, recipe.reward, reward_model, written, score)
            ratio = written.logps - torch.where(written.mask, start.scored(written.tokens, PROMPT)[0], 0.0)
        credit = ppo_credit(policy, written, repeated(reward, written.mask) - recipe.kl_weight * ratio)
        kept, weight = _kept(recipe, reward, world.seeds * repeats, iteration)
        told.append([score, reward, score.gather(1, kept), reward.gather(1, kept), ratio.sum(-1)])
        rows = kept.shape[1]
        ties.append(_tied(reward, recipe.samples))
        written, credit = _selected(written, credit, kept)
        credit = replace(credit, advantages=credit.advantages * weight[..., None])
        factor = 1 - iteration / recipe.iterations
        for _ in range(recipe.updates):
            ppo_update(policy, adam, written, credit, value_weight=0.1, factor=factor)
        if (iteration + 1) % recipe.judge_every == 0 or iteration + 1 == recipe.iterations:
            means = [torch.stack([values.mean(1) for values in column]).mean(0) for column in zip(*told, strict=True)]
            points.append([*_judged(world, policy), *means])
            at.append(iteration + 1)
            told = []
    points[0] += [torch.full_like(value, torch.nan) for value in points[1][3:]]  # nothing is written before the start
    columns = dict(zip(_COLUMNS, (torch.stack(column) for column in zip(*points, strict=True)), strict=True))
    return Course(at=at, trained=rows, ties=float(np.mean(ties)), **columns)


def picked(values: Int[Tensor, "nets some size"], rows: Int[Tensor, "nets rows"]) -> Tensor:
    """Each net's rows of values."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def _shape(size: WorldSize) -> Shape:
    return Shape(stack_programs.VOCABULARY, PROMPT + STEPS, width=size.width)


def _imitator(seed: int, train: Specifications, size: WorldSize) -> Decoders:
    draw = torch_generator(seed, "imitation")
    habits = Habits.of(seed)
    demonstrations = torch.cat([habits.written(train, draw) for _ in range(2)])
    tokens = torch.cat([train.prompts.repeat(2, 1), demonstrations], 1)
    return imitate(
        Decoders.fresh(_shape(size), [seed]),
        lambda step: tokens[torch.randint(len(tokens), (64,), generator=draw)][None],
        PROMPT,
        steps=size.imitation_steps,
        rate=5e-3,
    )


def _written(
    policy: Decoders, wanted: Specifications, tests: Tensor, draw: torch.Generator
) -> tuple[Int[Tensor, "prompts samples length"], Float[Tensor, "prompts samples"]]:
    """Five programs of the policy for each specification, and their scores."""
    prompts = wanted.prompts.repeat_interleave(CHOICE_SAMPLES, 0)
    written = policy.sample(prompts[None], STEPS, draw)
    right = wanted.programs.repeat_interleave(CHOICE_SAMPLES, 0)
    score = stack_programs.passed_share(written.answers[0], right, tests)
    return written.tokens[0].view(len(wanted), CHOICE_SAMPLES, -1), score.view(len(wanted), CHOICE_SAMPLES)


def _reward_model(seed: int, policy: Decoders, train: Specifications, tests: Tensor, size: WorldSize) -> Decoders:
    """Bradley-Terry on the two most different of five programs, labelled by tests."""
    draw = torch_generator(seed, "reward model")
    tokens, scores = _written(policy, train.take(range(size.reward_prompts)), tests, draw)
    couples = list(combinations(range(CHOICE_SAMPLES), 2))
    programs = tokens[:, :, PROMPT:]
    apart = torch.stack([stack_programs.edit_distances(programs[:, i], programs[:, j]) for i, j in couples], 1)
    couple = torch.tensor(couples)[apart.argmax(1)]
    both = tokens.gather(1, couple[..., None].expand(-1, -1, tokens.shape[-1]))
    score = scores.gather(1, couple)
    order = score.argsort(1, descending=True)[..., None].expand_as(both)
    pairs = both.gather(1, order)[score[:, 0] != score[:, 1]]
    if not len(pairs):
        raise DataError(f"world {seed}: no two programs of a specification differ in score; raise imitation_steps")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = pairs[torch.randint(len(pairs), (32,), generator=draw)]
        return rows[None, :, 0], rows[None, :, 1]

    return fit_scores(policy, batch, PROMPT, steps=size.reward_steps, rate=2e-3)


def _chosen(world: World, recipe: Recipe, iteration: int) -> Int[Tensor, "seeds rows"]:
    """The training specifications of an iteration, each `samples` times in a row."""
    prompts = recipe.generated // recipe.samples
    draws = [
        torch.randperm(world.size.training, generator=torch_generator(seed, "prompts", iteration))
        for seed in world.seeds
    ]
    return torch.stack(draws)[:, :prompts].repeat_interleave(recipe.samples, 1)


def _reward(
    world: World, kind: RewardKind, reward_model: Decoders, written: Responses, score: Float[Tensor, "nets rows"]
) -> Float[Tensor, "nets rows"]:
    """Mean 0 and variance 1 on the starting policy's samples, whatever its kind."""
    repeats = len(score) // len(world.seeds)
    rewards = scores_of(reward_model, written.tokens, PROMPT) if kind == "learned" else score
    noise = _noise(written.tokens, list(world.seeds) * repeats) if kind == "noisy" else score
    return _mixed(world, kind, rewards, score, noise)


def _mixed(world: World, kind: RewardKind, rewards: Tensor, scores: Tensor, noise: Tensor) -> Tensor:
    """One of the rewards of samples [nets, ...]; the noisy one has the learned one's correlation with scores."""
    if kind == "learned":
        return _normal(rewards, world.rewards)
    if kind == "true":
        return _normal(scores, world.scores)
    both = _normal(world.rewards, world.rewards) * _normal(world.scores, world.scores)
    correlation = _over(both.flatten(1).mean(1), scores)
    return correlation * _normal(scores, world.scores) + (1 - correlation.square()).sqrt() * noise


def _normal(values: Tensor, known: Float[Tensor, "seeds prompts samples"]) -> Tensor:
    """Values less the known ones' mean, over their deviation; nets by rate, then seed."""
    flat = known.flatten(1)
    return (values - _over(flat.mean(1), values)) / _over(flat.std(1, correction=0), values)


def _over(values: Float[Tensor, " seeds"], of: Tensor) -> Tensor:
    return values.repeat(len(of) // len(values)).view(-1, *[1] * (of.dim() - 1))


def _noise(tokens: Int[Tensor, "nets rows length"], seeds: Sequence[int]) -> Float[Tensor, "nets rows"]:
    """A standard normal number that is always the same for the same prompt and program."""
    prime = 2**31 - 1
    factors = torch.stack(
        [torch.randint(1, prime, (2, tokens.shape[-1]), generator=torch_generator(seed, "noise")) for seed in seeds]
    )
    hashed = torch.zeros(*tokens.shape[:2], 2, dtype=torch.long)
    for place in range(tokens.shape[-1]):
        hashed = ((hashed + tokens[:, :, place, None] + 1) * factors[:, None, :, place]) % prime
    uniform = (hashed.double() + 0.5) / prime
    return ((-2 * uniform[..., 0].log()).sqrt() * (2 * torch.pi * uniform[..., 1]).cos()).float()


def _kept(
    recipe: Recipe, reward: Float[Tensor, "nets rows"], seeds: Sequence[int], iteration: int
) -> tuple[Int[Tensor, "nets kept"], Float[Tensor, "nets kept"]]:
    """The rows to train on, and the weight of each (1 but where the filter is corrected for)."""
    kept, weights = [], []
    for row, seed in zip(reward.view(len(reward), -1, recipe.samples).numpy(), seeds, strict=True):
        if recipe.filter.kind == "pow":  # the reward scaled to [-1, 1] over the buffer
            row = 2 * (row - row.min()) / max(float(np.ptp(row)), 1e-9) - 1
        tie = derive_seed(seed, "filter", iteration)
        kept.append(recipe.filter.select(row, budget=recipe.budget, seed=tie))
        chance = recipe.filter.weights(row, seed=tie).ravel()[kept[-1]] if recipe.corrected else 1 / row.size
        weights.append(np.broadcast_to(1 / (row.size * chance), kept[-1].shape))
    return torch.tensor(np.stack(kept)), torch.tensor(np.stack(weights), dtype=torch.float32)


def _selected(written: Responses, credit: Credit, kept: Int[Tensor, "nets kept"]) -> tuple[Responses, Credit]:
    fields = (credit.advantages, credit.returns, credit.old_logps, credit.old_values, credit.counted)
    tokens, logps, mask = (picked(values, kept) for values in (written.tokens, written.logps, written.mask))
    return Responses(tokens, logps, mask, written.prompt), Credit(*(picked(values, kept) for values in fields))


def _tied(reward: Float[Tensor, "nets rows"], samples: int) -> float:
    grouped = reward.view(-1, samples)
    return float(((grouped == grouped.amax(1, keepdim=True)).sum(1) > 1).float().mean())


def _judged(world: World, policy: Decoders) -> list[Tensor]:
    """Validation pass rate, and pass rate and score on held-out specifications, all greedy."""
    repeats = len(policy) // len(world.seeds)
    rows = torch.arange(world.size.training, world.prompts.shape[1]).expand(len(policy), -1)
    prompts = picked(world.prompts.repeat(repeats, 1, 1), rows)
    written = policy.sample(prompts, STEPS, torch_generator("judged"), temperature=0.0)
    score = world.scored(written.answers, rows)
    passed = (score == 1).float()
    cut = world.size.validation
    return [passed[:, :cut].mean(1), passed[:, cut:].mean(1), score[:, cut:].mean(1)]
