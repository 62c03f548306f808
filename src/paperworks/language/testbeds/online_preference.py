"""Online learning from a judge who prefers in circles: small decoders that complete lists, and how they fare in play.

All strengths and seeds of an arm are nets of one batch. Where the two answers to a prompt are drawn and what is learned
from them is a `Rule`; what became of a run is a `Course`, whose policies can be played against those of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import PairObjective, ResponseLogps
from paperworks.language.objectives.soft_preferences import IPOMD, JudgedPairLogps, OnlineDPO, OnlineIPO, OnlineSLiC
from paperworks.language.testbeds import list_completion
from paperworks.language.testbeds.decoder_learning import (
    by_setting,
    kl_of,
    leave_one_out_by_net,
    policy_gradient_update,
    summed_logps,
)
from paperworks.language.testbeds.decoders import Adam, Decoders, Responses, fit_scores, scores_of
from paperworks.language.testbeds.list_completion import PLAYED, PROMPT, STEPS, Traits, preference, traits_of, win_rates

Kind = Literal["ipo", "dpo", "slic", "nash-md", "rl"]
OBJECTIVES: dict[str, Callable[[float, float], PairObjective]] = {  # strength (tau or beta), mixture
    "ipo": lambda tau, mixture: IPOMD(tau=tau, mix=mixture) if 0 < mixture < 1 else OnlineIPO(tau=tau),
    "dpo": lambda beta, mixture: OnlineDPO(beta=beta),
    "slic": lambda beta, mixture: OnlineSLiC(beta=beta),
}


Point = tuple[float, float]  # of a grid: strength (tau or beta) and Adam's learning rate, which falls linearly to 0


@dataclass(frozen=True)
class Rule:
    """How a policy learns: by which loss, and the share of the reference in the mixture that its answers come from."""

    kind: Kind
    mixture: float = 0.0  # 0 the policy itself, 1 the reference


@dataclass(frozen=True)
class Scale:
    """How long is learned, from how many prompts a step, and on how many is judged."""

    steps: int = 150
    prompts: int = 24  # a step, two answers each
    judged: int = 384  # held-out prompts
    points: int = 8  # at which it is judged, after the start
    imitation: int = 300
    reward_steps: int = 300

    def judged_last(self) -> Scale:
        """The same, judged at the start and at the end alone."""
        return replace(self, points=1)


@dataclass(frozen=True)
class World:
    """Seeds side by side: their supervised policies, and Bradley-Terry rewards fitted to the judge's choices."""

    policy: Decoders
    reward_model: Decoders

    def save(self, folder: Path) -> None:
        """As two files of a folder."""
        list_completion.save_net(self.policy, folder / "policy.safetensors")
        list_completion.save_net(self.reward_model, folder / "reward.safetensors")

    @classmethod
    def load(cls, folders: Sequence[Path]) -> World:
        """The worlds of folders side by side."""
        files = ([folder / f"{name}.safetensors" for folder in folders] for name in ("policy", "reward"))
        return cls(*(list_completion.load_nets(each) for each in files))


@dataclass(frozen=True)
class Course:
    """What became of nets: their divergence from the reference, and the traits of their answers to held-out prompts."""

    kl: Float[Tensor, "points nets"]
    traits: Float[Tensor, "points nets played judged 3"]
    learned_with: Float[Tensor, "nets 2"]  # strength and learning rate

    def save(self, net: int, path: Path) -> None:
        """One net's course as a safetensors file."""
        kept = {"kl": self.kl[:, [net]], "traits": self.traits[:, [net]], "learned_with": self.learned_with[[net]]}
        save_file({name: value.contiguous() for name, value in kept.items()}, path)

    @classmethod
    def load(cls, files: Sequence[Path]) -> Course:
        """Courses of single nets side by side."""
        found = [load_file(file) for file in files]
        kl, traits = (torch.cat([each[name] for each in found], 1) for name in ("kl", "traits"))
        return cls(kl, traits, torch.cat([each["learned_with"] for each in found]))


def make_world(seed: int, scale: Scale) -> World:
    """A seed's policy, and the reward model that it has from 32 pairs of its answers a step."""
    policy = list_completion.imitator(seed, steps=scale.imitation)
    draw = torch_generator(seed, "reward pairs")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        written = policy.sample(list_completion.make_prompts(32, draw).repeat_interleave(2, 0)[None], STEPS, draw)
        first, second = (written.tokens[:, place::2] for place in (0, 1))
        wins = torch.rand(first.shape[:2], generator=draw) < _preferences(written)
        return torch.where(wins[..., None], first, second), torch.where(wins[..., None], second, first)

    return World(policy, fit_scores(policy, batch, PROMPT, steps=scale.reward_steps, rate=2e-3))


def train(world: World, seeds: Sequence[int], rule: Rule, grid: Sequence[Point], scale: Scale) -> Course:
    """Learn by the rule at every point of the grid, in the world of every seed (nets by point, then seed)."""
    places, seeds = list(range(len(seeds))) * len(grid), list(seeds) * len(grid)
    reference = world.policy.take(places)
    policy = reference.trainable()
    reward_model = world.reward_model.take(places) if rule.kind == "rl" else None
    learner = _Learner(rule, seeds, policy, reference, reward_model, [strength for strength, _ in grid])
    adam = Adam(policy, by_setting(len(policy), [rate for _, rate in grid]))
    points = [_judged(policy, reference, seeds, scale)]
    for step in range(scale.steps):
        learner.step(step, scale.prompts, adam, 1 - step / scale.steps)
        if (step + 1) * scale.points // scale.steps > step * scale.points // scale.steps:
            points.append(_judged(policy, reference, seeds, scale))
    kl, found = (torch.stack(column) for column in zip(*points, strict=True))
    return Course(kl, found, torch.tensor(list(grid)).repeat_interleave(len(world.policy), 0))


@dataclass(frozen=True)
class _Learner:
    """Nets that learn by a rule, as many at each strength."""

    rule: Rule
    seeds: Sequence[int]
    policy: Decoders
    reference: Decoders
    reward_model: Decoders | None
    strengths: Sequence[float]

    def step(self, number: int, count: int, adam: Adam, factor: float) -> None:
        """One optimiser step on two answers to each of `count` prompts."""
        prompts = list_completion.prompts_of(self.seeds, count, number)
        twice = prompts.repeat_interleave(2, 1)
        if self.rule.kind in OBJECTIVES:
            adam.step(self._pair_loss(self._mixed(twice, number)), factor=factor)
            return
        asked = twice if self.rule.kind == "rl" else prompts
        written = self.policy.sample(asked, STEPS, self._numbers(asked, number, "own"))
        value = self._rewards(written) if self.rule.kind == "rl" else self._wins(written, self._mixed(prompts, number))
        policy_gradient_update(self.policy, adam, written, value, factor=factor)

    def _pair_loss(self, written: Responses) -> Float[Tensor, " nets"]:
        """The library's objective on pairs of answers in a row, with the judge's probability as the label."""
        own = summed_logps(self.policy, written.tokens, PROMPT)
        with torch.no_grad():
            other = summed_logps(self.reference, written.tokens, PROMPT)
        label, counts = _preferences(written), written.counts.float()
        each, losses = len(self.policy) // len(self.strengths), []
        for at, strength in enumerate(self.strengths):
            nets = slice(at * each, (at + 1) * each)
            first, second = (
                ResponseLogps(own[nets, k::2].flatten(), counts[nets, k::2].flatten(), other[nets, k::2].flatten())
                for k in (0, 1)
            )
            batch = JudgedPairLogps(first, second, torch.ones_like(first.tokens), None, label[nets].flatten())
            losses.append(OBJECTIVES[self.rule.kind](strength, self.rule.mixture).loss(batch).view(each, -1).mean(1))
        return torch.cat(losses)

    def _rewards(self, written: Responses) -> Float[Tensor, "nets rows"]:
        """RL's advantages: learned reward - beta h(y), less that of the prompt's other answer."""
        assert self.reward_model is not None
        with torch.no_grad():
            reward = scores_of(self.reward_model, written.tokens, PROMPT)
        return leave_one_out_by_net(reward - self._held(written), 2)

    def _wins(self, written: Responses, opponent: Responses) -> Float[Tensor, "nets rows"]:
        """Nash-MD-PG's: P(y > y') - tau h(y), y' the mixture's, less the mean of the net's other answers."""
        wins = preference(traits_of(written), traits_of(opponent))
        return leave_one_out_by_net(wins - self._held(written), wins.shape[1])

    @torch.no_grad()
    def _held(self, written: Responses) -> Float[Tensor, "nets rows"]:
        """strength * h(y)."""
        log_ratio = written.logps.sum(-1) - summed_logps(self.reference, written.tokens, PROMPT)
        return by_setting(len(self.policy), self.strengths)[:, None] * log_ratio

    def _mixed(self, prompts: Int[Tensor, "nets rows prompt"], number: int) -> Responses:
        """Answers of the mixture of policy and reference."""
        share, numbers = self.rule.mixture, self._numbers(prompts, number, "mixed")
        if share in (0.0, 1.0):
            return (self.reference if share else self.policy).sample(prompts, STEPS, numbers)
        return self.policy.sample(prompts, STEPS, numbers, mixed_with=self.reference, share=share)

    def _numbers(self, prompts: Int[Tensor, "nets rows prompt"], number: int, purpose: str) -> Tensor:
        return list_completion.numbers_of(self.seeds, prompts.shape[1], purpose, number)


def against_start(course: Course) -> Float[Tensor, "points nets"]:
    """Win rates against the policy that the course began with."""
    return win_rates(course.traits, course.traits[:1].expand_as(course.traits))


def weights_at_kl(course: Course, net: int, kl: float) -> Float[Tensor, " points"]:
    """Weights of a course's points, two next to each other, where its divergence first reaches `kl`."""
    weights = torch.zeros(len(course.kl))
    reached = (course.kl[1:, net] >= kl).nonzero()
    point = 1 + int(reached[0]) if len(reached) else len(weights) - 1
    low, high = course.kl[point - 1 : point + 1, net].tolist()
    share = min(max((kl - low) / (high - low), 0.0), 1.0) if high > low else 1.0
    weights[point - 1], weights[point] = 1 - share, share
    return weights


def matched_win_rate(first: Course, second: Course, net: int) -> tuple[float, float]:
    """Win rate of two courses' policies at the largest divergence that both reach, and that divergence.

    Between points of a course win rates are interpolated, linearly in the divergence.
    """
    level = min(float(course.kl[:, net].max()) for course in (first, second))
    own, other = (weights_at_kl(course, net, level) for course in (first, second))
    rates = win_rates(first.traits[:, None, net], second.traits[None, :, net])
    return float(own @ rates @ other), level


def _preferences(written: Responses) -> Float[Tensor, "nets pairs"]:
    """P(the first of two answers in a row is preferred)."""
    found = traits_of(written).stacked()
    return preference(Traits.of(found[:, 0::2]), Traits.of(found[:, 1::2]))


def _judged(
    policy: Decoders, reference: Decoders, seeds: Sequence[int], scale: Scale
) -> tuple[Float[Tensor, " nets"], Float[Tensor, "nets played judged 3"]]:
    """Divergence and traits on held-out prompts."""
    prompts = list_completion.prompts_of(seeds, scale.judged, "held out").repeat(1, PLAYED, 1)
    kl, written = kl_of(
        policy, reference, prompts, STEPS, list_completion.numbers_of(seeds, prompts.shape[1], "judged")
    )
    return kl, traits_of(written).stacked().unflatten(1, (PLAYED, scale.judged))
