"""Answers whose worth is a sum over their tokens: the prompt says which bigrams score.

A prompt is four different tokens, x1 to x4. A response token scores 1 where it follows its predecessor as the prompt has
it, x1 x2 x3 x4 x1 ..., whatever came before; all others score 0. The first response token follows x4. The gold reward of an
answer is a squashed sum, so that whole answers are judged, while the score of every token is known here (and only here: no
learner sees it). Token 0 ends an answer; the data never end before the length limit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

VOCABULARY = 12
PROMPT = 4
STEPS = 16
CENTRE, SPREAD = 8.0, 2.0  # of the squashing: the sum that is worth 1/2, and how fast worth changes there


def draw_prompts(count: int, generator: torch.Generator) -> Int[Tensor, "rows prompt"]:
    """Prompts of different tokens, in random order."""
    keys = torch.rand(count, VOCABULARY - 1, generator=generator)
    return 1 + keys.argsort(-1)[:, :PROMPT]


def token_scores(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows steps"]:
    """The score of every response token: 1 where it follows its predecessor as the prompt has it."""
    prompt = tokens[..., :PROMPT]
    before, here = tokens[..., PROMPT - 1 : -1], tokens[..., PROMPT:]
    following = prompt.roll(-1, -1)
    return ((before[..., None] == prompt[..., None, :]) & (here[..., None] == following[..., None, :])).any(-1).float()


def gold_reward(tokens: Int[Tensor, "*rows length"]) -> Float[Tensor, "*rows"]:
    """What a whole answer is worth, in (0, 1): the logistic of its score."""
    return torch.sigmoid((token_scores(tokens).sum(-1) - CENTRE) / SPREAD)


def demonstrations(
    prompts: Int[Tensor, "rows prompt"], generator: torch.Generator, *, best: float = 0.6
) -> Int[Tensor, "rows length"]:
    """Answers of random quality: a token goes on as the prompt has it with a probability drawn for each answer.

    That probability is uniform in [0, best]; other tokens are any token but 0, and what has no successor is followed by a
    token of the prompt as often as it would have gone on.
    """
    rows = len(prompts)
    quality = best * torch.rand(rows, generator=generator)
    tokens = torch.cat([prompts, torch.zeros(rows, STEPS, dtype=torch.long)], 1)
    for step in range(PROMPT, PROMPT + STEPS):
        before = tokens[:, step - 1, None]
        place = (before == prompts).int().argmax(1)
        known = (before == prompts).any(1)
        following = prompts.gather(1, ((place + 1) % PROMPT)[:, None])[:, 0]
        of_prompt = prompts.gather(1, torch.randint(PROMPT, (rows, 1), generator=generator))[:, 0]
        other = torch.randint(1, VOCABULARY, (rows,), generator=generator)
        goes_on = torch.rand(rows, generator=generator) < quality
        tokens[:, step] = torch.where(goes_on, torch.where(known, following, of_prompt), other)
    return tokens


def preferred(
    first: Int[Tensor, "*rows length"],
    second: Int[Tensor, "*rows length"],
    generator: torch.Generator,
    *,
    slope: float = 8.0,
    noise: float = 0.0,
) -> tuple[Int[Tensor, "*rows length"], Int[Tensor, "*rows length"]]:
    """(chosen, rejected): Bradley-Terry on slope times the gold reward, a share `noise` of the labels turned around."""
    margin = slope * (gold_reward(first) - gold_reward(second))
    uniform = torch.rand(2, *margin.shape, generator=generator)
    first_wins = (uniform[0] < torch.sigmoid(margin)) ^ (uniform[1] < noise)
    pick = first_wins[..., None]
    return torch.where(pick, first, second), torch.where(pick, second, first)
