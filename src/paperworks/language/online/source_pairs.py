"""Builders of pairs that do more than compare two answers: rejection sampling (RSO), rounds of win rates (DNO)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed
from paperworks.language.objectives.rso import RSO
from paperworks.language.online.batches import Batch, judged, pairs
from paperworks.language.online.judges import RewardJudge
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.online.rounds import Context
from paperworks.language.sources.dno_pairs import win_rates
from paperworks.language.sources.ranking import Labeller, rank_pairs, reward_labeller
from paperworks.language.sources.rejection import (
    Indices,
    Numbers,
    RejectionOptions,
    first_of_each,
    pointwise_reward,
    rejection_sample,
)


def rejection_sampled(rollouts: Rollouts, context: Context) -> Batch:
    """RSO: accepted candidates of each prompt in ranked pairs.

    With a reward, candidates are weighed by it as a Bradley-Terry score in nats; with a judge, by logit P(y beats y_b),
    y_b the prompt's first candidate, which is then not one itself.
    """
    objective = cast(RSO, context.objective)
    members = [found for found in rollouts.members() if found]
    size = min(map(len, members))
    by_reward = isinstance(context.judge, RewardJudge)
    if not by_reward:
        against = [(each, found[0]) for found in members for each in found[1:size]]
        beats = np.asarray(judged(rollouts, against, context.judge)).reshape(len(members), size - 1)
        rewards, places = pointwise_reward(beats), np.asarray([found[1:size] for found in members])
    else:
        places = np.asarray([found[:size] for found in members])
        rewards = rollouts.rewards.double().numpy()[places] * cast(RewardJudge, context.judge).slope
    available = first_of_each([[rollouts.ids[each] for each in row] for row in places.tolist()])
    options = RejectionOptions(objective.sampler, objective.accepted, objective.beta)
    seed = derive_seed(*context.seed, "rejection")
    enough = available.sum(1) >= objective.accepted
    if not enough.any():
        raise OptionError(
            f"rso: no prompt has {objective.accepted} different answers to accept, the most is {int(available.sum(1).max())}: "
            "raise --samples or --temperature, or lower --accepted"
        )
    places, rewards, available = places[enough], rewards[enough], available[enough]
    accepted = rejection_sample(rewards, options, seed=seed, available=available)
    labeller = reward_labeller(rewards) if by_reward else _asked(rollouts, places, context)
    ranked = rank_pairs(accepted.indices, labeller, ranking=objective.ranking, seed=seed)
    chosen, rejected = (
        np.take_along_axis(places, which, 1).flatten().tolist() for which in (ranked.chosen, ranked.rejected)
    )
    batch = pairs(rollouts, list(zip(chosen, rejected, strict=True)), [1.0] * len(chosen), seed=context.seed)
    few = int((~enough).sum())
    return Batch(
        batch.items, batch.reference, {**batch.left_out, **({"too_few_different_answers": few} if few else {})}
    )


def _asked(rollouts: Rollouts, places: Indices, context: Context) -> Labeller:
    """The judge's own word on two candidates of each prompt; `places` are the responses that candidates' numbers mean."""

    def label(first: Indices, second: Indices) -> Numbers:
        one, two = (np.take_along_axis(places, which, 1).flatten().tolist() for which in (first, second))
        found = judged(rollouts, list(zip(one, two, strict=True)), context.judge)
        return np.asarray(found).reshape(first.shape)

    return label


def round_of_win_rates(rollouts: Rollouts, context: Context) -> Batch:
    """DNO: all pairs of a prompt's answers, each answer's reward its win rate against the others.

    The reference of the round is the policy that wrote them.
    """
    rates = torch.full((len(rollouts),), 0.5)
    candidates: list[tuple[int, int]] = []
    for members in rollouts.members():
        candidates += [(a, b) for at, a in enumerate(members) for b in members[at + 1 :]]
    probabilities = judged(rollouts, candidates, context.judge)
    known = dict(zip(candidates, probabilities, strict=True))
    for members in rollouts.members():
        if len(members) > 1:
            matrix = [[_beats(known, a, b) for b in members] for a in members]
            rates[torch.tensor(members)] = torch.tensor(win_rates(matrix))
    of_round = rollouts.replace(rewards=rates, reference=rollouts.logps)
    return pairs(of_round, candidates, probabilities, seed=context.seed)


def _beats(known: dict[tuple[int, int], float], a: int, b: int) -> float:
    if a == b:
        return 0.5
    found = known.get((a, b))
    return found if found is not None else 1 - known[b, a]
