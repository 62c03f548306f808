"""Small decoders that complete lists and improve themselves over rounds, with a judge's scores and a teacher's answers.

In every round the policy writes five answers to each of a part of the prompts; a judge who prefers in circles lays them
beside the teacher's and scores each by how many of the others it beats, and the library's rules say which pairs are learned
from. All grid points and seeds of an arm are nets of one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.errors import DataError
from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.objectives.objective import PairLogps
from paperworks.language.objectives.soft_preferences import DNO
from paperworks.language.sources.dno_pairs import PairRule, Writer, is_repetitive, replayed, win_rates
from paperworks.language.testbeds import list_completion
from paperworks.language.testbeds.decoder_learning import (
    by_setting,
    kl_of,
    loss_by_setting,
    pair_logps,
    summed_logps,
)
from paperworks.language.testbeds.decoders import Adam, Decoders
from paperworks.language.testbeds.list_completion import (
    PLAYED,
    PROMPT,
    STEPS,
    TEACHER,
    Traits,
    preference,
    traits,
    traits_of,
)

Source = Literal["judged", "teacher over own", "teacher and start"]
Point = tuple[float, float]  # of a grid: beta (eta) and Adam's learning rate, which falls linearly to 0
Pair = tuple[int, int]  # places of chosen and rejected among all answers of all rounds

WRITERS: tuple[Writer, ...] = (
    "student",
    "student",
    "student",
    "student",
    "student",
    "teacher",
)  # of a prompt's answers
STUDENTS = WRITERS.count("student")


@dataclass(frozen=True)
class Recipe:
    """Where pairs come from.

    `judged`: those of the rule among the policy's and the teacher's answers (DNO-Prct); `teacher over own`: the teacher's
    over each of the policy's (SPIN); `teacher and start`: the teacher's and each of the start's, the better one chosen by
    the judge, with the start as the reference throughout (offline DPO).
    """

    source: Source = "judged"
    rule: PairRule = field(default_factory=PairRule)


@dataclass(frozen=True)
class Scale:
    """How much is written, learned from and judged."""

    rounds: int = 3
    prompts: int = 300  # a round
    steps: int = 36  # a round
    batch: int = 32  # pairs a step
    judged: int = 384  # held-out prompts
    imitation: int = 300


@dataclass(frozen=True)
class Course:
    """What became of nets. Win rates are on held-out prompts; the first round is the start."""

    over_start: Float[Tensor, "rounds nets"]
    over_teacher: Float[Tensor, "rounds nets"]
    over_previous: Float[Tensor, "rounds nets"]  # 1/2 at the start
    traits: Float[Tensor, "rounds nets 3"]
    kl: Float[Tensor, "rounds nets"]  # to the start
    kinds: list[Counter[str]]  # a net's new pairs of all rounds, by who wrote chosen and rejected


def improve(start: Decoders, seeds: Sequence[int], recipe: Recipe, grid: Sequence[Point], scale: Scale) -> Course:
    """All rounds at every point of the grid, for every seed (nets by point, then seed)."""
    start = start.take(list(range(len(seeds))) * len(grid))
    policy = start.trainable()
    adam = Adam(policy, by_setting(len(policy), [rate for _, rate in grid]))
    learner = _Learner(
        recipe, [DNO(eta=beta, target="hard") for beta, _ in grid], list(seeds) * len(grid), scale, start
    )
    seeds = list(seeds) * len(grid)
    found = [_judged(policy, start, None, seeds, scale)]
    for number in range(scale.rounds):
        previous = policy.take(range(len(policy)))
        learner.round(number, policy, adam)
        found.append(_judged(policy, start, previous, seeds, scale))
    over_start, over_teacher, over_previous, found_traits, kl = (
        torch.stack(column) for column in zip(*found, strict=True)
    )
    return Course(over_start, over_teacher, over_previous, found_traits, kl, learner.kinds)


class _Learner:
    """Nets that learn by a recipe, as many at each objective; it keeps what earlier rounds wrote."""

    def __init__(
        self, recipe: Recipe, objectives: Sequence[DNO], seeds: Sequence[int], scale: Scale, start: Decoders
    ) -> None:
        self._recipe, self._objectives, self._seeds, self._scale, self._start = recipe, objectives, seeds, scale, start
        self._answers: list[Tensor] = []  # of every round [nets, prompts * answers, length]
        self._pairs: list[list[list[Pair]]] = [[] for _ in seeds]  # of every net and round
        self.kinds: list[Counter[str]] = [Counter() for _ in seeds]

    def round(self, number: int, policy: Decoders, adam: Adam) -> None:
        """Write, pair and train; the reference of the round is the policy that it begins with, or the start."""
        is_offline = self._recipe.source == "teacher and start"
        reference = self._start if is_offline else policy.take(range(len(policy)))
        answers = self._written(reference, number)
        self._answers.append(answers.flatten(1, 2))
        for net, (found, seed) in enumerate(zip(self._new_pairs(answers), self._seeds, strict=True)):
            self._pairs[net].append(found)
            self.kinds[net].update(_kind(pair) for pair in found)
            if not found:
                raise DataError(f"seed {seed}, round {number + 1}: no pairs; lower the rule's threshold or margins")
        steps, total = self._scale.steps, self._scale.steps * self._scale.rounds
        chosen, rejected = self._batches(number)
        for step in range(steps):
            rows = slice(step * self._scale.batch, (step + 1) * self._scale.batch)
            batch = _scored(policy, reference, chosen[:, rows], rejected[:, rows])
            adam.step(loss_by_setting(batch, self._objectives, len(policy)), factor=1 - (number * steps + step) / total)

    def _written(self, writer: Decoders, number: int) -> Int[Tensor, "nets prompts answers length"]:
        """The writer's answers to the round's prompts, which are a seed's own, with the teacher's behind them."""
        prompts = list_completion.prompts_of(self._seeds, self._scale.prompts, "round", number)
        taught = torch.stack(
            [
                torch.cat([asked, TEACHER.written(asked, torch_generator(seed, "teacher", number))], 1)
                for asked, seed in zip(prompts, self._seeds, strict=True)
            ]
        )
        numbers = list_completion.numbers_of(self._seeds, self._scale.prompts * STUDENTS, "round", number)
        own = writer.sample(prompts.repeat_interleave(STUDENTS, 1), STEPS, numbers).tokens
        return torch.cat([own.unflatten(1, (-1, STUDENTS)), taught[:, :, None]], 2)

    def _new_pairs(self, answers: Int[Tensor, "nets prompts answers length"]) -> list[list[Pair]]:
        """Each net's pairs, by the places of answers among all of all rounds."""
        wins = _wins(answers)
        first = sum(each.shape[1] for each in self._answers[:-1])
        found: list[list[Pair]] = []
        for net in range(len(answers)):
            texts = [[" ".join(map(str, each)) for each in row] for row in answers[net, :, :, PROMPT:].tolist()]
            pairs = [
                (first + prompt * len(WRITERS) + chosen, first + prompt * len(WRITERS) + rejected)
                for prompt, matrix in enumerate(wins[net].tolist())
                for chosen, rejected in self._pairs_of(matrix, texts[prompt])
            ]
            found.append(pairs)
        return found

    def _pairs_of(self, wins: list[list[float]], texts: list[str]) -> list[tuple[int, int]]:
        """One prompt's pairs."""
        if self._recipe.source == "teacher over own":
            return [(STUDENTS, student) for student in range(STUDENTS)]
        if self._recipe.source == "teacher and start":
            decided = [(student, wins[STUDENTS][student]) for student in range(STUDENTS)]
            return [(STUDENTS, own) if won > 0.5 else (own, STUDENTS) for own, won in decided if won != 0.5]
        scores = [1 + 5 * rate for rate in win_rates(wins)]
        degenerate = [is_repetitive(text.split(" 0")[0], words=1) for text in texts]
        return [(pair.chosen, pair.rejected) for pair in self._recipe.rule.pairs(scores, WRITERS, degenerate)]

    def _batches(self, number: int) -> tuple[Tensor, Tensor]:
        """The round's chosen and rejected answers in order of training, [nets, steps * batch, length] each.

        New pairs, and where the judge made them some of earlier rounds; each once before any comes again.
        """
        wanted, orders = self._scale.steps * self._scale.batch, []
        for pairs, seed in zip(self._pairs, self._seeds, strict=True):
            rows = list(pairs[-1])
            if self._recipe.source == "judged":
                rows += replayed(pairs[:-1], len(rows), seed=derive_seed(seed, "replay", number))
            draw = torch_generator(seed, "order", number)
            again = -(-wanted // len(rows))
            order = torch.cat([torch.randperm(len(rows), generator=draw) for _ in range(again)])[:wanted]
            orders.append(torch.tensor(rows)[order])
        places = torch.stack(orders)[..., None]
        everything = torch.cat(self._answers, 1)
        chosen, rejected = (
            everything.gather(1, places[:, :, side].expand(-1, -1, everything.shape[-1])) for side in (0, 1)
        )
        return chosen, rejected


def _kind(pair: Pair) -> str:
    return " > ".join(WRITERS[place % len(WRITERS)] for place in pair)


def _wins(answers: Int[Tensor, "nets prompts answers length"]) -> Float[Tensor, "nets prompts answers answers"]:
    """Whom the judge prefers, 1, 0 or 1/2, of all of a prompt's answers side by side."""
    found = traits(answers[..., :PROMPT], answers[..., PROMPT:]).stacked()
    probability = preference(Traits.of(found[:, :, :, None]), Traits.of(found[:, :, None]))
    return torch.where((probability - 0.5).abs() < 1e-6, 0.5, (probability > 0.5).float())


def _scored(
    policy: Decoders,
    reference: Decoders,
    chosen: Int[Tensor, "nets rows length"],
    rejected: Int[Tensor, "nets rows length"],
) -> PairLogps:
    with torch.no_grad():
        known = summed_logps(reference, torch.cat([chosen, rejected], 1), PROMPT).chunk(2, 1)
    return pair_logps(policy, chosen, rejected, PROMPT, (known[0], known[1]))


def _judged(
    policy: Decoders, start: Decoders, previous: Decoders | None, seeds: Sequence[int], scale: Scale
) -> list[Tensor]:
    """The columns of a course."""
    prompts = list_completion.prompts_of(seeds, scale.judged, "held out").repeat(1, PLAYED, 1)
    numbers = list_completion.numbers_of(seeds, prompts.shape[1], "judged")
    kl, written = kl_of(policy, start, prompts, STEPS, numbers)

    def played(found: Traits) -> Tensor:
        return found.stacked().unflatten(1, (PLAYED, scale.judged))

    own = played(traits_of(written))
    taught = torch.stack(
        [
            TEACHER.written(asked, torch_generator(seed, "judged teacher"))
            for asked, seed in zip(prompts, seeds, strict=True)
        ]
    )
    last = own if previous is None else played(traits_of(previous.sample(prompts, STEPS, numbers)))
    others = (played(traits_of(start.sample(prompts, STEPS, numbers))), played(traits(prompts, taught)), last)
    return [*(list_completion.win_rates(own, other) for other in others), own.mean((1, 2)), kl]
