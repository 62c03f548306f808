"""A tiny language model's world where reward waits behind a beginning that the reference almost never writes.

A prompt is one token, a response six. Ordinary text earns up to 0.5 by its later tokens; two certain tokens at its very
beginning, about one in a thousand of the reference's responses, add 0.5. Each round asks for preferences on fresh pairs and
fits the policy to all pairs so far. Learners (grid points) and seeds are nets of one batch, by learner, then seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import ResponseLogps
from paperworks.language.objectives.xpo import XPO, ExploredPairs
from paperworks.language.testbeds.decoder_learning import kl_along, uniform_by_seed
from paperworks.language.testbeds.decoders import END, Adam, Decoders, Shape, imitate
from paperworks.language.testbeds.world_files import Worlds, save_world

VOCABULARY, STEPS = 20, 6  # tokens, END among them, which nobody writes; tokens of a response
PROMPTS = 4  # prompts are tokens 1 to 4
SHAPE = Shape(VOCABULARY, 1 + STEPS, width=32)
BONUS, MOST_ORDINARY = 0.5, 0.5
SLOPE = 8.0  # of the Bradley-Terry labels in the reward
BETA = 0.03  # price of a nat, in rewards
FADES = (1.0, 1.0, 0.5, 0.5, 0.0, 0.0)  # of the exploring weights, a round: the recipe's alpha, alpha / 2, 0


@dataclass(frozen=True)
class Learner:
    """How a learner explores, and how strongly it is pulled to the reference. Weights 0: online DPO."""

    alpha: float = 0.0  # optimism: XPO's weight on log pi of the reference's response, in the first rounds
    entropy: float = 0.0  # weight of the policy's entropy along its own responses, in the first rounds
    beta: float = BETA


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side."""

    seeds: tuple[int, ...]
    reference: Decoders
    prefix: Int[Tensor, "seeds two"]
    good: Bool[Tensor, "seeds vocabulary"]  # tokens that earn something behind the prefix's place

    def has_prefix(self, answers: Int[Tensor, "nets rows steps"]) -> Bool[Tensor, "nets rows"]:
        """Whether responses begin with the prefix; nets by learner, then seed."""
        wanted = self.prefix.repeat(len(answers) // len(self.seeds), 1)
        return (answers[:, :, :2] == wanted[:, None]).all(-1)

    def reward(self, answers: Int[Tensor, "nets rows steps"]) -> Float[Tensor, "nets rows"]:
        """0.5 for the prefix, and 0.5 times the share of good tokens behind the first two."""
        good = self.good.repeat(len(answers) // len(self.seeds), 1).float()
        later = answers[:, :, 2:]
        share = good.gather(1, later.flatten(1)).view(later.shape).mean(-1)
        return MOST_ORDINARY * share + BONUS * self.has_prefix(answers)

    @torch.no_grad()
    def prefix_rate(self, policy: Decoders) -> Float[Tensor, " nets"]:
        """The exact probability of the prefix, the mean over prompts."""
        prefix = self.prefix.repeat(len(policy) // len(self.seeds), 1)
        prompts = torch.arange(1, PROMPTS + 1).expand(len(policy), -1)
        tokens = torch.cat([prompts[..., None], prefix[:, None].expand(-1, PROMPTS, -1)], -1)
        return policy.scored(tokens, 1)[0].sum(-1).exp().mean(-1)

    def save(self, path: Path) -> None:
        """One seed's world as a safetensors file."""
        save_world(path, {"reference": self.reference}, {"prefix": self.prefix, "good": self.good})


def load_worlds(files: Sequence[Path], seeds: Sequence[int]) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    return World(tuple(seeds), found.nets("reference", SHAPE), found["prefix"], found["good"])


def make_world(seed: int, first: float, second: float, *, steps: int = 300) -> World:
    """The world of one seed: a reference that imitated `steps` batches of a Markov chain's texts.

    In them the prefix's first token opens a text with probability `first`, its second follows with probability `second`.
    """
    draw = torch_generator(seed, "rare prefix")
    words = torch.randperm(VOCABULARY - 1, generator=draw) + 1
    prefix, good = words[:2], torch.zeros(VOCABULARY, dtype=torch.bool)
    good[words[2::3]] = True
    initial, following = torch.randn(2, VOCABULARY, VOCABULARY, generator=draw).exp()
    initial = _with_share(initial, slice(None), int(prefix[0]), first)
    following = _with_share(following, slice(int(prefix[0]), int(prefix[0]) + 1), int(prefix[1]), second)
    prompts = torch.randint(1, PROMPTS + 1, (64 * steps, 1), generator=draw)
    texts = [prompts, torch.multinomial(initial[prompts[:, 0]], 1, generator=draw)]
    for _ in range(STEPS - 1):
        texts.append(torch.multinomial(following[texts[-1][:, 0]], 1, generator=draw))
    tokens = torch.cat(texts, 1).view(-1, 64, 1 + STEPS)
    reference = imitate(Decoders.fresh(SHAPE, [seed]), lambda step: tokens[step][None], 1, steps=steps, rate=5e-3)
    return World((seed,), reference, prefix[None], good[None])


def _with_share(weights: Float[Tensor, "rows words"], rows: slice, word: int, share: float) -> Tensor:
    """Each row as probabilities without END; in `rows`, `word` has the probability `share`."""
    table = weights.clone()
    table[:, END] = 0.0
    table[rows, word] = 0.0
    table = table / table.sum(1, keepdim=True)
    table[rows] *= 1 - share
    table[rows, word] = share
    return table


@dataclass(frozen=True)
class Course:
    """What became of every learner, from the start (round 0) to the last round."""

    rate: Float[Tensor, "rounds learners seeds"]  # exact probability of the prefix
    reward: Float[Tensor, "rounds learners seeds"]  # mean over fresh responses
    kl: Float[Tensor, "rounds learners seeds"]  # nats a response
    queried: Float[Tensor, "rounds learners seeds"]  # queries so far of which a response had the prefix
    logp_explored: Float[Tensor, "rounds learners seeds"]  # mean log pi of all of the reference's responses so far


@dataclass(frozen=True)
class Effort:
    """How much is asked and how long is learned."""

    rounds: int = 6
    pairs: int = 128  # queries a round
    steps: int = 60  # optimiser steps a round, of `batch` pairs of all so far
    batch: int = 32
    rate: float = 1e-3
    measured: int = 512  # responses that a round's policy is judged by


def run(world: World, learners: Sequence[Learner], effort: Effort = Effort()) -> Course:
    """Every learner in every seed's world; all see the same prompts, uniform numbers and minibatches."""
    policy = world.reference.take(list(range(len(world.seeds))) * len(learners)).trainable()
    adam = Adam(policy, effort.rate)
    queries = _Queries(world, learners, effort)
    alpha, entropy = (
        torch.tensor([getattr(each, name) for each in learners]).repeat_interleave(len(world.seeds))
        for name in ("alpha", "entropy")
    )
    records = [queries.judged(policy, 0)]
    for number in range(effort.rounds):
        queries.ask(policy, number)
        fade = FADES[number * len(FADES) // effort.rounds]
        for _ in range(effort.steps):
            dpo, optimism, spread = queries.losses(policy)
            adam.step(dpo + fade * (alpha * optimism - entropy * spread))
        records.append(queries.judged(policy, number + 1))
    shape = (len(learners), len(world.seeds))
    return Course(*(torch.stack(column).view(-1, *shape) for column in zip(*records, strict=True)))


class _Queries:
    """The pairs asked for so far, of all learners and seeds."""

    def __init__(self, world: World, learners: Sequence[Learner], effort: Effort) -> None:
        self.world, self.learners, self.effort = world, learners, effort
        self.reference = world.reference.take(list(range(len(world.seeds))) * len(learners))
        self._batches = self._generators("minibatches", 0)
        self._own: list[Tensor] = []  # the policy's and the reference's responses, a round each, and what was preferred
        self._other: list[Tensor] = []
        self._own_wins: list[Tensor] = []

    def ask(self, policy: Decoders, number: int) -> None:
        """A round's pairs: one response of the policy, one of the reference, and the label."""
        prompts = self._prompts("asked", number, self.effort.pairs)
        own, other = (
            nets.sample(prompts, STEPS, self._uniform(who, number, self.effort.pairs)).tokens
            for nets, who in ((policy, "own"), (self.reference, "other"))
        )
        margin = SLOPE * (self.world.reward(own[:, :, 1:]) - self.world.reward(other[:, :, 1:]))
        draws = [torch.rand(self.effort.pairs, generator=draw) for draw in self._generators("label", number)]
        label = torch.stack(draws).repeat(len(self.learners), 1)
        self._own.append(own)
        self._other.append(other)
        self._own_wins.append(label < torch.sigmoid(margin))

    def losses(self, policy: Decoders) -> tuple[Tensor, Tensor, Tensor]:
        """DPO's loss, mean log pi of the reference's responses, and mean entropy along the policy's, of a minibatch."""
        own, other, own_wins = (torch.cat(parts, 1) for parts in (self._own, self._other, self._own_wins))
        rows = torch.stack([torch.randint(own.shape[1], (self.effort.batch,), generator=g) for g in self._batches])
        rows = rows.repeat(len(self.learners), 1)
        wide = rows[..., None].expand(-1, -1, own.shape[-1])
        tokens = torch.cat([own.gather(1, wide), other.gather(1, wide)], 1)
        table = policy.logits(policy.states(tokens[:, :, :-1])).log_softmax(-1)
        logps = table.gather(-1, tokens[:, :, 1:, None]).squeeze(-1).sum(-1)
        with torch.no_grad():
            known = self.reference.scored(tokens, 1)[0].sum(-1)
        entropy = -(table.exp() * table)[:, : self.effort.batch].sum((-1, -2)).mean(1)
        terms = self._terms(logps, known, own_wins.gather(1, rows))
        return terms["dpo"], terms["optimism"], entropy

    def _terms(self, logps: Tensor, known: Tensor, own_wins: Bool[Tensor, "nets rows"]) -> dict[str, Tensor]:
        """XPO's terms at alpha 1, a mean each net; `logps` are those of own and other responses, [nets, 2 rows]."""
        seeds, found = len(self.world.seeds), []
        for place, learner in enumerate(self.learners):
            nets = slice(place * seeds, (place + 1) * seeds)
            won = own_wins[nets]
            own, other = ((of[nets, : self.effort.batch], of[nets, self.effort.batch :]) for of in (logps, known))
            sides = [
                [torch.where(won if chosen else ~won, mine, its).flatten() for mine, its in (own, other)]
                for chosen in (True, False)
            ]
            ones = torch.ones_like(sides[0][0])
            chosen, rejected = (ResponseLogps(policy, STEPS * ones, reference) for policy, reference in sides)
            batch = ExploredPairs(chosen, rejected, ones, explored=(~won).flatten().float())
            terms = XPO(beta=learner.beta * SLOPE, alpha=1.0).terms(batch)  # the weight is each learner's own
            found.append({name: value.view(seeds, -1).mean(1) for name, value in terms.items()})
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    @torch.no_grad()
    def judged(self, policy: Decoders, number: int) -> tuple[Tensor, ...]:
        """rate, reward, kl, queried and logp_explored now; all rounds are judged with the same uniform numbers."""
        prompts = self._prompts("judged", 0, self.effort.measured)
        written = policy.sample(prompts, STEPS, self._uniform("judged", 0, self.effort.measured))
        none = torch.zeros(len(policy))
        queried, explored = none, none + torch.nan
        for own, other in zip(self._own, self._other, strict=True):
            queried = queried + (self.world.has_prefix(own[..., 1:]) | self.world.has_prefix(other[..., 1:])).sum(1)
        if self._other:
            explored = policy.scored(torch.cat(self._other, 1), 1)[0].sum(-1).mean(1)
        reward = self.world.reward(written.answers).mean(1)
        rate = self.world.prefix_rate(policy)
        return rate, reward, kl_along(policy, self.reference, written), queried, explored

    def _prompts(self, purpose: str, number: int, rows: int) -> Int[Tensor, "nets rows 1"]:
        draws = [
            torch.randint(1, PROMPTS + 1, (rows, 1), generator=draw)
            for draw in self._generators(f"prompts {purpose}", number)
        ]
        return torch.stack(draws).repeat(len(self.learners), 1, 1)

    def _uniform(self, purpose: str, number: int, rows: int) -> Float[Tensor, "nets steps rows"]:
        return uniform_by_seed(self._generators(purpose, number), len(self.reference), STEPS, rows)

    def _generators(self, purpose: str, number: int) -> list[torch.Generator]:
        return [torch_generator(seed, "rare prefix", purpose, number) for seed in self.world.seeds]
