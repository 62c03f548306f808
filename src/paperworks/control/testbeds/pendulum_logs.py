"""Logs of the pendulum in several qualities: a policy that swings it up, one that had half learned to, and mixtures.

The expert is TD3 on transitions from everywhere, which the world, a function, gives for nothing; the medium policy is the
same one earlier. Mixtures are of whole episodes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paperworks.control.datasets import read_transitions
from paperworks.control.offline.td3 import TD3, TD3Options
from paperworks.control.policy import ActionBounds, ControlPolicy, Normaliser
from paperworks.control.testbeds.many_logs import Nets, Trained
from paperworks.control.testbeds.pendulum import MOST_SPEED, Pendulum
from paperworks.control.testbeds.worlds import Act, logged, roll
from paperworks.control.transitions import Transitions
from paperworks.core.files import write_atomic
from paperworks.core.seeding import torch_generator

REWARD_SCALE, REWARD_SHIFT = 0.05, 0.5
"""Of every log: values are positive, as in locomotion, for lambda = alpha / |Q| loses its meaning where Q is near 0."""

GAMMA = 0.95
EXPERT_SEED, EXPERT_ROWS, EXPERT_BATCH = 2_000_000, 20_000, 128
NOISE = 0.1  # on the actions of the policies that collect

FIELDS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
SETS = ("expert", "random+expert 5%", "random+expert 20%", "medium+random 50%")
MIXED = SETS[1:]
SHARES = {
    "expert": {"expert": 1.0},
    "random+expert 5%": {"random": 0.95, "expert": 0.05},
    "random+expert 20%": {"random": 0.8, "expert": 0.2},
    "medium+random 50%": {"medium": 0.5, "random": 0.5},
}


@dataclass(frozen=True)
class Collectors:
    """The policies that logs are of, and the mean returns that scores are measured by."""

    expert: ControlPolicy
    medium: ControlPolicy
    random_return: float
    expert_return: float
    medium_return: float

    def score(self, returns: Tensor) -> Tensor:
        """100 (return - random) / (expert - random)."""
        return 100 * (returns - self.random_return) / (self.expert_return - self.random_return)

    def act(self, name: str, draw: torch.Generator) -> Act:
        """A policy by name, the trained ones with noise."""
        if name == "random":
            return lambda states: 2 * torch.rand(*states.shape[:-1], 1, generator=draw) - 1
        act = _act_of(getattr(self, name))
        return lambda states: (act(states) + NOISE * torch.randn(*states.shape[:-1], 1, generator=draw)).clamp(-1, 1)


def collectors(folder: Path, steps: int, medium_steps: int) -> Collectors:
    """The policies, from the folder if they are there, else trained (seconds) and left there."""
    places = {name: folder / f"{name}-of-{count}" for name, count in (("expert", steps), ("medium", medium_steps))}
    if not all(place.is_dir() for place in places.values()):
        for place, policy in zip(places.values(), _trained_collectors(steps, medium_steps), strict=True):
            policy.save(place)
    expert, medium = (ControlPolicy.load(place) for place in places.values())
    found = Collectors(expert, medium, 0.0, 1.0, 0.0)
    returns = (_mean_return(found.act("random", torch_generator(EXPERT_SEED, "random"))),)
    return Collectors(expert, medium, *returns, _mean_return(_act_of(expert)), _mean_return(_act_of(medium)))


def scaled(rewards: np.ndarray) -> np.ndarray:
    """The world's rewards as logs have them."""
    return (REWARD_SCALE * rewards + REWARD_SHIFT).astype(np.float32)


def kept_log(folder: Path, known: Collectors, name: str, seed: int, episodes: int) -> Transitions:
    """`mixed_log`, from the folder if it is there, else made and left there."""
    file = folder / f"log-{SETS.index(name)}-{episodes}-{seed}.npz"
    if not file.is_file():
        log, content = mixed_log(known, name, seed, episodes), io.BytesIO()
        np.savez(content, **{field: getattr(log, field) for field in FIELDS})
        write_atomic(file, content.getvalue())
    return read_transitions(str(file))


def mixed_log(known: Collectors, name: str, seed: int, episodes: int) -> Transitions:
    """A log of whole episodes, in random order; rewards are scaled and shifted."""
    world, draw = Pendulum(), torch_generator(seed, "log", name)
    parts = []
    for policy, share in SHARES[name].items():
        count = max(1, round(share * episodes))
        log = logged(world, known.act(policy, draw), count * world.limit, draw, side_by_side=count)
        parts += [log.take(episode) for episode in log.episodes()]
    order = np.random.default_rng(seed).permutation(len(parts))
    observations, actions, rewards, following, terminations, truncations = (
        np.concatenate([getattr(parts[at], field) for at in order]) for field in FIELDS
    )
    return Transitions(observations, actions, scaled(rewards), following, terminations, truncations)


def _act_of(policy: ControlPolicy) -> Act:
    return lambda states: torch.from_numpy(policy.act(states.numpy()))


def _mean_return(act: Act, episodes: int = 100) -> float:
    world = Pendulum()
    return float(roll(world, act, world.start((episodes,), torch_generator(EXPERT_SEED, "starts"))).returns.mean())


def _trained_collectors(steps: int, medium_steps: int) -> tuple[ControlPolicy, ControlPolicy]:
    """(expert, medium): the same TD3 after all steps, and after some."""
    log = _everywhere(EXPERT_ROWS)
    options = TD3Options(hidden=(64, 64), learning_rate=1e-3, tau=0.02, gamma=GAMMA)
    trained = Trained(TD3, options, Nets([log], [EXPERT_SEED], {}), EXPERT_BATCH)
    bounds, normaliser = ActionBounds(-np.ones(1, np.float32), np.ones(1, np.float32)), Normaliser.of(log.observations)
    trained.learn(medium_steps)
    medium = ControlPolicy(trained.learner.actor_of(0), normaliser, bounds, "td3")
    trained.learn(steps - medium_steps)
    return ControlPolicy(trained.learner.actor_of(0), normaliser, bounds, "td3"), medium


def _everywhere(count: int) -> Transitions:
    """Single steps from angles, speeds and torques that are uniform over all there are."""
    world, draw = Pendulum(), torch_generator(EXPERT_SEED, "everywhere")
    latent = (2 * torch.rand(count, 2, generator=draw) - 1) * torch.tensor([math.pi, MOST_SPEED])
    action = 2 * torch.rand(count, 1, generator=draw) - 1
    following, reward, over, _ = world.step(latent, action)
    return Transitions(
        world.seen(latent).numpy(), action.numpy(), scaled(reward.numpy()), world.seen(following).numpy(),
        over.numpy(), ~over.numpy(),
    )  # fmt: skip
