"""A combination lock: one right action a step, a reward only at the end, and logged ways to it.

A wrong action leads to a dead state for good; who takes all H right ones gets reward 1. The start policy takes the right one
with a fixed probability, so that it opens a long lock almost never, but half of the logged trajectories do. Policies are
tables of the living states (in the dead one nothing matters), values are exact, and all seeds are one batched program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator

Starts = Literal["prompt", "data", "sft"]


@dataclass(frozen=True)
class Lock:
    """One lock a seed; `right` are the right actions."""

    right: Int[Tensor, "seeds steps"]
    actions: int
    log_start: Float[Tensor, "seeds steps actions"]  # the start policy, log pi_SFT(a | alive at h)

    def right_probability(self, log_policy: Float[Tensor, "seeds steps actions"]) -> Float[Tensor, "seeds steps"]:
        """The probability of the right action in each living state."""
        return log_policy.gather(-1, self.right[..., None])[..., 0].exp()

    def value(self, log_policy: Float[Tensor, "seeds steps actions"]) -> Float[Tensor, " seeds"]:
        """The exact probability of opening the lock from the start."""
        return self.right_probability(log_policy).prod(-1)


@dataclass(frozen=True)
class Logged:
    """Logged trajectories: their actions, and before how many steps they were alive (H + 1 for those that open the lock)."""

    actions: Int[Tensor, "seeds trajectories steps"]
    alive: Int[Tensor, "seeds trajectories"]  # living states visited: 1 to H, H + 1 when the lock was opened

    @property
    def opened(self) -> Bool[Tensor, "seeds trajectories"]:
        return self.alive > self.actions.shape[-1]


@dataclass(frozen=True)
class Learned:
    """How the value rose: the exact value before each update, and after the last."""

    values: Float[Tensor, "updates seeds"]
    episodes: int  # an update

    def episodes_until(self, value: float) -> Float[Tensor, " seeds"]:
        """Episodes until the value first exceeded `value`; all that there were where it never did (a lower bound)."""
        reached = self.values > value
        first = torch.where(reached.any(0), reached.int().argmax(0), torch.tensor(len(self.values) - 1))
        return first.double() * self.episodes


def natural_gradient_step(
    log_start: Float[Tensor, "*states actions"],
    log_policy: Float[Tensor, "*states actions"],
    q: Float[Tensor, "*states actions"],
    *,
    step_size: float,
    kl_weight: float,
) -> Float[Tensor, "*states actions"]:
    """The policy that minimises -<q, p> + kl_weight KL(p || start) + KL(p || policy) / step_size in every state.

    Proportional to start^(eta lam / (eta lam + 1)) policy^(1 / (eta lam + 1)) exp(eta q / (eta lam + 1)), eta the step size,
    lam the KL weight (arXiv 2404.08495, section 4). Log-probabilities in and out.
    """
    scale = 1 + step_size * kl_weight
    mixed = (step_size * kl_weight / scale) * log_start + log_policy / scale + (step_size / scale) * q
    return torch.log_softmax(mixed, dim=-1)


def make_lock(seeds: Sequence[int], steps: int, *, actions: int = 4, right_probability: float = 0.35) -> Lock:
    """Locks with random right actions, which the start policy takes with `right_probability`, others alike."""
    if not 0 < right_probability < 1 or actions < 2:
        raise OptionError(f"option right_probability={right_probability}: expected in (0, 1), with 2 actions or more")
    right = torch.stack(
        [torch.randint(actions, (steps,), generator=torch_generator("lock", steps, seed)) for seed in seeds]
    )
    start = torch.full((len(seeds), steps, actions), (1 - right_probability) / (actions - 1), dtype=torch.float64)
    start.scatter_(-1, right[..., None], right_probability)
    return Lock(right, actions, start.log())


def log_trajectories(lock: Lock, seeds: Sequence[int], count: int, *, expert_share: float = 0.5) -> Logged:
    """`count` logged trajectories a seed: the first `expert_share` of them open the lock, the start policy wrote the others."""
    steps = lock.right.shape[1]
    experts = round(count * expert_share)
    drawn = []
    for index, seed in enumerate(seeds):
        generator = torch_generator("lock data", steps, seed)
        probabilities = lock.log_start[index].exp()
        actions = torch.multinomial(probabilities, count, replacement=True, generator=generator).T.clone()
        actions[:experts] = lock.right[index]
        drawn.append(actions)
    actions = torch.stack(drawn)
    return Logged(actions, _living_states(actions == lock.right[:, None]))


def learned_reward(lock: Lock, logged: Logged, seeds: Sequence[int], pairs: int) -> Float[Tensor, " seeds"]:
    """The reward of opening the lock (0 for not) by maximum likelihood from labelled pairs of logged trajectories.

    Bradley-Terry on the true reward labels them. A table of trajectory rewards has two entries here, opened or not, and the
    estimate is the log-odds of the label over pairs of one of each; half a label a side keeps it finite.
    """
    found = []
    for index, seed in enumerate(seeds):
        generator = torch_generator("lock preferences", lock.right.shape[1], seed)
        members = torch.randint(logged.alive.shape[1], (2, pairs), generator=generator)
        opened = logged.opened[index][members]
        telling = int((opened[0] != opened[1]).sum())
        label = torch.rand(telling, generator=generator, dtype=torch.float64) < torch.sigmoid(
            torch.tensor(1.0).double()
        )
        wins = float(label.sum())
        found.append(math.log((wins + 0.5) / (telling - wins + 0.5)))
    return torch.tensor(found, dtype=torch.float64)


def clone_behaviour(lock: Lock, logged: Logged) -> Float[Tensor, "seeds steps actions"]:
    """Behaviour cloning: log of the actions' frequencies in each living state of the data; uniform where there are none."""
    steps = lock.right.shape[1]
    alive = torch.arange(steps) < logged.alive[..., None]  # [seeds, trajectories, steps]
    counts = torch.zeros(len(lock.right), steps, lock.actions, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(logged.actions, lock.actions).double()
    counts += (one_hot * alive[..., None]).sum(1)
    smallest = 1e-12  # a frequency of 0 has no logarithm
    return ((counts + smallest) / (counts + smallest).sum(-1, keepdim=True)).log()


def train_lock(
    lock: Lock,
    logged: Logged,
    seeds: Sequence[int],
    *,
    starts: Starts,
    reward: Float[Tensor, " seeds"] | None = None,
    updates: int = 300,
    episodes: int = 64,
    step_size: float = 1.0,
    kl_weight: float = 0.02,
    first: Float[Tensor, "seeds steps actions"] | None = None,
    until: float | None = None,
) -> Learned:
    """Natural policy gradient with episodes from the `prompt`, or from logged states of all the `data` or of `sft` alone.

    A logged state: a trajectory at random, a step of it at random. The critic is the mean return of each state and action:
    with resets of the first pair of each episode (the paper's), from the prompt of every pair on the way, which is more data.
    What was not seen has value 0. reward: of opening the lock, 1 by default. first: the log-policy to begin with, the start
    policy by default; the KL is to the start policy in any case. Training ends early where every seed's value
    exceeds `until`. The draws of a seed do not depend on other seeds.
    """
    if starts not in ("prompt", "data", "sft"):
        raise OptionError(f"option starts={starts}: expected prompt, data or sft")
    count, steps = lock.right.shape
    gain = torch.ones(count, dtype=torch.float64) if reward is None else reward
    log_policy = lock.log_start if first is None else first
    values = [lock.value(log_policy)]
    generators = [torch_generator("lock training", starts, steps, seed) for seed in seeds]
    for _ in range(updates):
        chance = torch.stack([torch.rand(episodes, steps + 3, generator=g, dtype=torch.float64) for g in generators])
        began, living = _starts(logged, chance[..., steps:], starts, steps)
        cumulative = log_policy.exp().cumsum(-1)
        chosen = (chance[..., :steps, None] > cumulative[:, None]).sum(-1).clamp(max=lock.actions - 1)
        place = torch.arange(steps)
        written = place >= began[..., None]
        correct = (chosen == lock.right[:, None]) | ~written
        opened = living & correct.all(-1)
        alive = living[..., None] & ((~correct).long().cumsum(-1) - (~correct).long() == 0) & written
        counted = alive if starts == "prompt" else alive & (place == began[..., None])
        log_policy = natural_gradient_step(
            lock.log_start,
            log_policy,
            _mean_returns(chosen, counted, opened.double() * gain[:, None], lock.actions),
            step_size=step_size,
            kl_weight=kl_weight,
        )
        values.append(lock.value(log_policy))
        if until is not None and bool((torch.stack(values).amax(0) > until).all()):
            break
    return Learned(torch.stack(values), episodes)


def _starts(
    logged: Logged, chance: Float[Tensor, "seeds episodes three"], starts: Starts, steps: int
) -> tuple[Int[Tensor, "seeds episodes"], Bool[Tensor, "seeds episodes"]]:
    """At which step each episode begins, and whether alive."""
    if starts == "prompt":
        began = torch.zeros(chance.shape[:2], dtype=torch.long)
        return began, torch.ones_like(began, dtype=torch.bool)
    total = logged.alive.shape[1]
    first = total // 2 if starts == "sft" else 0  # the second half are the start policy's own
    which = first + (chance[..., 0] * (total - first)).long()
    began = (chance[..., 1] * steps).long()
    return began, logged.alive.gather(1, which) > began


def _mean_returns(
    chosen: Int[Tensor, "seeds episodes steps"],
    counted: Bool[Tensor, "seeds episodes steps"],
    returns: Float[Tensor, "seeds episodes"],
    actions: int,
) -> Float[Tensor, "seeds steps actions"]:
    """Least squares on a table: the mean return of each living state and action that counts; 0 where there is none."""
    one_hot = torch.nn.functional.one_hot(chosen, actions).double() * counted[..., None]
    count = one_hot.sum(1)
    return (one_hot * returns[..., None, None]).sum(1) / count.clamp(min=1)


def _living_states(correct: Bool[Tensor, "seeds trajectories steps"]) -> Int[Tensor, "seeds trajectories"]:
    return 1 + correct.long().cumprod(-1).sum(-1)
