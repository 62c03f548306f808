"""Tiny language models whose preference pairs cover one of four styles: where DPO drifts to text it has no data on.

As RPO's world of reviews (`reviews.py`), with tokens for words: a response is opinions joined by connectors of one style,
then END. The start has imitated all styles; pairs are of the plain style alone, labelled by sentiment. The true reward is
the sentiment, less 1 where a response is not in the plain style. Nets are by grid point, then seed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.hypo import HybridLogps, HyPO
from paperworks.language.objectives.objective import PairObjective, ResponseLogps
from paperworks.language.testbeds.decoder_learning import by_setting, kl_along, summed_logps, uniform_by_seed
from paperworks.language.testbeds.decoders import END, Adam, Decoders, Responses, Shape, imitate, response_mask
from paperworks.language.testbeds.independent import losses_of_problems
from paperworks.language.testbeds.world_files import Worlds, save_world

GOOD, BAD, NEUTRAL = range(1, 5), range(5, 9), range(9, 11)
STYLES, CONNECTORS = 4, 3  # styles, and connectors of each; style 0 is the plain one
FIRST_CONNECTOR = 11
FIRST_PROMPT, PROMPTS = FIRST_CONNECTOR + STYLES * CONNECTORS, 8
FEWEST, MOST = 2, 4  # opinions in a response
STEPS = 2 * MOST + 1  # a response may be longer than any written one by one token
SHAPE = Shape(FIRST_PROMPT + PROMPTS, 1 + STEPS, width=32)
SLOPE = 4.0  # of the Bradley-Terry labels in the sentiment
PAIRS = 800


@dataclass(frozen=True)
class World:
    """Worlds of several seeds side by side."""

    seeds: tuple[int, ...]
    start: Decoders
    chosen: Int[Tensor, "seeds pairs length"]
    rejected: Int[Tensor, "seeds pairs length"]

    def save(self, path: Path) -> None:
        """One seed's world as a safetensors file."""
        save_world(path, {"start": self.start}, {"chosen": self.chosen, "rejected": self.rejected})


def load_worlds(files: Sequence[Path], seeds: Sequence[int]) -> World:
    """Saved worlds side by side."""
    found = Worlds.load(files)
    return World(tuple(seeds), found.nets("start", SHAPE), found["chosen"], found["rejected"])


def make_world(seed: int, *, steps: int = 300, pairs: int = PAIRS) -> World:
    """The world of one seed: a start that imitated `steps` batches of 32, and pairs of the plain style."""
    draw = torch_generator(seed, "style texts")
    style = torch.randint(STYLES, (32 * steps,), generator=draw)
    texts = _texts(style, _prompts(len(style), draw), draw).view(steps, 32, -1)
    start = imitate(Decoders.fresh(SHAPE, [seed]), lambda step: texts[step][None], 1, steps=steps, rate=5e-3)
    prompts, plain = _prompts(pairs, draw), torch.zeros(pairs, dtype=torch.long)
    first, second = _texts(plain, prompts, draw), _texts(plain, prompts, draw)
    margin = SLOPE * (sentiment(first[:, 1:]) - sentiment(second[:, 1:]))
    wins = (torch.rand(pairs, generator=draw) < torch.sigmoid(margin))[:, None]
    return World((seed,), start, torch.where(wins, first, second)[None], torch.where(wins, second, first)[None])


def _prompts(rows: int, draw: torch.Generator) -> Int[Tensor, "rows 1"]:
    return torch.randint(FIRST_PROMPT, FIRST_PROMPT + PROMPTS, (rows, 1), generator=draw)


def _texts(style: Int[Tensor, " rows"], prompts: Int[Tensor, "rows 1"], draw: torch.Generator) -> Tensor:
    """Responses of the styles, each with a leaning of its own from all bad to all good: [rows, length]."""
    rows = len(style)
    leaning = torch.rand(rows, 1, generator=draw)
    is_good = torch.rand(rows, MOST, generator=draw) < leaning
    is_neutral = torch.rand(rows, MOST, generator=draw) < 0.15
    which = torch.randint(4, (rows, MOST), generator=draw)
    opinions = torch.where(is_good, GOOD[0] + which, BAD[0] + which)
    opinions = torch.where(is_neutral, NEUTRAL[0] + which % 2, opinions)
    connectors = torch.randint(CONNECTORS, (rows, MOST), generator=draw) + FIRST_CONNECTOR + CONNECTORS * style[:, None]
    count = torch.randint(FEWEST, MOST + 1, (rows, 1), generator=draw)
    words = torch.stack([opinions, connectors], -1).flatten(1)
    words = torch.where(torch.arange(2 * MOST) < 2 * count - 1, words, END)
    return torch.cat([prompts, words, torch.full((rows, 1), END)], 1)


def sentiment(answers: Int[Tensor, "*rows steps"]) -> Float[Tensor, "*rows"]:
    """Good minus bad opinions, over all opinions; 0 where there are none."""
    good, bad = _is_in(answers, GOOD).sum(-1), _is_in(answers, BAD).sum(-1)
    return (good - bad) / (good + bad + _is_in(answers, NEUTRAL).sum(-1)).clamp(min=1)


def is_plain(answers: Int[Tensor, "*rows steps"]) -> Bool[Tensor, "*rows"]:
    """Whether a response has opinions in odd places, plain connectors in even ones, 2 to 4 opinions, and an end."""
    inside = response_mask(answers) & (answers != END)
    count = inside.sum(-1)
    is_opinion = (answers >= GOOD[0]) & (answers <= NEUTRAL[-1])
    is_connector = (answers >= FIRST_CONNECTOR) & (answers < FIRST_CONNECTOR + CONNECTORS)
    fits = torch.where(torch.arange(answers.shape[-1]) % 2 == 0, is_opinion, is_connector)
    is_length = (count % 2 == 1) & (count >= 2 * FEWEST - 1) & (count <= 2 * MOST - 1)
    return (fits | ~inside).all(-1) & is_length


def reward(answers: Int[Tensor, "*rows steps"]) -> Float[Tensor, "*rows"]:
    """The sentiment, less 1 where the response is not in the plain style."""
    return sentiment(answers) - (~is_plain(answers)).float()


def _is_in(answers: Tensor, words: range) -> Bool[Tensor, "*rows steps"]:
    return (answers >= words[0]) & (answers <= words[-1])


@dataclass(frozen=True)
class Effort:
    """How long is learned, and how it is looked at."""

    steps: int = 400
    batch: int = 16  # pairs
    records: int = 10  # times that a policy is looked at, the end among them
    measured: int = 256  # responses that it is judged by


@dataclass(frozen=True)
class Course:
    """What became of every point and seed, from the start (record 0) to the end."""

    at: list[int]  # steps
    reward: Float[Tensor, "records points seeds"]
    outside: Float[Tensor, "records points seeds"]  # share of responses that are not in the plain style
    kl: Float[Tensor, "records points seeds"]  # nats a response
    logp_chosen: Float[Tensor, "records points seeds"]  # mean log pi of the chosen responses
    drawn: Float[Tensor, "points seeds"]  # tokens sampled to learn from
    seconds: float  # of a step of one net, the measuring left out


def train(
    world: World, points: Sequence[tuple[PairObjective, float]], effort: Effort = Effort(), *, samples: int = 2
) -> Course:
    """Every (objective, learning rate) in every seed's world; HyPO draws `samples` responses to each pair's prompt."""
    learning = _Learning(world, [objective for objective, _ in points], effort, samples)
    policy = learning.reference.trainable()
    adam = Adam(policy, by_setting(len(policy), [rate for _, rate in points]))
    looked = [round(effort.steps * place / effort.records) for place in range(effort.records + 1)]
    records, seconds = [learning.judged(policy)], 0.0
    for step in range(effort.steps):
        began = time.perf_counter()
        adam.step(learning.losses(policy, step))
        seconds += time.perf_counter() - began
        if step + 1 in looked:
            records.append(learning.judged(policy))
    shape = (len(points), len(world.seeds))
    earned, outside, kl, logp_chosen = (torch.stack(column).view(-1, *shape) for column in zip(*records, strict=True))
    of_step = seconds / (effort.steps * len(policy))
    return Course(looked, earned, outside, kl, logp_chosen, learning.drawn.view(shape), of_step)


class _Learning:
    """The losses of all points and seeds, on the same pairs and uniform numbers for all points of a seed."""

    def __init__(self, world: World, objectives: Sequence[PairObjective], effort: Effort, samples: int) -> None:
        self.world, self.objectives, self.effort, self.samples = world, objectives, effort, samples
        self.reference = world.start.take(list(range(len(world.seeds))) * len(objectives))
        self.drawn = torch.zeros(len(self.reference))
        self._batches = [torch_generator(seed, "style texts minibatches") for seed in world.seeds]
        with torch.no_grad():
            self._known = [summed_logps(world.start, side, 1) for side in (world.chosen, world.rejected)]

    def losses(self, policy: Decoders, step: int) -> Float[Tensor, " nets"]:
        """The loss of a minibatch."""
        rows = torch.stack(
            [torch.randint(self.world.chosen.shape[1], (self.effort.batch,), generator=g) for g in self._batches]
        )
        points = len(self.objectives)
        wide = rows[..., None].expand(-1, -1, self.world.chosen.shape[-1])
        sides = [side.gather(1, wide) for side in (self.world.chosen, self.world.rejected)]
        tokens = torch.cat(sides, 1).repeat(points, 1, 1)
        known = torch.cat([known.gather(1, rows) for known in self._known], 1).repeat(points, 1)
        if any(isinstance(each, HyPO) for each in self.objectives):
            written = self._written(policy, sides[0][..., :1].repeat(points, 1, 1), step)
            with torch.no_grad():
                online = self.reference.scored(written.tokens, 1)[0]
            tokens = torch.cat([tokens, written.tokens], 1)
            known = torch.cat([known, (online * written.mask).sum(-1)], 1)
        mask = response_mask(tokens[..., 1:])
        logps = (policy.scored(tokens, 1)[0] * mask).sum(-1)
        seeds, found = len(self.world.seeds), []
        for place, objective in enumerate(self.objectives):
            nets = slice(place * seeds, (place + 1) * seeds)
            batch = self._batch(logps[nets], known[nets], mask.sum(-1)[nets].float())
            found.append(losses_of_problems(objective, batch, seeds))
        return torch.cat(found)

    def _written(self, policy: Decoders, prompts: Int[Tensor, "nets rows 1"], step: int) -> Responses:
        prompts = prompts.repeat_interleave(self.samples, 1)
        draws = [torch_generator(seed, "style texts online", step) for seed in self.world.seeds]
        written = policy.sample(prompts, STEPS, uniform_by_seed(draws, len(policy), STEPS, prompts.shape[1]))
        self.drawn += written.counts.sum(1)
        return written

    def _batch(self, logps: Tensor, known: Tensor, counts: Tensor) -> HybridLogps:
        """Pairs of a point's nets, and their samples where there are any."""
        pairs = self.effort.batch

        def scores(part: slice, row: Tensor | None = None) -> ResponseLogps:
            policy, tokens, reference = (values[:, part].flatten() for values in (logps, counts, known))
            return ResponseLogps(policy=policy, tokens=tokens, reference=reference, row=row)

        sides = scores(slice(0, pairs)), scores(slice(pairs, 2 * pairs))
        weight, online = torch.ones_like(sides[0].tokens), None
        if logps.shape[1] > 2 * pairs:
            online = scores(slice(2 * pairs, None), torch.arange(len(weight)).repeat_interleave(self.samples))
        return HybridLogps(sides[0], sides[1], weight, online=online)

    @torch.no_grad()
    def judged(self, policy: Decoders) -> tuple[Tensor, ...]:
        """reward, outside, kl and logp_chosen now; every record from the same uniform numbers."""
        draws = [torch_generator(seed, "style texts judged") for seed in self.world.seeds]
        prompts = torch.stack([_prompts(self.effort.measured, draw) for draw in draws])
        prompts = prompts.repeat(len(self.objectives), 1, 1)
        uniform = uniform_by_seed(draws, len(policy), STEPS, self.effort.measured)
        written = policy.sample(prompts, STEPS, uniform)
        chosen = self.world.chosen[:, :64].repeat(len(self.objectives), 1, 1)
        return (
            reward(written.answers).mean(1),
            (~is_plain(written.answers)).float().mean(1),
            kl_along(policy, self.reference, written),
            summed_logps(policy, chosen, 1).mean(1),
        )
