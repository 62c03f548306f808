"""A task where credit is local: letters score by the letter before them, and the prompt says which pairs score.

Letters are of four kinds; a pair of neighbours scores by their kinds, partly the same in every prompt, partly by each of the
prompt's four letters. What an answer is worth is the sum over its tokens, so that every token's part in it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator

LETTERS, PROMPT, STEPS, KINDS = 12, 4, 16, 4  # tokens 1 to 12 are letters


@dataclass(frozen=True)
class BigramTask:
    """The tasks of several seeds side by side."""

    kind: Int[Tensor, "seeds letters"]  # of each letter
    common: Float[Tensor, "seeds pairs"]  # what a pair of kinds scores in every prompt
    named: Float[Tensor, "seeds letters pairs"]  # what it scores besides for each letter of the prompt
    after: Float[Tensor, "seeds letters letters"]  # logits of a letter by the one before, in text of no quality

    @classmethod
    def of(cls, seeds: Sequence[int]) -> BigramTask:
        """The task of each seed."""
        drawn = [_drawn(seed) for seed in seeds]
        return cls(*(torch.stack(column) for column in zip(*drawn, strict=True)))

    def scores(
        self, prompts: Int[Tensor, "nets rows four"], answers: Int[Tensor, "nets rows steps"]
    ) -> Float[Tensor, "nets rows steps"]:
        """What each token scores, 0 for the first and beside an END; nets by setting, then seed."""
        repeats = len(answers) // len(self.kind)
        kinds = self.kind.repeat(repeats, 1).gather(1, (answers - 1).clamp(min=0).flatten(1)).view_as(answers)
        tables = self._tables(prompts)
        found = tables.gather(2, kinds[:, :, :-1] * KINDS + kinds[:, :, 1:])
        letters = (answers[:, :, :-1] > 0) & (answers[:, :, 1:] > 0)
        return torch.cat([torch.zeros_like(found[:, :, :1]), torch.where(letters, found, 0.0)], 2)

    def returns(
        self, prompts: Int[Tensor, "nets rows four"], answers: Int[Tensor, "nets rows steps"]
    ) -> Float[Tensor, "nets rows"]:
        """What answers are worth: the sum of their scores, over the root of their number."""
        return self.scores(prompts, answers).sum(-1) / (STEPS - 1) ** 0.5

    def text(
        self, prompts: Int[Tensor, "seeds rows four"], generator: torch.Generator
    ) -> Int[Tensor, "seeds rows steps"]:
        """Answers of random quality: between letters that follow each other anyhow and letters that score."""
        seeds, rows, _ = prompts.shape
        tables = self._tables(prompts).view(seeds, rows, KINDS, KINDS)
        quality = torch.rand(seeds, rows, 1, generator=generator)
        at, row = torch.arange(seeds)[:, None], torch.arange(rows)
        letter = torch.randint(LETTERS, (seeds, rows), generator=generator)
        letters = [letter]
        for _ in range(STEPS - 1):
            worth = tables[at, row, self.kind[at, letter]].gather(2, self.kind[:, None].expand(-1, rows, -1))
            chance = (self.after[at, letter] + quality * worth).softmax(-1)
            letter = torch.multinomial(chance.flatten(0, 1), 1, generator=generator).view(seeds, rows)
            letters.append(letter)
        return torch.stack(letters, 2) + 1

    def _tables(self, prompts: Int[Tensor, "nets rows four"]) -> Float[Tensor, "nets rows pairs"]:
        repeats = len(prompts) // len(self.kind)
        at = torch.arange(len(prompts))[:, None, None]
        named = self.named.repeat(repeats, 1, 1)[at, prompts - 1].sum(2)
        return (self.common.repeat(repeats, 1)[:, None] + named / 2) / 2**0.5


def drawn_prompts(seeds: Sequence[int], rows: int, purpose: str, step: int = 0) -> Int[Tensor, "seeds rows four"]:
    """Prompts of random letters."""
    draws = [torch_generator(seed, purpose, step) for seed in seeds]
    return torch.stack([torch.randint(1, LETTERS + 1, (rows, PROMPT), generator=draw) for draw in draws])


def _drawn(seed: int) -> tuple[Tensor, ...]:
    draw = torch_generator(seed, "bigram task")
    kind = (torch.arange(LETTERS) % KINDS)[torch.randperm(LETTERS, generator=draw)]
    common = torch.randn(KINDS**2, generator=draw)
    named = torch.randn(LETTERS, KINDS**2, generator=draw)
    after = torch.randn(LETTERS, LETTERS, generator=draw)
    return kind, common - common.mean(), named - named.mean(1, keepdim=True), after
