"""Methods of HNPG's paper on continuous combination locks, whole seeds side by side: how fast each one opens its lock.

Every method gets the same fresh episodes an iteration, and (but for TRPO) the same log.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws
from paperworks.control.distributions import TanhGaussian
from paperworks.control.hybrid.episodes import Episodes, Logged, Streams
from paperworks.control.hybrid.hnpg import HNPG, TRPOOptions
from paperworks.control.hybrid.policies import GaussianPolicies
from paperworks.control.hybrid.rlpd import RLPD, RLPDOptions, mixed
from paperworks.control.learner import Shapes
from paperworks.control.testbeds.comblock import LATENT_ACTIONS, Comblock
from paperworks.core.seeding import torch_generator

Act = Callable[[Tensor, int], Tensor]  # what is seen [locks, episodes, state] and the step, to actions
Choose = Callable[[Tensor, Tensor, int], Tensor]  # the same, told the latent states too


@dataclass(frozen=True)
class Played:
    """Episodes of every lock; what is seen behind the last step is the last of `states`."""

    states: Float[Tensor, "locks steps_and_one episodes state"]
    actions: Float[Tensor, "locks steps episodes action"]
    rewards: Float[Tensor, "locks steps episodes"]

    @property
    def opened(self) -> Float[Tensor, " locks"]:
        """The share of episodes whose last step paid 1."""
        return (self.rewards[:, -1] >= 1).float().mean(1)

    def draw(self, rows: int, streams: Streams) -> Logged:
        """`rows` transitions of every step, uniform with replacement."""
        locks, steps, episodes = self.rewards.shape
        picked = streams.below("logged rows", torch.full((steps,), episodes), rows)
        lock, step = torch.arange(locks)[:, None, None], torch.arange(steps)[None, :, None]
        states, actions, rewards, following = (
            values[lock, step + later, picked].to(streams.dtype)
            for values, later in ((self.states, 0), (self.actions, 0), (self.rewards, 0), (self.states, 1))
        )
        return Logged(states, actions, rewards, following, torch.ones_like(rewards))

    def rows(self, places: Tensor) -> Batch:
        """Transitions by number [locks, rows], step after step."""
        locks, steps, episodes = self.rewards.shape
        lock, step, episode = torch.arange(locks)[:, None], places // episodes, places % episodes
        goes_on = (step + 1 < steps).float()
        return Batch(
            places, self.states[lock, step, episode], self.actions[lock, step, episode],
            self.rewards[lock, step, episode], self.states[lock, step + 1, episode], goes_on,
        )  # fmt: skip


@dataclass
class Course:
    """What each iteration showed: lists of [locks]."""

    opened: list[Tensor] = field(default_factory=list)
    numbers: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, opened: Tensor, **numbers: Tensor) -> None:
        """One iteration more."""
        self.opened.append(opened)
        for name, values in numbers.items():
            self.numbers.setdefault(name, []).append(values)


def play(lock: Comblock, act: Act, episodes: int, draws: Sequence[torch.Generator]) -> Played:
    """Episodes of a policy, which may draw from the same generators."""
    return _played(lock, lambda seen, latent, step: act(seen, step), episodes, draws)


def logged(lock: Comblock, seeds: Sequence[int], episodes: int) -> Played:
    """A log of each lock: episodes of its behaviour policy, which knows the latent state."""
    draws = [torch_generator(seed, "log") for seed in seeds]
    return _played(lock, lambda seen, latent, step: lock.behave(latent, step, draws), episodes, draws)


@torch.no_grad()
def _played(lock: Comblock, choose: Choose, episodes: int, draws: Sequence[torch.Generator]) -> Played:
    latent, states, actions, rewards = lock.start(episodes, draws), [], [], []
    for step in range(lock.horizon):
        states.append(lock.observe(latent, step, draws))
        actions.append(choose(states[-1], latent, step))
        latent, reward = lock.step(latent, step, actions[-1], draws)
        rewards.append(reward)
    states.append(lock.observe(latent, lock.horizon, draws))
    return Played(torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))


def natural_gradient(
    lock: Comblock,
    seeds: Sequence[int],
    options: TRPOOptions,
    log: Played | None,
    iterations: int,
    episodes: int,
) -> Course:
    """HNPG; TRPO without a log."""
    learner, course = HNPG(lock.state, LATENT_ACTIONS, lock.horizon, options, seeds, is_discrete=False), Course()
    for iteration in range(iterations):
        draws = [torch_generator(seed, "fresh", iteration) for seed in seeds]
        streams = Streams(seeds, iteration, learner.actor)
        fresh = play(lock, functools.partial(_explored, learner, draws), episodes, draws)
        dtype = learner.actor.dtype
        rewards = fresh.rewards.to(dtype)
        lived = Episodes(fresh.states[:, :-1].to(dtype), fresh.actions.to(dtype), rewards, torch.ones_like(rewards))
        told = learner.improve(lived, None if log is None else log.draw(episodes, streams), streams)
        course.add(fresh.opened, **told)
    return course


def _explored(learner: HNPG, draws: Sequence[torch.Generator], seen: Tensor, step: int) -> Tensor:
    noise = [torch.randn(seen.shape[1], LATENT_ACTIONS, generator=draw) for draw in draws]
    dtype = learner.actor.dtype
    return learner.act(seen.to(dtype), step, torch.stack(noise).to(dtype)).float()


def rlpd(
    lock: Comblock,
    seeds: Sequence[int],
    options: RLPDOptions,
    log: Played,
    iterations: int,
    episodes: int,
    *,
    updates: int,
    rows: int = 128,
) -> Course:
    """RLPD with one actor for all steps; `updates` an iteration, half of each batch from the log, half from the replay."""
    learner = RLPD(Shapes(lock.state, LATENT_ACTIONS), options, seeds, None)  # type: ignore[arg-type]
    course, lived = Course(), list[Played]()
    draws = Draws(seeds, 1, 1, torch.device("cpu"))

    def half(played: Played, name: str, step: int) -> Batch:
        chance = draws.uniform(name, step, rows // 2)
        return played.rows((chance * played.rewards[0].numel()).long())

    for iteration in range(iterations):
        own = [torch_generator(seed, "fresh", iteration) for seed in seeds]
        lived.append(play(lock, functools.partial(_squashed, learner, own), episodes, own))
        replay = _joined(lived)
        for step in range(iteration * updates, (iteration + 1) * updates):
            learner.update(mixed(half(log, "log", step), half(replay, "replay", step)), draws, step)
        errors = {name: _td_error(learner, half(of, name, step)) for name, of in (("log", log), ("replay", replay))}
        course.add(lived[-1].opened, online_loss=errors["replay"], offline_loss=errors["log"])
    return course


def _joined(lived: Sequence[Played]) -> Played:
    return Played(*(torch.cat([getattr(each, name) for each in lived], 2) for name in ("states", "actions", "rewards")))


@torch.no_grad()
def _squashed(learner: RLPD, draws: Sequence[torch.Generator], seen: Tensor, step: int) -> Tensor:
    noise = torch.stack([torch.randn(seen.shape[1], LATENT_ACTIONS, generator=draw) for draw in draws])
    return TanhGaussian(learner.actor(seen)).sample(noise)[0]


@torch.no_grad()
def _td_error(learner: RLPD, batch: Batch) -> Float[Tensor, " locks"]:
    """Mean squared temporal difference of the critics, next actions at the actor's mode, no entropy."""
    following = TanhGaussian(learner.actor(batch.next_states)).mean.tanh()
    value = learner.target_critics(batch.next_states, following).amin(1)
    target = batch.rewards + learner.options.gamma * batch.goes_on * value
    return (learner.critics(batch.states, batch.actions) - target[:, None]).square().mean((1, 2))


def cloned(
    lock: Comblock,
    seeds: Sequence[int],
    log: Played,
    rate: float,
    *,
    updates: int,
    episodes: int,
    hidden: Sequence[int] = (16, 16),
) -> tuple[Float[Tensor, " locks"], Float[Tensor, " locks"]]:
    """Behaviour cloning by likelihood with HNPG's policies: how often its samples open the lock, and how often its means."""
    policies = GaussianPolicies(lock.state, LATENT_ACTIONS, hidden)
    parameters = policies.start(seeds, "actor", copies=lock.horizon).requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=rate, fused=True)
    for step in range(updates):
        batch = log.draw(128, Streams(seeds, step, parameters))
        loss = -policies.log_prob(parameters, batch.states.flatten(0, 1), batch.actions.flatten(0, 1)).mean(1).sum()
        (parameters.grad,) = torch.autograd.grad(loss, parameters)
        optimiser.step()
    final = parameters.detach().view(len(seeds), lock.horizon, -1)
    draws = [torch_generator(seed, "judged") for seed in seeds]

    def act(seen: Tensor, step: int, scale: float) -> Tensor:
        noise = [torch.randn(seen.shape[1], LATENT_ACTIONS, generator=draw) for draw in draws]
        return policies.sample(final[:, step], seen, scale * torch.stack(noise))

    sampled, likeliest = (play(lock, lambda seen, step, s=s: act(seen, step, s), episodes, draws) for s in (1.0, 0.0))  # type: ignore[misc]
    return sampled.opened, likeliest.opened
