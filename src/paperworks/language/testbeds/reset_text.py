"""A tiny language model's lock: reward grows with each late token that is right, and stops at the first that is not.

A prompt is two tokens, a response twelve. From the seventh on, each place has a hidden group of tokens that are right
there; the reward is the share of right ones before the first mistake, so that a policy which starts at the prompt seldom
learns about the last places. Writers of references know the groups and err now and then. The policy has imitated ordinary
text; a reward model is learned from pairs. Nets are by setting, then seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.objectives.dpo import DPO, logistic
from paperworks.language.sources.resets import ResetBank, written_by_policy
from paperworks.language.testbeds.decoder_learning import (
    by_setting,
    kl_along,
    pair_logps,
    ppo_credit,
    ppo_update,
    repeated,
    summed_logps,
    uniform_by_seed,
)
from paperworks.language.testbeds.decoders import Adam, Decoders, Responses, Shape, fit_scores, imitate, mean_scores_of
from paperworks.language.testbeds.world_files import Worlds, save_world

VOCABULARY, PROMPT, STEPS = 40, 2, 12
FREE = 6  # tokens before the first late one
LATE = STEPS - FREE
GROUP = 13  # tokens that are right at a late place
NOISE = 0.1  # of a reference's late tokens that are ordinary ones
PROMPTS, REFERENCES = 64, 8  # prompts, and references to each
SLOPE = 8.0  # of the Bradley-Terry labels in the true reward
SHAPE = Shape(VOCABULARY, PROMPT + STEPS, width=32)


@dataclass(frozen=True)
class WorldSize:
    """How long policy and reward model learn beforehand, and from how many pairs."""

    imitation_steps: int = 250
    pairs: int = 2000
    reward_steps: int = 500


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side; every tensor begins with them."""

    seeds: tuple[int, ...]
    policy: Decoders
    reward_model: Decoders
    groups: Bool[Tensor, "seeds late vocabulary"]
    references: Int[Tensor, "seeds prompts references steps"]
    chosen: Int[Tensor, "seeds pairs length"]
    rejected: Int[Tensor, "seeds pairs length"]
    scale: Float[Tensor, "seeds two"]  # mean and deviation of the reward model's scores on its pairs
    accuracy: Float[Tensor, " seeds"]  # of the reward model, on fresh pairs of unequal true reward

    def reward(self, answers: Int[Tensor, "nets rows steps"]) -> Float[Tensor, "nets rows"]:
        """The share of late tokens that are right up to the first that is not; nets by setting, then seed."""
        groups = self.groups.repeat(len(answers) // len(self.seeds), 1, 1)
        return run_of_right(groups, answers)

    def normal_reward(self, answers: Int[Tensor, "nets rows steps"]) -> Float[Tensor, "nets rows"]:
        """The true reward with mean 0 and deviation 1 over the pairs."""
        known = self.reward(torch.cat([self.chosen, self.rejected], 1)[:, :, PROMPT:])
        mean, deviation = (each.repeat(len(answers) // len(self.seeds)) for each in (known.mean(1), known.std(1)))
        return (self.reward(answers) - mean[:, None]) / deviation[:, None]

    def learned_reward(self, judge: Decoders, tokens: Int[Tensor, "nets rows length"]) -> Float[Tensor, "nets rows"]:
        """What the reward models `judge`, one a net, say; mean 0 and deviation 1 over the pairs they learned from."""
        mean, deviation = self.scale.repeat(len(tokens) // len(self.seeds), 1).unbind(1)
        with torch.no_grad():
            return (mean_scores_of(judge, tokens, PROMPT) - mean[:, None]) / deviation[:, None]

    def save(self, path: Path) -> None:
        """Everything of one seed as a safetensors file."""
        nets, tensors = ({name: getattr(self, name) for name in names} for names in (_NETS, _TENSORS))
        save_world(path, nets, tensors)


_NETS = ("policy", "reward_model")
_TENSORS = ("groups", "references", "chosen", "rejected", "scale", "accuracy")


def load_worlds(files: Sequence[Path], seeds: Sequence[int]) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    policy, reward_model = (found.nets(name, SHAPE) for name in _NETS)
    return World(tuple(seeds), policy, reward_model, *(found[name] for name in _TENSORS))


def run_of_right(groups: Bool[Tensor, "nets late vocabulary"], answers: Int[Tensor, "nets rows steps"]) -> Tensor:
    """The share of late tokens before the first that is not in its place's group: [nets, rows]."""
    places = torch.arange(LATE)
    right = torch.stack([of[places, late] for of, late in zip(groups, answers[:, :, FREE:], strict=True)])
    return right.long().cumprod(-1).float().mean(-1)


def prompts_of(index: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows prompt"]:
    """The two tokens of prompts 0 to 63."""
    return torch.stack([1 + index // 8, 1 + index % 8], -1)


def make_world(seed: int, size: WorldSize = WorldSize()) -> World:
    """The world of one seed."""
    draw = torch_generator(seed, "reset text")
    following = torch.randn(VOCABULARY, VOCABULARY, generator=draw).exp()
    following[:, 0] = 0.0  # nobody writes END: responses have one length
    words = torch.stack([torch.randperm(VOCABULARY - 1, generator=draw)[:GROUP] + 1 for _ in range(LATE)])
    groups = torch.zeros(LATE, VOCABULARY, dtype=torch.bool).scatter(1, words, True)
    asked = torch.randint(PROMPTS, (32 * size.imitation_steps,), generator=draw)
    texts = _texts(following, None, asked, draw).view(-1, 32, PROMPT + STEPS)
    policy = imitate(
        Decoders.fresh(SHAPE, [seed]), lambda step: texts[step][None], PROMPT, steps=size.imitation_steps, rate=5e-3
    )
    known = torch.arange(PROMPTS).repeat_interleave(REFERENCES)
    references = _texts(following, groups, known, draw)
    pool = _pool(policy, references, size.pairs + 500, draw)
    reward = run_of_right(groups[None].expand(2, -1, -1), pool[:, :, PROMPT:])
    wins = torch.rand(pool.shape[1], generator=draw) < torch.sigmoid(SLOPE * (reward[0] - reward[1]))
    chosen, rejected = (torch.where(first[:, None], pool[0], pool[1]) for first in (wins, ~wins))
    judge = _reward_model(policy, chosen[: size.pairs], rejected[: size.pairs], size.reward_steps, draw)
    with torch.no_grad():
        scores = mean_scores_of(judge, pool.flatten(0, 1)[None], PROMPT)[0].view(2, -1)
    unequal = reward[0, size.pairs :] != reward[1, size.pairs :]
    right = (scores[0] > scores[1])[size.pairs :] == (reward[0] > reward[1])[size.pairs :]
    shown = (groups, references[:, PROMPT:].view(PROMPTS, REFERENCES, STEPS), chosen[: size.pairs])
    told = (rejected[: size.pairs], torch.stack([scores.mean(), scores.std()]), right[unequal].float().mean())
    return World((seed,), policy, judge, *(value[None] for value in (*shown, *told)))


def _texts(
    following: Float[Tensor, "vocabulary vocabulary"],
    groups: Bool[Tensor, "late vocabulary"] | None,
    asked: Int[Tensor, " rows"],
    draw: torch.Generator,
) -> Int[Tensor, "rows length"]:
    """Ordinary texts, or references, whose late tokens are in their groups but for the noise."""
    prompts = prompts_of(asked)
    columns = list(prompts.unbind(1))
    for step in range(STEPS):
        weights = following[columns[-1]]
        if groups is not None and step >= FREE:
            knows = torch.rand(len(asked), 1, generator=draw) >= NOISE
            weights = torch.where(knows, weights * groups[step - FREE], weights)
        columns.append(torch.multinomial(weights, 1, generator=draw)[:, 0])
    return torch.stack(columns, 1)


def _pool(policy: Decoders, references: Tensor, pairs: int, draw: torch.Generator) -> Int[Tensor, "two pairs length"]:
    """Two responses to a prompt, each the policy's or a reference with equal chance."""
    asked = torch.randint(PROMPTS, (pairs,), generator=draw)
    sides = []
    for _ in range(2):
        known = references[asked * REFERENCES + torch.randint(REFERENCES, (pairs,), generator=draw)]
        written = policy.sample(prompts_of(asked)[None], STEPS, draw).tokens[0]
        sides.append(torch.where(torch.rand(pairs, 1, generator=draw) < 0.5, known, written))
    return torch.stack(sides)


def _reward_model(policy: Decoders, chosen: Tensor, rejected: Tensor, steps: int, draw: torch.Generator) -> Decoders:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(chosen), (32,), generator=draw)
        return chosen[rows][None], rejected[rows][None]

    return fit_scores(policy, batch, PROMPT, steps=steps, rate=5e-3, score=mean_scores_of)


@dataclass(frozen=True)
class Recipe:
    """How a policy learns from rewards, and from how many tokens of its own."""

    share: float = 0.0  # of roll-outs that begin with a reference's beginning; 0 is PPO
    true_reward: bool = False  # in place of the reward model's
    cloned: bool = False  # starts from a policy that imitated the references first
    tokens: int = 512  # the policy writes an iteration, in expectation
    iterations: int = 60
    updates: int = 2  # optimiser steps an iteration
    kl_weight: float = 0.05
    judge_every: int = 3
    looked_at: int = 96  # responses that a policy is judged by on the way
    judged: int = 384  # and at the end
    clone_steps: int = 250

    @property
    def rows(self) -> int:
        """Roll-outs an iteration: a beginning has half of a response's tokens on average."""
        return round(self.tokens / (STEPS - self.share * STEPS / 2))


@dataclass(frozen=True)
class Course:
    """What became of every net, at the start and where it was judged, from prompts without any reset."""

    at: list[int]  # iterations
    reward: Float[Tensor, "points nets"]
    learned: Float[Tensor, "points nets"]  # the reward model's score
    kl: Float[Tensor, "points nets"]  # nats a response
    written: Float[Tensor, " nets"]  # tokens that the policy wrote for learning
    ratio: Float[Tensor, "nets rows"]  # log pi / pi_SFT of the last responses judged
    ratio_reward: Float[Tensor, "nets rows"]  # and the true reward of each


def train(world: World, recipe: Recipe, rates: Sequence[float]) -> Course:
    """PPO with resets, for every seed at every learning rate."""
    learning = _Learning(world, recipe, len(rates))
    policy = learning.start.trainable()
    adam = Adam(policy, by_setting(len(policy), rates))
    for iteration in range(recipe.iterations):
        if iteration % recipe.judge_every == 0:
            learning.judge(policy, iteration, recipe.looked_at)
        written, counted = learning.rolled_out(policy, iteration)
        with torch.no_grad():
            known = learning.reference.scored(written.tokens, PROMPT)[0]
        ratio = torch.where(counted, written.logps - known, torch.zeros(()))
        score = world.normal_reward(written.answers) if recipe.true_reward else learning.said(written.tokens)
        rewards = repeated(score, written.mask) - recipe.kl_weight * ratio
        credit = ppo_credit(policy, written, rewards, counted=counted)
        for _ in range(recipe.updates):
            ppo_update(policy, adam, written, credit, value_weight=0.1, factor=1 - iteration / recipe.iterations)
    learning.judge(policy, recipe.iterations, recipe.judged)
    return learning.course()


def train_dpo(world: World, points: Sequence[tuple[float, float]], recipe: Recipe = Recipe()) -> Course:
    """DPO on the reward model's pairs, for every seed at every (beta, learning rate), as many steps as PPO takes."""
    learning = _Learning(world, recipe, len(points))
    policy = learning.start.trainable()
    adam = Adam(policy, by_setting(len(policy), [rate for _, rate in points]))
    learning.judge(policy, 0, recipe.looked_at)
    draws = [torch_generator(seed, "reset text dpo") for seed in world.seeds]
    steps = recipe.iterations * recipe.updates
    for step in range(steps):
        rows = torch.stack([torch.randint(world.chosen.shape[1], (32,), generator=draw) for draw in draws])
        wide = rows[..., None].expand(-1, -1, PROMPT + STEPS)
        sides = [side.gather(1, wide).repeat(len(points), 1, 1) for side in (world.chosen, world.rejected)]
        with torch.no_grad():
            known = [summed_logps(learning.reference, side, PROMPT) for side in sides]
        pairs = pair_logps(policy, sides[0], sides[1], PROMPT, (known[0], known[1]))
        margins = DPO(beta=1.0).margin(pairs).view(len(points), -1)
        losses = torch.cat([logistic(beta * margin) for (beta, _), margin in zip(points, margins, strict=True)])
        adam.step(losses.view(len(policy), -1).mean(1), factor=1 - step / steps)
    learning.judge(policy, recipe.iterations, recipe.judged)
    return learning.course()


class _Learning:
    """What learners share: the start, the judges of each net, resets, and the points measured on the way."""

    def __init__(self, world: World, recipe: Recipe, repeats: int) -> None:
        self.world, self.recipe, self.repeats = world, recipe, repeats
        nets = list(range(len(world.seeds))) * repeats
        self.reference, self.judges = world.policy.take(nets), world.reward_model.take(nets)
        self.start = _cloned(world, recipe.clone_steps).take(nets) if recipe.cloned else self.reference
        self._written = torch.zeros(len(nets))
        self._at: list[int] = []
        self._points: list[tuple[Tensor, ...]] = []
        self._last: tuple[Tensor, Tensor] = (torch.zeros(0), torch.zeros(0))
        self._banks = [
            ResetBank.of(((prompt, reference) for prompt, row in enumerate(of.tolist()) for reference in row), end=None)
            for of in world.references
        ]

    def said(self, tokens: Int[Tensor, "nets rows length"]) -> Float[Tensor, "nets rows"]:
        """The reward model's scores."""
        return self.world.learned_reward(self.judges, tokens)

    def rolled_out(self, policy: Decoders, iteration: int) -> tuple[Responses, Bool[Tensor, "nets rows steps"]]:
        """Responses, and which of their tokens the policy wrote."""
        asked = self._asked("roll-outs", iteration, self.recipe.rows)
        resets = [
            bank.draw(row.tolist(), share=self.recipe.share, seed=derive_seed(seed, "resets"), step=iteration)
            for bank, row, seed in zip(self._banks, asked, self.world.seeds, strict=True)
        ]
        forced = torch.zeros(len(self.world.seeds), self.recipe.rows, STEPS, dtype=torch.long)
        for place, each in enumerate(resets):
            for row, prefix in enumerate(each.prefixes):
                forced[place, row, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
        draws = [torch_generator(seed, "roll-outs", iteration) for seed in self.world.seeds]
        written = policy.sample(
            prompts_of(asked).repeat(self.repeats, 1, 1),
            STEPS,
            uniform_by_seed(draws, len(policy), STEPS, self.recipe.rows),
            forced=forced.repeat(self.repeats, 1, 1),
        )
        prefixes = [prefix for each in resets for prefix in each.prefixes] * self.repeats
        counted = torch.zeros_like(written.mask)
        counted[written.mask] = written_by_policy(prefixes, written.counts.flatten().tolist())
        self._written += counted.sum((1, 2))
        return written, counted

    @torch.no_grad()
    def judge(self, policy: Decoders, iteration: int, rows: int) -> None:
        """Fresh responses to prompts, the same uniform numbers every time."""
        prompts = prompts_of(self._asked("judged", 0, rows)).repeat(self.repeats, 1, 1)
        draws = [torch_generator(seed, "judged") for seed in self.world.seeds]
        written = policy.sample(prompts, STEPS, uniform_by_seed(draws, len(policy), STEPS, rows))
        reward = self.world.reward(written.answers)
        learned = self.said(written.tokens).mean(1)
        self._at.append(iteration)
        self._points.append((reward.mean(1), learned, kl_along(policy, self.reference, written)))
        known = summed_logps(self.reference, written.tokens, PROMPT)
        self._last = ((written.logps.sum(-1) - known), reward)

    def course(self) -> Course:
        reward, learned, kl = (torch.stack(column) for column in zip(*self._points, strict=True))
        return Course(self._at, reward, learned, kl, self._written, *self._last)

    def _asked(self, purpose: str, number: int, rows: int) -> Int[Tensor, "seeds rows"]:
        draws = [torch_generator(seed, "asked", purpose, number) for seed in self.world.seeds]
        return torch.stack([torch.randint(PROMPTS, (rows,), generator=draw) for draw in draws])


def _cloned(world: World, steps: int) -> Decoders:
    """The seeds' policies after imitating the references."""
    draws = [torch_generator(seed, "cloning") for seed in world.seeds]
    texts = world.references.flatten(1, 2)
    prompts = prompts_of(torch.arange(PROMPTS).repeat_interleave(REFERENCES)).expand(len(texts), -1, -1)
    tokens = torch.cat([prompts, texts], -1)

    def batch(step: int) -> Tensor:
        rows = torch.stack([torch.randint(tokens.shape[1], (32,), generator=draw) for draw in draws])
        return tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[-1]))

    return imitate(world.policy, batch, PROMPT, steps=steps, rate=3e-3)
