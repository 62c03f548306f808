"""Answers whose worth is a sum over their tokens: the prompt says which bigrams score.

In an answer to the prompt x1 x2 x3 x4 a token x1 or x2 scores 1 after a token other than itself, x3 or x4 scores -1 after
one, and all other bigrams score 0. Demonstrations use the good pair and the bad pair alike, so that to be more certain is
no gain: what a learner has to find out is which tokens were worth something. The gold reward of an answer is its squashed
sum. The score of every token is known here (and only here: no learner sees it). Token 0 ends an answer; demonstrations
fill the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

VOCABULARY, PROMPT, STEPS = 12, 4, 16
WORTH = (1.0, 1.0, -1.0, -1.0)  # of each prompt token, after another token than itself
SQUASH = 8.0  # the sum at which worth bends


def draw_prompts(count: int, generator: torch.Generator) -> Int[Tensor, "rows prompt"]:
    """Prompts of different tokens, in random order."""
    return 1 + torch.rand(count, VOCABULARY - 1, generator=generator).argsort(-1)[:, :PROMPT]


def token_scores(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows steps"]:
    """The score of every response token; 0 for ends and what is behind them."""
    prompt, before, here = tokens[..., :PROMPT], tokens[..., PROMPT - 1 : -1], tokens[..., PROMPT:]
    worth = ((here[..., None] == prompt[..., None, :]) * torch.tensor(WORTH)).sum(-1)
    return worth * (here != before)


def gold_reward(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows"]:
    """What a whole answer is worth, in (-1, 1): the squashed sum of its scores."""
    return torch.tanh(token_scores(tokens).sum(-1) / SQUASH)


def demonstrations(prompts: Int[Tensor, "rows prompt"], generator: torch.Generator) -> Int[Tensor, "rows length"]:
    """Answers of random quality: each takes tokens of the good pair, of the bad pair, or any, in shares of its own."""
    rows = len(prompts)
    share = torch.rand(rows, 3, generator=generator)
    kind = torch.multinomial(share, STEPS, replacement=True, generator=generator)
    member = torch.randint(2, (rows, STEPS), generator=generator)
    of_pair = prompts.gather(1, (2 * kind.clamp(max=1) + member))
    other = torch.randint(1, VOCABULARY, (rows, STEPS), generator=generator)
    return torch.cat([prompts, torch.where(kind < 2, of_pair, other)], 1)


def preferred(
    first: Int[Tensor, "*rows length"],
    second: Int[Tensor, "*rows length"],
    generator: torch.Generator,
    *,
    slope: float = 6.0,
    noise: float = 0.0,
) -> tuple[Int[Tensor, "*rows length"], Int[Tensor, "*rows length"]]:
    """(chosen, rejected): Bradley-Terry on slope times the gold reward, a share `noise` of the labels turned around."""
    margin = slope * (gold_reward(first) - gold_reward(second))
    uniform = torch.rand(2, *margin.shape, generator=generator)
    first_wins = ((uniform[0] < torch.sigmoid(margin)) ^ (uniform[1] < noise))[..., None]
    return torch.where(first_wins, first, second), torch.where(first_wins, second, first)
