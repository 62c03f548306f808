"""PPO of small decoders whose rewards are spread over tokens by a DPO model, or lie on the last token alone.

A world is a policy that imitated text, 4096 pairs of its answers with labels, and two models learned from them: a reward
model and a DPO policy. Token rewards, credit and surrogate are the library's; true scores of tokens are read, never used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.objectives import DPO
from paperworks.language.sources.token_rewards import TokenRewardOptions, rto_rewards
from paperworks.language.testbeds.bigram_task import LETTERS, PROMPT, STEPS, BigramTask, drawn_prompts
from paperworks.language.testbeds.decoder_learning import (
    by_setting,
    kl_of,
    pair_logps,
    ppo_credit,
    ppo_update,
    summed_logps,
)
from paperworks.language.testbeds.decoders import (
    Adam,
    Decoders,
    Responses,
    Shape,
    fit_scores,
    imitate,
    mean_scores_of,
)
from paperworks.language.testbeds.world_files import Worlds, save_world

STRETCH = 4  # tokens whose rewards Semi-RTO pays together
DPO_BETA = 0.1
VALUE_WEIGHT = 0.1
LABEL_SLOPE = 2.0  # of Bradley-Terry labels on what answers are worth


@dataclass(frozen=True)
class WorldSize:
    """How many pairs there are, and how long the nets of the world learn."""

    pairs: int = 4096
    imitation_steps: int = 250
    reward_steps: int = 200
    dpo_steps: int = 200
    width: int = 32


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side."""

    size: WorldSize
    seeds: tuple[int, ...]
    reference: Decoders
    dpo: Decoders
    reward_model: Decoders
    mean: Float[Tensor, " seeds"]  # of the reward model's scores of the reference's answers
    deviation: Float[Tensor, " seeds"]

    def save(self, path: Path) -> None:
        """Everything as one safetensors file."""
        nets = {name: getattr(self, name) for name in _NETS}
        save_world(path, nets, {"mean": self.mean, "deviation": self.deviation})


_NETS = ("reference", "dpo", "reward_model")


@dataclass(frozen=True)
class Point:
    """One setting of an arm's grid."""

    rewards: TokenRewardOptions
    rate: float = 2e-3
    decay: float = 0.95  # lambda of GAE


@dataclass(frozen=True)
class Recipe:
    """What all arms share."""

    updates: int = 80
    rollouts: int = 32  # an update, which is one optimiser step
    measured: int = 512  # answers that the end is measured on


@dataclass(frozen=True)
class Standing:
    """What policies are, on fresh answers: [nets]."""

    gold: Tensor  # what their answers are really worth
    reward: Tensor  # what the reward model says of them; the reference's have mean 0 and deviation 1
    kl: Tensor  # nats an answer


@dataclass(frozen=True)
class Course:
    """What became of every net."""

    gold: Float[Tensor, "updates nets"]  # what the update's answers are really worth
    terms: Float[Tensor, " nets"]  # mean size of all token terms of an answer over that of its reward
    end: Standing


# ---------------------------------------------------------------------------------------------------------------- worlds


def make_reference(seed: int, size: WorldSize = WorldSize()) -> Decoders:
    """The policy that imitated text of random quality."""
    task, draw = BigramTask.of([seed]), torch_generator(seed, "imitation")

    def batch(step: int) -> Tensor:
        prompts = drawn_prompts([seed], 64, "imitated", step)
        return torch.cat([prompts, task.text(prompts, draw)], 2)

    return imitate(Decoders.fresh(_shape(size), [seed]), batch, PROMPT, steps=size.imitation_steps, rate=5e-3)


def make_world(seed: int, reference: Decoders, flip_rate: float, size: WorldSize = WorldSize()) -> World:
    """The world of one seed: pairs of the reference's answers, labelled, and what is learned from them."""
    task, draw = BigramTask.of([seed]), torch_generator(seed, "pairs")
    prompts = drawn_prompts([seed], size.pairs, "paired").repeat(1, 2, 1)
    written = reference.sample(prompts, STEPS, draw)
    first, second = written.tokens[0].chunk(2)
    worth = task.returns(prompts, written.answers)[0].view(2, -1)
    prefers_first = torch.rand(size.pairs, generator=draw) < (LABEL_SLOPE * (worth[0] - worth[1])).sigmoid()
    prefers_first ^= torch.rand(size.pairs, generator=draw) < flip_rate
    sides = [torch.where(which[:, None], first, second) for which in (prefers_first, ~prefers_first)]

    model = fit_scores(
        Decoders.fresh(_shape(size), [derive_seed(seed, "reward model")]),
        _batches(sides, torch_generator(seed, "reward model"), 48),
        PROMPT,
        steps=size.reward_steps,
        rate=6e-3,
        score=mean_scores_of,
    )
    dpo = _dpo(reference, _batches(sides, torch_generator(seed, "dpo"), 32), size)
    with torch.no_grad():
        scores = mean_scores_of(model, written.tokens, PROMPT)
    return World(size, (seed,), reference, dpo, model, scores.mean(1), scores.std(1))


def load_worlds(files: Sequence[Path], seeds: Sequence[int], size: WorldSize) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    reference, dpo, reward_model = (found.nets(name, _shape(size)) for name in _NETS)
    return World(size, tuple(seeds), reference, dpo, reward_model, found["mean"], found["deviation"])


def _shape(size: WorldSize) -> Shape:
    return Shape(LETTERS + 1, PROMPT + STEPS, width=size.width, heads=2)


def _batches(
    sides: Sequence[Int[Tensor, "pairs length"]], draw: torch.Generator, rows: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        picked = torch.randint(len(sides[0]), (rows,), generator=draw)
        return sides[0][picked][None], sides[1][picked][None]

    return batch


def _dpo(reference: Decoders, batches: Callable[[int], tuple[Tensor, Tensor]], size: WorldSize) -> Decoders:
    """DPO from the reference; the rate falls to 0 as a cosine."""
    objective, policy = DPO(beta=DPO_BETA), reference.trainable()
    adam = Adam(policy, 2e-3)
    for step in range(size.dpo_steps):
        chosen, rejected = batches(step)
        with torch.no_grad():
            known = (summed_logps(reference, chosen, PROMPT), summed_logps(reference, rejected, PROMPT))
        loss = objective.loss(pair_logps(policy, chosen, rejected, PROMPT, known)).view(1, -1).mean(1)
        adam.step(loss, factor=0.5 * (1 + math.cos(math.pi * step / size.dpo_steps)))
    return policy.take([0])


@dataclass(frozen=True)
class Learned:
    """What the pairs taught the two models, on fresh answers of the reference: [seeds]."""

    reward_accuracy: Tensor  # share of pairs of answers that the reward model orders rightly
    dpo_accuracy: Tensor  # that the DPO model's log-ratio of whole answers does
    credit: Tensor  # correlation of its log-ratio of a token with what the token scores
    spread: Tensor  # standard deviation of that log-ratio, nats a token


def examine(world: World, rows: int = 512) -> Learned:
    """How good the two models are: nothing of it is used in training."""
    task, prompts = BigramTask.of(world.seeds), drawn_prompts(world.seeds, rows // 2, "examined").repeat(1, 2, 1)
    written = world.reference.sample(prompts, STEPS, torch_generator("examined"))
    with torch.no_grad():
        ratio = world.dpo.scored(written.tokens, PROMPT)[0] - world.reference.scored(written.tokens, PROMPT)[0]
        rewards = mean_scores_of(world.reward_model, written.tokens, PROMPT)
    scores = task.scores(prompts, written.answers)
    worth = _apart(scores.sum(-1))
    accuracy = [((_apart(of) > 0) == (worth > 0)).float().mean(1) for of in (rewards, ratio.sum(-1))]
    pairs = zip(ratio[:, :, 1:].flatten(1), scores[:, :, 1:].flatten(1), strict=True)
    credit = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    return Learned(accuracy[0], accuracy[1], credit, ratio[:, :, 1:].flatten(1).std(1))


def _apart(values: Float[Tensor, "seeds rows"]) -> Tensor:
    """Of the two answers to each prompt, the first's less the second's."""
    first, second = values.chunk(2, 1)
    return first - second


# -------------------------------------------------------------------------------------------------------------- training


def train(world: World, points: Sequence[Point], recipe: Recipe = Recipe(), *, from_dpo: bool = False) -> Course:
    """PPO on every point's token rewards, for every seed (nets by point, then seed)."""
    seeds, repeats = world.seeds, len(points)
    nets = list(range(len(seeds))) * repeats
    reference, dpo, model = (each.take(nets) for each in (world.reference, world.dpo, world.reward_model))
    policy, task = (dpo if from_dpo else reference).trainable(), BigramTask.of(seeds)
    adam = Adam(policy, by_setting(len(nets), [point.rate for point in points]))
    decay = by_setting(len(nets), [point.decay for point in points])
    gold, sizes = [], []
    for update in range(recipe.updates):
        prompts = drawn_prompts(seeds, recipe.rollouts, "prompts", update).repeat(repeats, 1, 1)
        written = policy.sample(prompts, STEPS, torch_generator("written", update))
        gold.append(task.returns(prompts, written.answers).mean(1))
        values, size = token_rewards(world, points, written, (reference, dpo, model))
        sizes.append(size)
        credit = ppo_credit(policy, written, values, decay=decay)
        ppo_update(policy, adam, written, credit, value_weight=VALUE_WEIGHT, factor=1 - update / recipe.updates)
    end = measure(world, policy.take(range(len(nets))), recipe.measured)
    return Course(torch.stack(gold), torch.stack(sizes).mean(0), end)


def token_rewards(
    world: World, points: Sequence[Point], written: Responses, models: tuple[Decoders, Decoders, Decoders]
) -> tuple[Float[Tensor, "nets rows steps"], Float[Tensor, " nets"]]:
    """The reward of every token, and the size of an answer's token terms over that of its reward.

    The reward of an answer has mean 0 and deviation 1 among the reference's.
    """
    reference, dpo, model = models
    seeds = len(world.seeds)
    with torch.no_grad():
        known, shaped = (each.scored(written.tokens, PROMPT)[0] for each in (reference, dpo))
        scores = mean_scores_of(model, written.tokens, PROMPT)
    repeats = len(points)
    reward = (scores - world.mean.repeat(repeats)[:, None]) / world.deviation.repeat(repeats)[:, None]
    out, sizes = torch.zeros_like(known), []
    for at, point in enumerate(points):
        of = slice(at * seeds, (at + 1) * seeds)
        mask = written.mask[of]
        response = torch.arange(mask[..., 0].numel()).view(*mask.shape[:2], 1).expand_as(mask)[mask]
        place = torch.arange(STEPS).expand_as(mask)[mask] % STRETCH
        found = rto_rewards(
            shaped[of][mask], known[of][mask], written.logps[of][mask], reward[of].flatten(), response,
            point.rewards, token_ids=place,
        )  # fmt: skip
        out[of] = out[of].masked_scatter(mask, found.values)
        terms = torch.zeros_like(known[of]).masked_scatter(mask, found.terms)
        sizes.append(terms.abs().sum(-1).mean(1) / reward[of].abs().mean(1))
    return out, torch.cat(sizes)


def measure(world: World, policy: Decoders, answers: int) -> Standing:
    """How policies stand; nets by point, then seed."""
    repeats = len(policy) // len(world.seeds)
    nets = list(range(len(world.seeds))) * repeats
    prompts = drawn_prompts(world.seeds, answers, "measured").repeat(repeats, 1, 1)
    kl, written = kl_of(policy, world.reference.take(nets), prompts, STEPS, torch_generator("measured"))
    with torch.no_grad():
        scores = mean_scores_of(world.reward_model.take(nets), written.tokens, PROMPT).mean(1)
    reward = (scores - world.mean.repeat(repeats)) / world.deviation.repeat(repeats)
    return Standing(BigramTask.of(world.seeds).returns(prompts, written.answers).mean(1), reward, kl)
