"""Completing a list: a prompt of four different symbols, an answer of up to twelve, and judges of answers.

What counts of an answer: how many of the prompt's symbols it takes up (coverage), how short it is (brevity), and how many
different symbols it has of its own (diversity). The three are at odds, so that a judge who follows the majority of them
prefers in circles: all four and one more beats three, three beat four others, four others beat all four and one more. The
gold reward is a scalar: coverage less repetition less length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from paperworks.core.seeding import torch_generator
from paperworks.language.testbeds.decoders import END, Decoders, Responses, Shape, imitate

SYMBOLS = 20  # tokens 1 to 20; token 0 ends an answer
PROMPT, STEPS = 4, 12  # symbols of a prompt; the most tokens of an answer, its END included
SHAPE = Shape(vocabulary=1 + SYMBOLS, length=PROMPT + STEPS, width=32, layers=2)
PLAYED = 2  # answers of a policy to each held-out prompt, so that two policies meet with independent ones
VOTE = 0.5  # differences in a criterion that make a vote 73% sure, in symbols
REPETITION, LENGTH = 0.5, 0.2  # what a repeated symbol and a token cost, in prompt symbols taken up


@dataclass(frozen=True)
class Traits:
    """What counts of answers, each [*shape], whole numbers as floats."""

    covered: Tensor  # the prompt's symbols that are there
    others: Tensor  # different symbols that are not the prompt's
    tokens: Tensor  # symbols in all, without END

    @property
    def repeats(self) -> Tensor:
        """Symbols that were there before."""
        return self.tokens - self.covered - self.others

    def stacked(self) -> Float[Tensor, "*shape 3"]:
        """As one tensor."""
        return torch.stack([self.covered, self.others, self.tokens], -1)

    @classmethod
    def of(cls, stacked: Float[Tensor, "*shape 3"]) -> Traits:
        """From such a tensor."""
        return cls(*stacked.unbind(-1))


def make_prompts(count: int, generator: torch.Generator) -> Int[Tensor, "count prompt"]:
    """Prompts of four different symbols."""
    return 1 + torch.rand(count, SYMBOLS, generator=generator).argsort(1)[:, :PROMPT]


def prompts_of(seeds: Sequence[int], count: int, *purpose: int | str) -> Int[Tensor, "seeds count prompt"]:
    """Prompts of each seed's own; the same for a seed that is there twice."""
    made = {seed: make_prompts(count, torch_generator(seed, "prompts", *purpose)) for seed in set(seeds)}
    return torch.stack([made[seed] for seed in seeds])


def numbers_of(seeds: Sequence[int], rows: int, *purpose: int | str) -> Float[Tensor, "seeds steps rows"]:
    """Uniform numbers for sampling answers, each seed's own; the same for a seed that is there twice."""
    made = {seed: torch.rand(STEPS, rows, generator=torch_generator(seed, "answers", *purpose)) for seed in set(seeds)}
    return torch.stack([made[seed] for seed in seeds])


def traits(prompts: Int[Tensor, "*shape prompt"], answers: Int[Tensor, "*shape steps"]) -> Traits:
    """What counts of answers; what stands behind an END does not."""
    alive = (answers == END).long().cumsum(-1) == 0
    present = torch.zeros(*answers.shape[:-1], 1 + SYMBOLS).scatter(-1, answers * alive, 1.0)
    present[..., END] = 0.0
    covered = present.gather(-1, prompts).sum(-1)
    return Traits(covered, present.sum(-1) - covered, alive.sum(-1).float())


def traits_of(written: Responses) -> Traits:
    """What counts of what nets wrote, [nets, rows] each."""
    return traits(written.tokens[..., :PROMPT], written.answers)


def preference(first: Traits, second: Traits) -> Tensor:
    """P(first is preferred): the majority of three votes, each sure by its difference. In circles, and P + P^T = 1."""
    votes = [
        torch.sigmoid(difference / VOTE)
        for difference in (
            first.covered - second.covered,
            first.others - second.others,
            second.tokens - first.tokens,
        )
    ]
    a, b, c = votes
    return a * b + a * c + b * c - 2 * a * b * c


def win_rates(first: Float[Tensor, "*shape played judged 3"], second: Tensor) -> Float[Tensor, "*shape"]:
    """P(first's answers are preferred to second's), answers to the same prompts; no answer meets one of its own draw."""
    met = [preference(Traits.of(first[..., own, :, :]), Traits.of(second[..., 1 - own, :, :])) for own in range(PLAYED)]
    return torch.stack(met).mean((0, -1))


def gold_reward(found: Traits) -> Tensor:
    """Coverage less repetition less length, in prompt symbols taken up."""
    return found.covered - REPETITION * found.repeats - LENGTH * found.tokens


@dataclass(frozen=True)
class Writer:
    """Writes answers by a rule: some of the prompt's symbols in their order, then some others; it stutters now and then."""

    covers: float  # chance of each of the prompt's symbols
    others: int  # most others; their number is uniform from 0 on
    stutters: float  # chance that a symbol is written twice

    def written(self, prompts: Int[Tensor, "rows prompt"], generator: torch.Generator) -> Int[Tensor, "rows steps"]:
        """An answer to each prompt, cut short where it would not fit."""
        rows = len(prompts)

        def uniform(columns: int) -> Tensor:
            return torch.rand(rows, columns, generator=generator)

        free = uniform(1 + SYMBOLS).scatter(1, prompts, 2.0)
        free[:, END] = 2.0
        symbols = torch.cat([prompts, free.argsort(1)[:, : self.others]], 1)
        more = torch.arange(self.others) < (uniform(1) * (self.others + 1)).long()
        kept = torch.cat([uniform(PROMPT) < self.covers, more], 1)
        twice = kept & (uniform(symbols.shape[1]) < self.stutters)
        both = torch.stack([kept, twice], -1).flatten(1)
        places = torch.where(both, torch.arange(both.shape[1]), both.shape[1]).argsort(dim=1, stable=True)
        spoken = torch.where(both, symbols.repeat_interleave(2, 1), END).gather(1, places)[:, : STEPS - 1]
        return functional.pad(spoken, (0, STEPS - spoken.shape[1]), value=END)


MEDIOCRE = Writer(covers=0.55, others=4, stutters=0.35)  # whom the supervised policy imitates
TEACHER = Writer(covers=0.95, others=3, stutters=0.05)  # good, not perfect


def imitator(seed: int, *, steps: int) -> Decoders:
    """The policy that learned from the mediocre writer's answers to ever new prompts, a single net."""
    draw = torch_generator(seed, "demonstrations")

    def batch(step: int) -> Tensor:
        prompts = make_prompts(64, draw)
        return torch.cat([prompts, MEDIOCRE.written(prompts, draw)], 1)[None]

    return imitate(Decoders.fresh(SHAPE, [seed]), batch, PROMPT, steps=steps, rate=5e-3)


def save_net(net: Decoders, path: Path) -> None:
    """A net, or several, as a safetensors file."""
    save_file({name: value.contiguous() for name, value in net.parameters.items()}, path)


def load_nets(files: Sequence[Path]) -> Decoders:
    """Saved nets side by side, in the order of the files."""
    found = [load_file(file) for file in files]
    return Decoders(SHAPE, {name: torch.cat([each[name] for each in found]) for name in found[0]})
