"""Fresh episodes of current policies in a gymnasium environment: whole ones, all seeds side by side, from derived starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from paperworks.control.environments import make, single
from paperworks.control.hybrid.episodes import Episodes
from paperworks.control.hybrid.hnpg import HNPG
from paperworks.control.policy import ActionBounds, DiscreteActions, Normaliser
from paperworks.core.errors import DataError, OptionError
from paperworks.core.seeding import derive_seed, torch_generator

WIDEST = 64  # episodes of a seed that are stepped together


def time_limit(environment: str) -> int | None:
    """The steps after which the environment ends an episode itself."""
    made = single(environment)
    made.close()
    limit = made.spec.max_episode_steps if made.spec is not None else None
    return None if limit is None else int(limit)


class Arena:
    """An environment many times over: every seed has as many copies."""

    def __init__(
        self,
        environment: str,
        seeds: Sequence[int],
        horizon: int,
        steps: int,
        normaliser: Normaliser,
        bounds: ActionBounds | DiscreteActions,
        rewards: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """At least `steps` are taken of each seed's policy; rewards outside `rewards` are refused."""
        self.environment, self.seeds, self.horizon, self.steps = environment, tuple(seeds), horizon, steps
        self.normaliser, self.bounds, self.rewards = normaliser, bounds, rewards
        self.width = min(WIDEST, -(-steps // horizon))
        self._made = make(environment, len(self.seeds) * self.width)

    def play(self, learner: HNPG, iteration: int) -> Episodes:
        """Whole episodes until every seed has lived through enough steps; a step behind an episode's end is not alive.

        Raises DataError for observations or rewards that are not finite, or rewards out of their range.
        """
        waves: list[Episodes] = []
        lived = torch.zeros(len(self.seeds), dtype=learner.actor.dtype, device=learner.actor.device)
        while bool((lived < self.steps).any()):
            waves.append(self._wave(learner, iteration, len(waves)))
            lived += waves[-1].alive.sum((1, 2))
        return Episodes(
            *(torch.cat([getattr(wave, name) for wave in waves], 2) for name in Episodes.__dataclass_fields__)
        )

    def close(self) -> None:
        """Give the copies back."""
        self._made.close()

    def _wave(self, learner: HNPG, iteration: int, wave: int) -> Episodes:
        starts = [
            derive_seed(seed, "episode", iteration, wave, number) % 2**31
            for seed in self.seeds
            for number in range(self.width)
        ]
        draws = [torch_generator(seed, "act", iteration, wave) for seed in self.seeds]
        seen, _ = self._made.reset(seed=starts)
        alive, taken = np.ones(len(starts), dtype=bool), []
        dtype, device = learner.actor.dtype, learner.actor.device
        for step in range(self.horizon):
            states = self._inward(seen)
            noise = [torch.randn(self.width, learner.policies.action, generator=draw) for draw in draws]
            actions = learner.act(states.to(device, dtype), step, torch.stack(noise).to(device, dtype)).cpu()
            seen, reward, terminated, truncated, _ = self._made.step(self._outward(actions))
            self._check(np.asarray(reward)[alive], iteration)
            live = torch.from_numpy(alive).view(len(self.seeds), self.width).to(dtype)
            earned = torch.from_numpy(np.where(alive, reward, 0.0)).view_as(live).to(dtype)
            taken.append((states.to(dtype), actions, earned, live))
            alive = alive & ~(terminated | truncated)
        states, actions, rewards, live = (torch.stack(part, 1).to(device) for part in zip(*taken, strict=True))
        return Episodes(states, actions, rewards, live)

    def _inward(self, seen: NDArray[np.float32]) -> torch.Tensor:
        flat = seen.reshape(len(seen), -1)
        if not np.isfinite(flat).all():
            raise DataError(f"--env {self.environment}: showed numbers that are not finite")
        states = torch.from_numpy(((flat - self.normaliser.mean) / self.normaliser.deviation).astype(np.float32))
        return states.view(len(self.seeds), self.width, -1)

    def _outward(self, actions: torch.Tensor) -> NDArray[np.generic]:
        flat = actions.flatten(0, 1).numpy()
        if isinstance(self.bounds, DiscreteActions):
            return flat
        shape = self._made.single_action_space.shape
        return self.bounds.outward(flat.clip(-1, 1)).reshape(len(flat), *shape)

    def _check(self, rewards: NDArray[np.floating], iteration: int) -> None:
        low, high = self.rewards
        bad = ~np.isfinite(rewards) | (rewards < low) | (rewards > high)
        if bad.any():
            raise DataError(
                f"--env {self.environment}: paid {rewards[bad][0]:g} in iteration {iteration}; expected {low:g} to {high:g} "
                "(--reward-range)"
            )


def horizon_of(environment: str, given: int | None) -> int:
    """Steps of an episode: as given, at most the environment's limit. Raises OptionError where neither says."""
    limit = time_limit(environment)
    if given is None and limit is None:
        raise OptionError(f"--env {environment}: ends no episode by itself; say how long one is: --horizon N")
    if given is not None and limit is not None and given > limit:
        raise OptionError(f"--horizon {given}: {environment} ends an episode after {limit} steps")
    return given if given is not None else limit  # type: ignore[return-value]
