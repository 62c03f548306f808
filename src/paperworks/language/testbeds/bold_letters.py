"""Generated text for small decoders: answers in letters to a prompt, some bold and some timid, and what each is worth.

An answer's first letter says how bold it is: how much the rest can win or lose. So answers differ in risk as well as in
worth, and who draws several and keeps the best or the worst of them has reason to care.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.testbeds.decoders import response_mask

LETTERS, PROMPT, STEPS = 12, 3, 12  # tokens 1 to 12 are letters, 0 ends an answer
BOLDNESS = (0.4, 1.6)  # of half the letters each


@dataclass(frozen=True)
class Source:
    """What text is like in a world, and how good it is."""

    after: Float[Tensor, "letters letters"]  # logits of a letter by the one before
    asked: Float[Tensor, "letters letters"]  # logits of a letter by the prompt's
    taste: Float[Tensor, "letters letters"]  # what a letter is worth by the prompt's first
    boldness: Float[Tensor, " letters"]  # what an answer's first letter multiplies the rest's worth by

    @classmethod
    def of(cls, seed: int) -> Source:
        """The text of a seed's world."""
        draw = torch_generator(seed, "source")
        after, asked, own, common = (torch.randn(LETTERS, LETTERS, generator=draw) for _ in range(4))
        boldness = torch.tensor(BOLDNESS).repeat(LETTERS // 2)[torch.randperm(LETTERS, generator=draw)]
        return cls(after, 0.7 * asked, (common[:1] + 0.5 * own) / 1.25**0.5, boldness)

    def written(self, prompts: Int[Tensor, "rows three"], generator: torch.Generator) -> Int[Tensor, "rows steps"]:
        """An answer of twelve letters to every prompt."""
        answers = torch.zeros(len(prompts), STEPS, dtype=torch.long)
        for step in range(STEPS):
            logits = self.asked[prompts[:, step % PROMPT] - 1]
            if step:
                logits = logits + self.after[answers[:, step - 1] - 1]
            answers[:, step] = 1 + torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
        return answers

    def worth(self, prompts: Int[Tensor, "rows three"], answers: Int[Tensor, "rows steps"]) -> Float[Tensor, " rows"]:
        """What answers are really worth: only pairs for the reward model are judged by it."""
        letters, mask = (answers[:, 1:] - 1).clamp(min=0), response_mask(answers)[:, 1:] & (answers[:, 1:] > 0)
        worth = (self.taste[prompts[:, :1] - 1, letters] * mask).sum(1) / (STEPS - 1) ** 0.5
        return self.boldness[(answers[:, 0] - 1).clamp(min=0)] * worth
