"""Environments whose rewards are vectors, stepped together and begun anew where an episode ends.

Copies are gymnasium's (mo-gymnasium's ids, or a factory of one's own) or a world on tensors. Each copy is seeded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.environments import single
from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions
from paperworks.core.errors import DataError, OptionError
from paperworks.core.seeding import derive_seed


@dataclass(frozen=True)
class Step:
    """What a step of every copy gave."""

    states: Float[Tensor, "copies state"]  # to act in next: a new episode's where one ended
    last: Float[Tensor, "copies state"]  # what the action led to
    rewards: Float[Tensor, "copies objectives"]
    terminated: Bool[Tensor, " copies"]
    truncated: Bool[Tensor, " copies"]


@dataclass(frozen=True)
class VectorSpaces:
    """What an environment shows, takes and pays."""

    environment: str
    state: int
    objectives: int
    bounds: ActionBounds | DiscreteActions
    names: tuple[str, ...] = ()  # of the objectives

    @property
    def is_discrete(self) -> bool:
        return isinstance(self.bounds, DiscreteActions)


class Environments(Protocol):
    """Copies of one environment; as many as the last `reset` had seeds."""

    @property
    def spaces(self) -> VectorSpaces: ...

    def reset(self, seeds: Sequence[int]) -> Float[Tensor, "copies state"]:
        """Begin an episode in a copy a seed."""
        ...

    def step(self, actions: Tensor) -> Step:
        """Act in every copy: whole numbers [copies], or numbers [copies, action] that are cut to [-1, 1]."""
        ...


Factory = Callable[[], Any]  # of one gymnasium environment


class GymnasiumEnvironments:
    """Copies of a gymnasium environment. Raises OptionError unless it pays a vector and takes bounded or discrete actions."""

    def __init__(self, environment: str | Factory, names: Sequence[str] = ()) -> None:
        self._make = factory(environment) if isinstance(environment, str) else environment
        self._copies = [self._make()]
        self._name = environment if isinstance(environment, str) else type(self._copies[0].unwrapped).__name__
        self.spaces = _spaces(self._copies[0], self._name, tuple(names))
        self._used = 1

    def reset(self, seeds: Sequence[int]) -> Float[Tensor, "copies state"]:
        self._copies += [self._make() for _ in range(len(seeds) - len(self._copies))]
        self._used = len(seeds)
        seen = [copy.reset(seed=int(seed) % 2**31)[0] for copy, seed in zip(self._copies, seeds, strict=False)]
        return _states(seen)

    def step(self, actions: Tensor) -> Step:
        given: Any = actions.numpy()
        if isinstance(self.spaces.bounds, ActionBounds):
            given = self.spaces.bounds.outward(given.clip(-1, 1))
        states, last, rewards, ends = [], [], [], []
        for copy, action in zip(self._copies[: self._used], given, strict=True):
            seen, reward, terminated, truncated, _ = copy.step(action)
            last.append(seen)
            rewards.append(reward)
            ends.append((bool(terminated), bool(truncated) and not terminated))
            states.append(copy.reset()[0] if terminated or truncated else seen)
        paid = torch.from_numpy(np.asarray(rewards, dtype=np.float32))
        if not bool(torch.isfinite(paid).all()):
            bad = int((~torch.isfinite(paid)).any(0).nonzero()[0, 0])
            raise DataError(f"{self._name}: a reward of objective {bad + 1} is not finite ({paid[:, bad].tolist()})")
        terminated, truncated = torch.tensor(ends).T
        return Step(_states(states), _states(last), paid, terminated, truncated)

    def close(self) -> None:
        for copy in self._copies:
            copy.close()


def factory(environment: str) -> Factory:
    """Makes the environment of an id; mo-gymnasium's are known where it is installed. Raises OptionError."""
    try:
        import mo_gymnasium  # noqa: F401 - registers its environments
    except ImportError:
        known = False
    else:
        known = True

    def make() -> Any:
        try:
            return single(environment, disable_env_checker=True)
        except OptionError as error:
            if known:
                raise
            raise OptionError(f"{error}; for its environments install mo-gymnasium (paperworks[control])") from None

    return make


def pays_a_vector(environment: str) -> bool:
    """Whether an environment has several rewards; False for one that does not load."""
    try:
        made = factory(environment)()
    except OptionError:
        return False
    paid = getattr(made.unwrapped, "reward_space", None)
    made.close()
    return bool(getattr(paid, "shape", None))


def _states(seen: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(seen, dtype=np.float32).reshape(len(seen), -1))


def _spaces(made: Any, name: str, names: tuple[str, ...]) -> VectorSpaces:
    from gymnasium import spaces

    paid = getattr(made.unwrapped, "reward_space", None)
    if paid is None or not getattr(paid, "shape", None):
        raise OptionError(
            f"{name}: pays one number, not a vector (no reward_space with a shape); expected several rewards, as "
            "mo-gymnasium's environments have"
        )
    seen, taken = made.observation_space, made.action_space
    if not isinstance(seen, spaces.Box):
        raise OptionError(f"{name}: shows {type(seen).__name__}; expected an array (Box)")
    objectives = int(paid.shape[0])
    if names and len(names) != objectives:
        raise OptionError(f"{len(names)} names of objectives; {name} has {objectives}")
    names = names or tuple(f"objective {number + 1}" for number in range(objectives))
    if isinstance(taken, spaces.Discrete) and taken.start == 0:
        return VectorSpaces(name, int(np.prod(seen.shape)), objectives, DiscreteActions(int(taken.n)), names)
    if not isinstance(taken, spaces.Box):
        raise OptionError(f"{name}: takes {taken} as actions; expected continuous ones (Box) or Discrete")
    low, high = (np.asarray(each, dtype=np.float32).reshape(-1) for each in (taken.low, taken.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise OptionError(f"{name}: its actions have no bounds; wrap it in one that has")
    return VectorSpaces(name, int(np.prod(seen.shape)), objectives, ActionBounds(low, high), names)


class VectorWorld(Protocol):
    """A world on tensors, with one start and no chance; `limit` steps cut an episode (0: never)."""

    @property
    def spaces(self) -> VectorSpaces: ...

    @property
    def limit(self) -> int: ...

    def start(self, copies: int) -> Tensor:
        """Where episodes begin: [copies, ...]."""
        ...

    def seen(self, latent: Tensor) -> Float[Tensor, "copies state"]:
        """What policies see of it."""
        ...

    def step(self, latent: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(next latent, rewards [copies, objectives], whether the episode is over [copies])."""
        ...


class WorldEnvironments:
    """Copies of a world on tensors."""

    def __init__(self, world: VectorWorld) -> None:
        self.world, self.spaces = world, world.spaces
        self._latent = world.start(1)
        self._age = torch.zeros(1, dtype=torch.long)

    def reset(self, seeds: Sequence[int]) -> Float[Tensor, "copies state"]:
        self._latent = self.world.start(len(seeds))
        self._age = torch.zeros(len(seeds), dtype=torch.long)
        return self.world.seen(self._latent)

    def step(self, actions: Tensor) -> Step:
        led_to, rewards, over = self.world.step(self._latent, actions)
        self._age += 1
        cut = ~over & (self._age == self.world.limit)
        ended = over | cut
        anew = ended.view(-1, *[1] * (led_to.dim() - 1))
        self._latent = torch.where(anew, self.world.start(len(led_to)), led_to)
        self._age = torch.where(ended, 0, self._age)
        return Step(self.world.seen(self._latent), self.world.seen(led_to), rewards, over, cut)


@dataclass(frozen=True)
class VectorEpisodes:
    """Whole episodes of one policy."""

    returns: Float[np.ndarray, "episodes objectives"]
    lengths: Float[np.ndarray, " episodes"]


def roll_out_vectors(
    policy: ControlPolicy, environments: Environments, episodes: int, *, seed: int = 0, gamma: float = 1.0
) -> VectorEpisodes:
    """Episodes of a saved policy side by side, each from a start of its own. Raises OptionError for other spaces."""
    spaces = environments.spaces
    is_same = isinstance(policy.bounds, DiscreteActions) == spaces.is_discrete
    if (len(policy.normaliser.mean), policy.width) != (spaces.state, spaces.bounds.width) or not is_same:
        raise OptionError(
            f"{spaces.environment}: shows {spaces.state} numbers and takes {spaces.bounds.width}; the policy is of "
            f"{len(policy.normaliser.mean)} and {policy.width}"
        )
    act = policy.acting(seed)
    states = environments.reset([derive_seed(seed, "episode", number) % 2**31 for number in range(episodes)])
    returns, lengths = np.zeros((episodes, spaces.objectives)), np.zeros(episodes)
    alive, discount = np.ones(episodes, dtype=bool), 1.0
    while alive.any():
        action = act(states.numpy())
        if isinstance(spaces.bounds, ActionBounds):
            action = spaces.bounds.inward(action)
        taken = environments.step(torch.from_numpy(np.asarray(action)))
        returns += np.where(alive[:, None], discount * taken.rewards.numpy(), 0.0)
        lengths += alive
        alive &= ~(taken.terminated | taken.truncated).numpy()
        states, discount = taken.states, discount * gamma
    return VectorEpisodes(returns, lengths)
