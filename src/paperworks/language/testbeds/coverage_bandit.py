"""A bandit whose preference data cover only some responses: where a policy can be fooled by responses it has no data on.

One prompt, K responses with Gaussian features. The true reward is linear on the covered responses; outside, the
linear extrapolation is mostly wrong and low. Pairs come from covered responses only. The policy is log-linear, so
that fitting the pairs also moves the others. Rewards, KL and masses are exact sums; seeds and grid points train as
one batched program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.hypo import HybridLogps, HyPO
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps
from paperworks.language.testbeds.independent import losses_of_problems

ONLINE_PROMPTS = 16  # how often a step samples the current policy's responses to the one prompt, for HyPO
SHORTEST, LONGEST = 5, 40  # response lengths: our own addition, so that per-token averages mean something here


@dataclass(frozen=True)
class CoverageBandit:
    """One world a seed."""

    features: Float[Tensor, "seeds responses dimensions"]
    reward: Float[Tensor, "seeds responses"]  # the true reward
    covered: Bool[Tensor, "seeds responses"]  # responses that the preference data come from
    log_reference: Float[Tensor, "seeds responses"]
    lengths: Float[Tensor, "seeds responses"]  # tokens a response, used by per-token averages only

    def log_policy(
        self, weights: Float[Tensor, "*points seeds dimensions"]
    ) -> Float[Tensor, "*points seeds responses"]:
        """log pi of pi proportional to pi_ref exp(features . weights)."""
        linear = (self.features @ weights[..., None])[..., 0]
        return torch.log_softmax(self.log_reference + linear, dim=-1)


@dataclass(frozen=True)
class CoveredPairs:
    """Preference pairs as indices of responses; `base` are responses of a baseline policy, one a pair."""

    chosen: Int[Tensor, "seeds pairs"]
    rejected: Int[Tensor, "seeds pairs"]
    base: Int[Tensor, "seeds pairs"]


@dataclass(frozen=True)
class Course:
    """What happened during training, from the start to the last iterate. A record is a step that was looked at."""

    steps: Int[Tensor, " records"]  # their numbers, 0 first

    reward: Float[Tensor, "records points seeds"]  # expected true reward
    outside: Float[Tensor, "records points seeds"]  # probability of responses that are not covered
    logp_chosen: Float[Tensor, "records points seeds"]  # mean log pi of the chosen responses
    kl: Float[Tensor, "records points seeds"]  # KL(pi || pi_ref), nats
    held_out: Float[Tensor, "records points seeds"]  # the objective's preference loss on held-out pairs

    def at(self, stop: str = "last") -> dict[str, Float[Tensor, "points seeds"]]:
        """reward, outside, logp_chosen and kl where training stops: at the `last` step, at the lowest loss on `held-out`
        pairs, or at the highest true reward (`oracle`, which nobody has in practice)."""
        when = {
            "last": torch.full_like(self.held_out[0], len(self.steps) - 1, dtype=torch.long),
            "held-out": self.held_out.argmin(0),
            "oracle": self.reward.argmax(0),
        }[stop]
        columns = {"reward": self.reward, "outside": self.outside, "logp_chosen": self.logp_chosen, "kl": self.kl}
        return {name: values.gather(0, when[None])[0] for name, values in columns.items()}

    def beside(self, other: Course) -> Course:
        """The points of both, this one's first; both have looked at the same steps of the same seeds."""
        names = ("reward", "outside", "logp_chosen", "kl", "held_out")
        return Course(self.steps, *(torch.cat([getattr(self, n), getattr(other, n)], dim=1) for n in names))


def make_bandit(
    seeds: Sequence[int],
    *,
    responses: int = 100,
    covered: int = 30,
    dimensions: int = 20,
    preference_for_covered: float = 1.0,
) -> CoverageBandit:
    """Worlds with `covered` of `responses` responses covered by the data.

    Features are N(0, I / dimensions); the linear reward has mean 0 and deviation 1 over all responses; a response
    that is not covered has reward 0.2 * linear - 1. The reference prefers covered responses by
    `preference_for_covered` nats.
    """
    if not 2 <= covered <= responses:
        raise OptionError(f"option covered={covered}: expected 2 to {responses}, the number of responses")
    worlds = []
    for seed in seeds:
        generator = torch_generator("coverage bandit", seed)
        features = torch.randn(responses, dimensions, generator=generator, dtype=torch.float64) / dimensions**0.5
        linear = features @ torch.randn(dimensions, generator=generator, dtype=torch.float64)
        linear = (linear - linear.mean()) / linear.std(correction=0)
        is_covered = torch.zeros(responses, dtype=torch.bool)
        is_covered[torch.randperm(responses, generator=generator)[:covered]] = True
        reward = torch.where(is_covered, linear, 0.2 * linear - 1)
        log_reference = torch.log_softmax(preference_for_covered * is_covered.double(), dim=-1)
        lengths = torch.randint(SHORTEST, LONGEST + 1, (responses,), generator=generator).double()
        worlds.append((features, reward, is_covered, log_reference, lengths))
    return CoverageBandit(*(torch.stack(parts) for parts in zip(*worlds, strict=True)))


def draw_covered_pairs(
    bandit: CoverageBandit, seeds: Sequence[int], count: int, *, stream: str = "training", base: str = "reference"
) -> CoveredPairs:
    """`count` Bradley-Terry pairs a seed, each of two different covered responses drawn uniformly.

    base: "reference" draws the baseline responses from pi_ref, "covered" uniformly from the covered responses; both
    once.
    """
    if base not in ("reference", "covered"):
        raise OptionError(f"option base={base}: expected reference or covered")
    drawn = []
    for index, seed in enumerate(seeds):
        generator = torch_generator("coverage bandit pairs", stream, seed)
        pool = bandit.covered[index].nonzero()[:, 0]
        first = torch.randint(len(pool), (count,), generator=generator)
        second = (first + 1 + torch.randint(len(pool) - 1, (count,), generator=generator)) % len(pool)
        first, second = pool[first], pool[second]
        margin = bandit.reward[index, first] - bandit.reward[index, second]
        first_wins = torch.rand(count, generator=generator, dtype=torch.float64) < torch.sigmoid(margin)
        baseline = bandit.log_reference[index].exp() if base == "reference" else bandit.covered[index].double()
        samples = torch.multinomial(baseline, count, replacement=True, generator=generator)
        drawn.append((torch.where(first_wins, first, second), torch.where(first_wins, second, first), samples))
    return CoveredPairs(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def train(
    bandit: CoverageBandit,
    objectives: Sequence[PairObjective],
    pairs: CoveredPairs,
    held_out: CoveredPairs,
    *,
    kl_penalties: Sequence[float] | None = None,
    samples: int = 2,
    seeds: Sequence[int] | None = None,
    steps: int = 1500,
    learning_rate: float = 0.02,
    record_every: int = 10,
) -> Course:
    """Full-batch Adam from pi_ref; every objective is a grid point, trained beside the others on the same pairs.

    kl_penalties: for each objective a coefficient of the exact KL(pi || pi_ref), which HyPO estimates from samples:
    `samples` responses, 16 times a step, drawn by `seeds` (default 0, 1, ...). Recorded are every `record_every`-th step
    and the last.
    """
    training = _Scorer(bandit, objectives, pairs)
    validation = _Scorer(bandit, [_offline(objective) for objective in objectives], held_out)
    online = None
    if any(isinstance(objective, HyPO) for objective in objectives):
        online = _Online(range(len(bandit.reward)) if seeds is None else seeds, steps, samples)
    return descend(
        bandit,
        len(objectives),
        lambda step, logp: training.losses(logp, None if online is None else online.draw(step, logp)),
        kl_penalties=kl_penalties,
        logp_chosen=lambda logp: training.gathered(logp)[:, 0].mean(-1),
        held_out=validation.losses,
        steps=steps,
        learning_rate=learning_rate,
        record_every=record_every,
    )


def descend(
    bandit: CoverageBandit,
    points: int,
    losses: Callable[[int, Float[Tensor, "points seeds responses"]], Float[Tensor, "points seeds"]],
    *,
    logp_chosen: Callable[[Tensor], Tensor],
    held_out: Callable[[Tensor], Tensor],
    kl_penalties: Sequence[float] | None = None,
    steps: int = 1500,
    learning_rate: float = 0.02,
    record_every: int = 10,
) -> Course:
    """Adam from pi_ref on `losses(step, log pi)`, plus each point's KL penalty; the last two functions are recorded."""
    penalties = torch.tensor([0.0] * points if kl_penalties is None else list(kl_penalties), dtype=torch.float64)
    seeds, _, dimensions = bandit.features.shape
    weights = torch.zeros(points, seeds, dimensions, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=learning_rate)
    at: list[int] = []
    records: list[tuple[Tensor, ...]] = []
    for step in range(steps + 1):
        logp = bandit.log_policy(weights)
        kl = (logp.exp() * (logp - bandit.log_reference)).sum(-1)
        if step % record_every == 0 or step == steps:
            at.append(step)
            now = logp.detach()
            reward, outside = ((now.exp() * values).sum(-1) for values in (bandit.reward, ~bandit.covered))
            records.append((reward, outside, logp_chosen(now), kl.detach(), held_out(now)))
        if step < steps:
            adam.zero_grad()
            total = losses(step, logp).sum()
            if kl_penalties is not None:
                total = total + (penalties[:, None] * kl).sum()
            total.backward()
            adam.step()
    return Course(torch.tensor(at), *(torch.stack(parts) for parts in zip(*records, strict=True)))


def run(
    objectives: Sequence[PairObjective],
    seeds: Sequence[int],
    *,
    covered: int = 30,
    pairs: int = 200,
    held_out_pairs: int = 100,
    base: str = "reference",
    kl_penalties: Sequence[float] | None = None,
    samples: int = 2,
    steps: int = 1500,
) -> Course:
    """Make the seeds' worlds and pairs, and train every objective on them (see `train`)."""
    bandit = make_bandit(seeds, covered=covered)
    training = draw_covered_pairs(bandit, seeds, pairs, base=base)
    held_out = draw_covered_pairs(bandit, seeds, held_out_pairs, stream="held out", base=base)
    return train(
        bandit,
        objectives,
        training,
        held_out,
        kl_penalties=kl_penalties,
        samples=samples,
        seeds=seeds,
        steps=steps,
    )


class _Scorer:
    """The losses of all grid points on one set of pairs; what does not change during training is gathered once."""

    def __init__(self, bandit: CoverageBandit, objectives: Sequence[PairObjective], pairs: CoveredPairs) -> None:
        self.objectives = objectives
        self._log_reference = bandit.log_reference
        self.index = torch.stack([pairs.chosen, pairs.rejected, pairs.base])  # [roles, seeds, pairs]
        if not any("base" in objective.roles for objective in objectives):
            self.index = self.index[:2]
        self.lengths = [bandit.lengths.gather(-1, index).flatten() for index in self.index]
        self.reference = [bandit.log_reference.gather(-1, index).flatten() for index in self.index]

    def gathered(self, logp: Float[Tensor, "points seeds responses"]) -> Float[Tensor, "points roles seeds pairs"]:
        """log pi of the responses of each role."""
        points, roles = len(logp), len(self.index)
        table = logp[:, None].expand(-1, roles, -1, -1)
        return table.gather(-1, self.index.expand(points, -1, -1, -1))

    def losses(
        self, logp: Float[Tensor, "points seeds responses"], online: Int[Tensor, "points seeds prompts k"] | None = None
    ) -> Float[Tensor, "points seeds"]:
        """Every objective's mean over each seed's pairs; `online` are responses that the current policy drew."""
        losses = []
        for point, (objective, by_role) in enumerate(
            zip(self.objectives, self.gathered(logp).flatten(-2), strict=True)
        ):
            scores = [
                ResponseLogps(policy, lengths, reference)
                for policy, lengths, reference in zip(by_role, self.lengths, self.reference, strict=True)
            ]
            weight = torch.ones_like(scores[0].policy)
            batch = PairLogps(scores[0], scores[1], weight, scores[2] if "base" in objective.roles else None)
            if online is not None and isinstance(objective, HyPO):
                batch = HybridLogps(scores[0], scores[1], weight, online=self._online(logp[point], online[point]))
            losses.append(losses_of_problems(objective, batch, logp.shape[1]))
        return torch.stack(losses)

    def _online(self, logp: Float[Tensor, "seeds responses"], drawn: Int[Tensor, "seeds prompts k"]) -> ResponseLogps:
        """The drawn responses, those of a prompt beside each seed's first pairs."""
        seeds, prompts, each = drawn.shape
        index = drawn.flatten(1)
        row = torch.arange(seeds)[:, None] * self.index.shape[-1] + torch.arange(prompts)
        policy, reference = logp.gather(1, index).flatten(), self._log_reference.gather(1, index).flatten()
        return ResponseLogps(policy, torch.ones_like(reference), reference, row=row.flatten().repeat_interleave(each))


class _Online:
    """Responses of the current policy, from random numbers that are each seed's own and the same for all points."""

    def __init__(self, seeds: Sequence[int], steps: int, samples: int) -> None:
        shape = (steps, ONLINE_PROMPTS, samples)
        self._uniform = torch.stack(
            [torch.rand(shape, generator=torch_generator("coverage bandit online", seed)) for seed in seeds], dim=1
        ).double()

    def draw(self, step: int, logp: Float[Tensor, "points seeds responses"]) -> Int[Tensor, "points seeds prompts k"]:
        """A step's samples, by inverting the distribution function."""
        uniform = self._uniform[step]
        reach = logp.detach().exp().cumsum(-1)
        values = uniform.flatten(1).expand(len(logp), -1, -1).contiguous()
        drawn = torch.searchsorted(reach, values).clamp(max=logp.shape[-1] - 1)
        return drawn.unflatten(-1, uniform.shape[1:])


def _offline(objective: PairObjective) -> PairObjective:
    """What judges held-out pairs: of HyPO the loss on pairs alone."""
    return DPO(beta=objective.beta) if isinstance(objective, HyPO) else objective
