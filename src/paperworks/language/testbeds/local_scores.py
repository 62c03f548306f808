"""Answers whose worth is a sum over their tokens: the prompt says which bigrams score.

Every prompt token stands for a fixed shuffle of the tokens, a way to go on: after a comes shuffle[x][a]. In an answer to
the prompt x1 x2 x3 x4, going on as x1 does scores 1, as x3 does -1, as x2 does 0, and so does any other token; the first
token of the answer goes on from x4. Demonstrations take all three ways alike, so that to be more certain is no gain: what a
learner has to find out is which tokens were worth something. The gold reward of an answer is its squashed sum. The score
of every token is known here (and only here: no learner sees it). Token 0 ends an answer; demonstrations fill the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator

VOCABULARY, PROMPT, STEPS = 12, 4, 16
WORTH = (1.0, 0.0, -1.0)  # of going on as x1, x2, x3 do
SQUASH = 8.0  # the sum at which worth bends


def shuffles() -> Int[Tensor, "tokens tokens"]:
    """[x, a]: the token that follows a on the way of x, the same in every world; 0 follows nothing and goes nowhere."""
    table = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.long)
    for way in range(1, VOCABULARY):
        table[way, 1:] = 1 + torch.randperm(VOCABULARY - 1, generator=torch_generator("local scores", way))
    return table


def draw_prompts(count: int, generator: torch.Generator) -> Int[Tensor, "rows prompt"]:
    """Prompts of different tokens, in random order."""
    return 1 + torch.rand(count, VOCABULARY - 1, generator=generator).argsort(-1)[:, :PROMPT]


def token_scores(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows steps"]:
    """The score of every response token; 0 for ends and what is behind them."""
    before, here = tokens[..., PROMPT - 1 : -1], tokens[..., PROMPT:]
    ways = tokens[..., : len(WORTH)]
    following = shuffles()[ways[..., None, :], before[..., None]]
    return (((following == here[..., None]) & (here != 0)[..., None]) * torch.tensor(WORTH)).sum(-1)


def gold_reward(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows"]:
    """What a whole answer is worth, in (-1, 1): the squashed sum of its scores."""
    return torch.tanh(token_scores(tokens).sum(-1) / SQUASH)


def demonstrations(
    prompts: Int[Tensor, "rows prompt"], generator: torch.Generator, *, known: float = 0.8
) -> Int[Tensor, "rows length"]:
    """Answers of random quality: each goes on as x1, x2, x3 do with probabilities of its own, drawn at random.

    `known` is the sum of the three; the rest of the tokens are any token but 0.
    """
    rows, ways = len(prompts), len(WORTH)
    table = shuffles()
    share = torch.rand(rows, ways, generator=generator)
    share = torch.cat([known * share / share.sum(1, keepdim=True), torch.full((rows, 1), 1 - known)], 1)
    tokens = torch.cat([prompts, torch.zeros(rows, STEPS, dtype=torch.long)], 1)
    for place in range(PROMPT, PROMPT + STEPS):
        following = table[prompts[:, :ways], tokens[:, place - 1, None]]
        other = torch.randint(1, VOCABULARY, (rows, 1), generator=generator)
        which = torch.multinomial(share, 1, generator=generator)
        tokens[:, place] = torch.cat([following, other], 1).gather(1, which)[:, 0]
    return tokens


def preferred(
    first: Int[Tensor, "*rows length"],
    second: Int[Tensor, "*rows length"],
    generator: torch.Generator,
    *,
    slope: float = 4.0,
    noise: float = 0.0,
) -> tuple[Int[Tensor, "*rows length"], Int[Tensor, "*rows length"]]:
    """(chosen, rejected): Bradley-Terry on slope times the gold reward, a share `noise` of the labels turned around."""
    margin = slope * (gold_reward(first) - gold_reward(second))
    uniform = torch.rand(2, *margin.shape, generator=generator)
    first_wins = ((uniform[0] < torch.sigmoid(margin)) ^ (uniform[1] < noise))[..., None]
    return torch.where(first_wins, first, second), torch.where(first_wins, second, first)
