"""Online methods by name: who writes, how answers become rows, and the objective those rows train.

A method is a source, a builder and an objective; its entry here says just that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives.copg import CoPG
from paperworks.language.objectives.dr_po import DRPO
from paperworks.language.objectives.hypo import HyPO
from paperworks.language.objectives.nash_md import NashMD
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.pf_ppo import PFPPO
from paperworks.language.objectives.policy_gradient import GRPO, PPO, RLOO, Reinforce, RolloutObjective
from paperworks.language.objectives.rso import RSO
from paperworks.language.objectives.rto import RTO
from paperworks.language.objectives.sft import BestOfNDistill
from paperworks.language.objectives.soft_preferences import DNO, IPOMD, OnlineDPO, OnlineIPO
from paperworks.language.objectives.xpo import XPO
from paperworks.language.online.batches import Batch, PairRule, best, candidate_pairs, groups, judged, pairs
from paperworks.language.online.collecting import Draw
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.online.rounds import Context
from paperworks.language.online.source_pairs import rejection_sampled, round_of_win_rates

Draws = Callable[[Any, OnlineOptions], Sequence[Draw]]
Build = Callable[[Rollouts, Context], Batch]


@dataclass(frozen=True)
class Method:
    """How a policy learns from its own answers."""

    name: str
    objective: type[Objective]
    build: Build
    draws: Draws
    defaults: Mapping[str, object] = field(default_factory=dict)  # of OnlineOptions
    judges: bool = False  # compares answers in pairs, so that a judge may stand in for a reward
    needs_reward: bool = True
    needs_reference: bool = True
    takes_pairs: bool = False  # trains on a preference file beside its own answers
    replays: bool = False  # an iteration trains on all rows so far
    penalises: bool = False  # OnlineOptions.kl_coef weighs a KL penalty in its reward
    by_likelihood: bool = False  # its gradient is that of its samples' likelihood, right for the policy that drew them
    least_samples: int = 1  # 2 where it learns from how a prompt's answers differ


def _own(objective: Any, options: OnlineOptions) -> Sequence[Draw]:
    return [Draw("policy", options.samples)]


def _start(objective: Any, options: OnlineOptions) -> Sequence[Draw]:
    return [Draw("reference", options.samples)]


def _mixed(objective: Any, options: OnlineOptions) -> Sequence[Draw]:
    return [Draw("mixture", options.samples, objective.mix)]


def _against_mixture(objective: Any, options: OnlineOptions) -> Sequence[Draw]:
    return [Draw("policy", options.samples), Draw("mixture", options.samples, objective.mix)]


def _with_reference(objective: Any, options: OnlineOptions) -> Sequence[Draw]:
    """One answer of the policy and one of the fixed sampler, for each pair that is asked for."""
    half = max(1, options.samples // 2)
    return [Draw("policy", half), Draw("reference", half)]


def policy_gradient(rollouts: Rollouts, context: Context) -> Batch:
    """Every answer with its credit."""
    objective = cast(RolloutObjective, context.objective)
    return groups(rollouts, objective.credit(rollouts, context.penalty))


def filtered(rollouts: Rollouts, context: Context) -> Batch:
    """PF-PPO: credit over all answers, then those that the filter keeps."""
    objective = cast(PFPPO, context.objective)
    credit = objective.credit(rollouts, context.penalty)
    kept = objective.selected(rollouts, context.seed)
    batch = groups(rollouts.select(kept), {name: rollouts.of(values, kept) for name, values in credit.items()})
    dropped = len(rollouts) - len(set(kept))
    return Batch(batch.items, batch.reference, {"filtered_out": dropped} if dropped else {})


def against_mixture(rollouts: Rollouts, context: Context) -> Batch:
    """Nash-MD: each of the policy's answers is worth the probability that it beats one of the mixture's."""
    own: list[int] = []
    candidates: list[tuple[int, int]] = []
    for members in rollouts.members():
        half = len(members) // 2
        own += members[:half]
        candidates += list(zip(members[:half], members[half:], strict=True))
    probabilities = judged(rollouts, candidates, context.judge)
    chosen = rollouts.select(own).replace(rewards=torch.tensor(probabilities))
    return policy_gradient(chosen, context)


def compared(rule: PairRule, *, soft: bool = True) -> Build:
    """Pairs of a prompt's answers, labelled by the judge."""

    def build(rollouts: Rollouts, context: Context) -> Batch:
        candidates, without = candidate_pairs(rollouts, rule)
        batch = pairs(rollouts, candidates, judged(rollouts, candidates, context.judge), seed=context.seed, soft=soft)
        left_out = {**batch.left_out, **({"no_pair": without} if without else {})}
        return Batch(batch.items, batch.reference, left_out)

    return build


def explored(rollouts: Rollouts, context: Context) -> Batch:
    """XPO: each of the policy's answers against one of the fixed sampler's, the label drawn from the judge's probability."""
    candidates: list[tuple[int, int]] = []
    for members in rollouts.members():
        half = len(members) // 2
        candidates += list(zip(members[:half], members[half:], strict=True))
    return pairs(rollouts, candidates, judged(rollouts, candidates, context.judge), seed=context.seed, soft=False)


def best_answers(rollouts: Rollouts, context: Context) -> Batch:
    """The answer of highest reward to each prompt, to imitate."""
    return groups(rollouts.select(best(rollouts)), {})


def scored_groups(rollouts: Rollouts, context: Context) -> Batch:
    """All answers of each prompt with their rewards, compared with the reference."""
    return groups(rollouts, {}, with_reference=True)


def beside_pairs(rollouts: Rollouts, context: Context) -> Batch:
    """HyPO: the rows of the preference file that gave the prompts, and the policy's answers in the role "online"."""
    from paperworks.language.online.offline_pairs import with_online

    assert context.offline is not None
    return with_online(context.offline(), rollouts)


def _by_likelihood(
    name: str,
    objective: type[Objective],
    defaults: Mapping[str, object] | None = None,
    build: Build = policy_gradient,
    draws: Draws = _own,
    **rest: Any,
) -> Method:
    return Method(name, objective, build, draws, defaults or {}, by_likelihood=True, **rest)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _by_likelihood("reinforce", Reinforce, penalises=True),
        _by_likelihood("rloo", RLOO, penalises=True, least_samples=2),
        _by_likelihood("grpo", GRPO, least_samples=2),
        _by_likelihood("ppo", PPO, {"samples": 1, "updates": 4}, penalises=True),
        _by_likelihood("pf-ppo", PFPPO, {"samples": 5, "updates": 3}, filtered, penalises=True, least_samples=2),
        _by_likelihood("rto", RTO, {"samples": 1, "updates": 4, "kl_coef": 0.01}, penalises=True),
        _by_likelihood("dr-po", DRPO, {"samples": 1, "updates": 4}, penalises=True),
        _by_likelihood("nash-md", NashMD, {"samples": 1}, against_mixture, _against_mixture, judges=True),
        Method("online-dpo", OnlineDPO, compared("best-worst"), _own, {"samples": 2}, judges=True, least_samples=2),
        Method("online-ipo", OnlineIPO, compared("first-two"), _own, {"samples": 2}, judges=True, least_samples=2),
        Method("ipo-md", IPOMD, compared("first-two"), _mixed, {"samples": 2}, judges=True, least_samples=2),
        Method("xpo", XPO, explored, _with_reference, {"samples": 2}, judges=True, replays=True, least_samples=2),
        Method(
            "rso", RSO, rejection_sampled, _start, {"samples": 64, "temperature": 0.7, "top_k": 40}, judges=True
        ),
        Method("dno", DNO, round_of_win_rates, _own, {"samples": 5}, judges=True, needs_reference=False),
        _by_likelihood("copg", CoPG, build=scored_groups, least_samples=2),
        Method("hypo", HyPO, beside_pairs, _own, {"samples": 2}, needs_reward=False, takes_pairs=True),
        Method("best-of-n-distill", BestOfNDistill, best_answers, _own, {"samples": 8}, needs_reference=False),
    )
}  # fmt: skip


def trainable_class(name: str) -> type[Objective]:
    """The class of an objective or of an online method of that name. Raises OptionError naming the nearest one."""
    from paperworks.language.objectives import objective_class

    spelling = name.strip().lower().replace("_", "-")
    return METHODS[spelling].objective if spelling in METHODS else objective_class(name)


def trainable_names() -> list[str]:
    """Every name that can be trained: objectives, then online methods."""
    from paperworks.language.objectives import objective_names

    return list(dict.fromkeys([*objective_names(), *METHODS]))


def online_method(name: str) -> Method:
    """The method of that name. Raises OptionError."""
    from paperworks.core.errors import did_you_mean

    if name not in METHODS:
        raise OptionError(f"unknown online method {name!r}{did_you_mean(name, METHODS)}")
    return METHODS[name]
