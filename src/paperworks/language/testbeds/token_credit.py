"""PPO with and without token rewards on answers whose worth is a sum over tokens: small decoders, several seeds as one.

A world is what exists before reinforcement learning: a policy that imitated demonstrations, and for each share of wrong
labels a DPO model and a reward model learned from the same pairs of the policy's own answers. Runs start from either model
and differ in how reward is paid (`sources.token_rewards`); the gold reward is measured and never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.dpo import DPO
from paperworks.language.sources.token_rewards import TokenRewardOptions, rto_rewards
from paperworks.language.testbeds import local_scores
from paperworks.language.testbeds.decoder_learning import kl_of, pair_logps, ppo_credit, ppo_update, summed_logps
from paperworks.language.testbeds.decoders import (
    Adam,
    Decoders,
    Responses,
    Shape,
    fit_scores,
    imitate,
    mean_scores_of,
)
from paperworks.language.testbeds.local_scores import PROMPT, STEPS, VOCABULARY

NOISES = (0.0, 0.2)  # shares of wrong labels
POLICY = Shape(VOCABULARY, PROMPT + STEPS, width=32)
REWARD_MODEL = Shape(VOCABULARY, PROMPT + STEPS, width=32, layers=1)


@dataclass(frozen=True)
class WorldSize:
    """How much there is to learn from before reinforcement learning, and for how long."""

    pairs: int = 4096
    imitation_steps: int = 250  # of 32 fresh demonstrations
    dpo_steps: int = 128  # of 32 pairs
    reward_steps: int = 384  # of 64 pairs
    held_out: int = 256  # prompts that judge


@dataclass(frozen=True)
class World:
    """Seeds side by side, at one share of wrong labels."""

    seeds: tuple[int, ...]
    policy: Decoders  # SFT, the reference of everything
    dpo: Decoders
    reward_model: Decoders
    mean: Float[Tensor, " seeds"]  # of the reward model's numbers on the policy's answers, and their deviation
    deviation: Float[Tensor, " seeds"]
    accuracy: Float[Tensor, " seeds"]  # of the reward model: fresh pairs ordered as the gold reward orders them
    held_out: Int[Tensor, "seeds rows prompt"]

    def reward(self, tokens: Int[Tensor, "nets rows length"]) -> Float[Tensor, "nets rows"]:
        """The reward model's number, mean 0 and variance 1 on the start's answers; nets by recipe, then seed."""
        repeats = len(tokens) // len(self.seeds)
        nets = self.reward_model.take(list(range(len(self.seeds))) * repeats)
        mean, deviation = (each.repeat(repeats)[:, None] for each in (self.mean, self.deviation))
        with torch.no_grad():
            return (mean_scores_of(nets, tokens, PROMPT) - mean) / deviation


@dataclass(frozen=True)
class Recipe:
    """How a run learns: how reward is paid to tokens, PPO's rate and lambda, and where it starts."""

    rewards: TokenRewardOptions
    learning_rate: float = 1e-3
    decay: float = 0.95
    start: Literal["sft", "dpo"] = "sft"


@dataclass(frozen=True)
class Course:
    """What became of every net; the gold reward of an iteration is that of its roll-outs, before they were learned from."""

    gold_by_iteration: Float[Tensor, "iterations nets"]
    gold: Float[Tensor, " nets"]  # of the last policy on held-out prompts
    reward: Float[Tensor, " nets"]  # what the reward model says of those answers
    kl: Float[Tensor, " nets"]  # to the SFT policy, nats an answer
    terms_size: Float[Tensor, " nets"]  # sizes of an answer's token terms, summed; mean over training


def make_world(seed: int, path: Path, size: WorldSize = WorldSize()) -> None:
    """Train the models of one seed and save them as a safetensors file."""

    def demonstrated(step: int) -> Tensor:
        draw = torch_generator(seed, "demonstrations", step)
        return local_scores.demonstrations(local_scores.draw_prompts(32, draw), draw)[None]

    policy = imitate(Decoders.fresh(POLICY, [seed]), demonstrated, PROMPT, steps=size.imitation_steps, rate=1e-2)
    draw = torch_generator(seed, "pairs")
    first, second = _couples(policy, size.pairs, draw)
    labelled = [
        local_scores.preferred(first[0], second[0], torch_generator(seed, "labels"), noise=noise) for noise in NOISES
    ]
    chosen, rejected = (torch.stack([pair[side] for pair in labelled]) for side in (0, 1))
    dpo = _fit_dpo(policy, chosen, rejected, size, seed)
    reward_model = fit_scores(
        Decoders.fresh(REWARD_MODEL, [seed] * len(NOISES)),
        lambda step: (
            chosen[:, rows := _rows(seed, "reward model", step, 64, size.pairs)],
            rejected[:, rows],
        ),
        PROMPT,
        steps=size.reward_steps,
        rate=1e-2,
        score=mean_scores_of,
    )
    fresh = [each.expand(len(NOISES), -1, -1) for each in _couples(policy, 512, torch_generator(seed, "fresh pairs"))]
    with torch.no_grad():
        said = [mean_scores_of(reward_model, each, PROMPT) for each in fresh]
    differ = (local_scores.gold_reward(fresh[0]) - local_scores.gold_reward(fresh[1])).sign()
    right = ((said[0] - said[1]).sign() == differ) & (differ != 0)
    tensors = {
        "mean": torch.cat(said, 1).mean(1),
        "deviation": torch.cat(said, 1).std(1),
        "accuracy": right.sum(1) / (differ != 0).sum(1),
        "held_out": local_scores.draw_prompts(size.held_out, torch_generator(seed, "held out"))[None],
    }
    for name, nets in (("policy", policy), ("dpo", dpo), ("reward_model", reward_model)):
        tensors |= {f"{name}/{key}": value for key, value in nets.parameters.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load_worlds(files: Sequence[Path], seeds: Sequence[int], noise: float) -> World:
    """Saved worlds side by side, with the models of one share of wrong labels."""
    found = [load_file(file) for file in files]
    at = NOISES.index(noise)

    def nets(name: str, shape: Shape) -> Decoders:
        keys = [key for key in found[0] if key.startswith(f"{name}/")]
        place = slice(None) if name == "policy" else slice(at, at + 1)
        return Decoders(shape, {key.split("/")[1]: torch.cat([each[key][place] for each in found]) for key in keys})

    return World(
        tuple(seeds),
        nets("policy", POLICY),
        nets("dpo", POLICY),
        nets("reward_model", REWARD_MODEL),
        *(torch.stack([each[name][at] for each in found]) for name in ("mean", "deviation", "accuracy")),
        torch.cat([each["held_out"] for each in found]),
    )


def train(world: World, recipes: Sequence[Recipe], *, iterations: int, rows: int = 32, updates: int = 2) -> Course:
    """PPO for every seed by every recipe (nets by recipe, then seed), `rows` answers an iteration."""
    seeds = len(world.seeds)
    every = list(range(seeds)) * len(recipes)
    reference, dpo = world.policy.take(every), world.dpo.take(every)
    policy = _starts(world, recipes).trainable()
    adam = Adam(policy, _by_recipe([recipe.learning_rate for recipe in recipes], seeds))
    decay = _by_recipe([recipe.decay for recipe in recipes], seeds)
    needs_terms = any(recipe.rewards.beta1 > 0 for recipe in recipes)
    gold, sizes = [], []
    for iteration in range(iterations):
        prompts = torch.stack(
            [local_scores.draw_prompts(rows, torch_generator(seed, "prompts", iteration)) for seed in world.seeds]
        ).repeat(len(recipes), 1, 1)
        written = policy.sample(prompts, STEPS, torch_generator("written", iteration))
        gold.append(local_scores.gold_reward(written.tokens).mean(1))
        with torch.no_grad():
            under_reference = reference.scored(written.tokens, PROMPT)[0]
            under_dpo = dpo.scored(written.tokens, PROMPT)[0] if needs_terms else under_reference
        reward = world.reward(written.tokens)
        paid, size = token_rewards(written, under_dpo, under_reference, reward, [each.rewards for each in recipes])
        sizes.append(size)
        credit = ppo_credit(policy, written, paid, decay=decay)
        for _ in range(updates):
            ppo_update(policy, adam, written, credit)
    judged = _judged(world, policy)
    return Course(torch.stack(gold), *judged, torch.stack(sizes).mean(0))


def token_rewards(
    written: Responses,
    dpo: Float[Tensor, "nets rows steps"],
    reference: Float[Tensor, "nets rows steps"],
    reward: Float[Tensor, "nets rows"],
    options: Sequence[TokenRewardOptions],
) -> tuple[Float[Tensor, "nets rows steps"], Float[Tensor, " nets"]]:
    """Every token's reward, and the mean summed size of an answer's token terms; nets in as many equal parts as options.

    Where an option's granularity is "delimiter", the delimiters are places: 3 ends every fourth token of an answer.
    """
    out, sizes = torch.zeros_like(reference), []
    place = torch.arange(STEPS) % 4
    each = len(reward) // len(options)
    for number, chosen in enumerate(options):
        part = slice(number * each, (number + 1) * each)
        mask = written.mask[part]
        rows = torch.arange(mask.shape[0] * mask.shape[1]).view(*mask.shape[:2], 1).expand_as(mask)
        found = rto_rewards(
            dpo[part][mask],
            reference[part][mask],
            written.logps[part][mask],
            reward[part].flatten(),
            rows[mask],
            chosen,
            token_ids=place.expand_as(mask)[mask],
        )
        out[part] = out[part].masked_scatter(mask, found.values)
        sizes.append(torch.zeros(mask.shape).masked_scatter(mask, found.terms.abs()).sum(-1).mean(1))
    return out, torch.cat(sizes)


def judge(world: World, start: Literal["sft", "dpo"]) -> tuple[Tensor, Tensor, Tensor]:
    """(gold reward, reward, KL to SFT) of a model before reinforcement learning, a number a seed."""
    return _judged(world, world.dpo if start == "dpo" else world.policy)


def correlation_with_scores(world: World, options: TokenRewardOptions) -> Float[Tensor, " seeds"]:
    """Of token rewards with the true token scores, on answers of the start to held-out prompts (where KL terms are 0)."""
    written = world.policy.sample(world.held_out, STEPS, torch_generator("correlation"))
    with torch.no_grad():
        reference, dpo = (nets.scored(written.tokens, PROMPT)[0] for nets in (world.policy, world.dpo))
    options = replace(options, beta2=0.0)
    paid, _ = token_rewards(written, dpo, reference, world.reward(written.tokens), [options])
    true = local_scores.token_scores(written.tokens)
    return torch.stack(
        [
            torch.corrcoef(torch.stack([ours[mask], theirs[mask]]))[0, 1]
            for ours, theirs, mask in zip(paid, true, written.mask, strict=True)
        ]
    )


def _judged(world: World, policy: Decoders) -> tuple[Tensor, Tensor, Tensor]:
    repeats = len(policy) // len(world.seeds)
    reference = world.policy.take(list(range(len(world.seeds))) * repeats)
    kl, written = kl_of(policy, reference, world.held_out.repeat(repeats, 1, 1), STEPS, torch_generator("judged"))
    return local_scores.gold_reward(written.tokens).mean(1), world.reward(written.tokens).mean(1), kl


def _starts(world: World, recipes: Sequence[Recipe]) -> Decoders:
    parts = [(world.dpo if recipe.start == "dpo" else world.policy).parameters for recipe in recipes]
    return Decoders(POLICY, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _by_recipe(values: Sequence[float], seeds: int) -> Float[Tensor, " nets"]:
    return torch.tensor(values).repeat_interleave(seeds)


def _couples(policy: Decoders, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two answers of the policy to each of `count` prompts."""
    prompts = local_scores.draw_prompts(count, draw)[None]
    return policy.sample(prompts, STEPS, draw).tokens, policy.sample(prompts, STEPS, draw).tokens


def _fit_dpo(policy: Decoders, chosen: Tensor, rejected: Tensor, size: WorldSize, seed: int) -> Decoders:
    """DPO at its usual beta, one model for each stack of pairs."""
    objective = DPO(beta=0.1)
    start = policy.take([0] * len(chosen))
    trained = start.trainable()
    adam = Adam(trained, 3e-3)
    with torch.no_grad():
        known = [summed_logps(start, side, PROMPT) for side in (chosen, rejected)]
    for step in range(size.dpo_steps):
        rows = _rows(seed, "dpo", step, 32, size.pairs)
        pairs = pair_logps(trained, chosen[:, rows], rejected[:, rows], PROMPT, (known[0][:, rows], known[1][:, rows]))
        factor = 0.5 * (1 + math.cos(math.pi * step / size.dpo_steps))
        adam.step(objective.loss(pairs).view(len(chosen), -1).mean(1), factor=factor)
    return trained.take(range(len(chosen)))


def _rows(seed: int, what: str, step: int, count: int, total: int) -> Int[Tensor, " count"]:
    """The rows of a step, every row once an epoch."""
    steps = total // count
    order = torch.randperm(total, generator=torch_generator(seed, what, step // steps))
    return order[step % steps * count :][:count]
