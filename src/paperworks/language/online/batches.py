"""From rollouts to what an optimiser step trains on: groups with credit, pairs, best answers.

A builder takes the rollouts and says what it left out; any objective that its rows fit can follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.items import Item, Items
from paperworks.language.online.judges import Judge, RewardJudge
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.reference_scores import Reference

PairRule = Literal["best-worst", "first-two", "all"]


@dataclass(frozen=True)
class Batch:
    """Rows to train on, what the reference says of them, and how many were left out, by reason."""

    items: Items
    reference: Reference = field(default_factory=Reference)
    left_out: Mapping[str, int] = field(default_factory=dict)


def groups(
    rollouts: Rollouts,
    credit: Mapping[str, Tensor],
    *,
    response_numbers: Mapping[str, Tensor] | None = None,
    with_reference: bool = False,
) -> Batch:
    """A row a prompt with all its answers in the role "response", credit for every token."""
    items, reference = [], []
    for group, members in enumerate(rollouts.members()):
        if not members:
            continue
        items.append(
            Item(
                rollouts.prompt_ids[group],
                {"response": tuple(rollouts.ids[index] for index in members)},
                1.0,
                _where(rollouts, group),
                response_numbers={
                    name: {"response": tuple(float(values[index]) for index in members)}
                    for name, values in {"reward": rollouts.rewards, **(response_numbers or {})}.items()
                    if len(values)
                },
                token_numbers={name: {"response": rollouts.of(values, members)} for name, values in credit.items()},
            )
        )
        if with_reference and rollouts.reference is not None:
            reference.append(rollouts.of(rollouts.reference, members))
    return Batch(items_of(items, ("response",)), Reference({"response": reference} if with_reference else {}))


def pairs(
    rollouts: Rollouts,
    candidates: Sequence[tuple[int, int]],
    probabilities: Sequence[float],
    *,
    seed: Sequence[int | str] = (0,),
    soft: bool = True,
) -> Batch:
    """Rows of chosen and rejected answers; `probabilities` that the first of each candidate pair is better.

    With `soft` the likelier winner is chosen and the row keeps the probability, else a label is drawn from it; at 1/2 a
    coin decides in either case. Pairs of the same answer teach nothing: they are left out and counted.
    """
    draw = torch.rand(len(candidates), generator=torch_generator(*seed, "labels")).tolist()
    items: list[Item] = []
    tokens: dict[str, list[Tensor]] = {"chosen": [], "rejected": []}
    same = 0
    for (first, second), probability, uniform in zip(candidates, probabilities, draw, strict=True):
        if rollouts.ids[first] == rollouts.ids[second]:
            same += 1
            continue
        first_wins = probability > 0.5 or (probability == 0.5 and uniform < 0.5) if soft else uniform < probability
        chosen, rejected = (first, second) if first_wins else (second, first)
        known = (probability if first_wins else 1 - probability) if soft else math.nan
        numbers = {"probability": known, "explored": _explored(rollouts, chosen, rejected)}
        if len(rollouts.rewards):
            numbers |= {
                "chosen_reward": float(rollouts.rewards[chosen]),
                "rejected_reward": float(rollouts.rewards[rejected]),
            }
        group = int(rollouts.group[first])
        items.append(
            Item(
                rollouts.prompt_ids[group],
                {"chosen": (rollouts.ids[chosen],), "rejected": (rollouts.ids[rejected],)},
                1.0,
                _where(rollouts, group),
                numbers,
            )
        )
        if rollouts.reference is not None:
            tokens["chosen"].append(rollouts.of(rollouts.reference, [chosen]))
            tokens["rejected"].append(rollouts.of(rollouts.reference, [rejected]))
    reference = Reference(dict(tokens)) if rollouts.reference is not None else Reference()
    return Batch(items_of(items, ("chosen", "rejected")), reference, {"same_answer": same} if same else {})


def candidate_pairs(rollouts: Rollouts, rule: PairRule) -> tuple[list[tuple[int, int]], int]:
    """Which answers of each prompt are compared, and how many prompts give none.

    best-worst: those of highest and lowest reward (equal rewards give none); first-two; all pairs of a prompt, which is
    also what best-worst comes to where answers have no rewards.
    """
    found: list[tuple[int, int]] = []
    without = 0
    for members in rollouts.members():
        if len(members) < 2:
            without += 1
        elif rule == "first-two":
            found.append((members[0], members[1]))
        elif rule == "all" or (rule == "best-worst" and not len(rollouts.rewards)):
            found += [(a, b) for at, a in enumerate(members) for b in members[at + 1 :]]
        else:
            rewards = rollouts.rewards[torch.tensor(members)]
            if float(rewards.max()) == float(rewards.min()):
                without += 1
            else:
                found.append((members[int(rewards.argmax())], members[int(rewards.argmin())]))
    return found, without


def judged(rollouts: Rollouts, candidates: Sequence[tuple[int, int]], judge: Judge) -> list[float]:
    """P(first better) of each candidate pair; from rewards already known where the judge goes by the reward."""
    if isinstance(judge, RewardJudge) and len(rollouts.rewards):
        return [judge.of(float(rollouts.rewards[a]), float(rollouts.rewards[b])) for a, b in candidates]
    if not candidates:
        return []
    prompts = [rollouts.prompts[int(rollouts.group[a])] for a, _ in candidates]
    return judge(prompts, [rollouts.texts[a] for a, _ in candidates], [rollouts.texts[b] for _, b in candidates])


def best(rollouts: Rollouts) -> list[int]:
    """The answer of highest reward to each prompt (the first of equals)."""
    return [max(members, key=lambda index: float(rollouts.rewards[index])) for members in rollouts.members() if members]


def joined(batches: Sequence[Batch]) -> Batch:
    """Several iterations' rows as one."""
    items = [item for batch in batches for item in batch.items.items]
    roles = batches[-1].items.roles
    tokens = {
        role: [part for batch in batches for part in batch.reference.tokens[role]]
        for role in batches[-1].reference.tokens
    }
    return Batch(items_of(items, roles), Reference(tokens))


def _explored(rollouts: Rollouts, chosen: int, rejected: int) -> float:
    """1 where the chosen answer alone is the reference's, 0 where the rejected alone is, else unknown."""
    if not len(rollouts.from_reference):
        return math.nan
    one, two = bool(rollouts.from_reference[chosen]), bool(rollouts.from_reference[rejected])
    return math.nan if one == two else float(one)


def _where(rollouts: Rollouts, group: int) -> str:
    where = getattr(rollouts.rows[group], "where", None)
    return str(where) if where is not None and where.file else f"prompt {group + 1}"


def items_of(items: Sequence[Item], roles: tuple[str, ...]) -> Items:
    return Items(items, roles, sum(len(item.responses_in()) for item in items), 0, 0, 0)
