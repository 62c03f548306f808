"""Gymnasium's environments: found, described, and rolled out many at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions
from paperworks.control.testbeds.own_environments import register_own
from paperworks.core.errors import OptionError, first_line
from paperworks.core.seeding import derive_seed

Act = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes: numbers in a state, and the box of actions or how many there are."""

    environment: str
    state: int
    bounds: ActionBounds | DiscreteActions


@dataclass(frozen=True)
class Episodes:
    """Whole episodes of one policy."""

    returns: Float[ndarray, " episodes"]
    lengths: Float[ndarray, " episodes"]
    costs: Float[ndarray, " episodes"] | None  # of environments that report a cost


def make(environment: str, count: int = 1) -> Any:
    """`count` copies of an environment, stepped together. Raises OptionError for one that is unknown or does not load."""
    return _made(environment, lambda gym: gym.make_vec(environment, num_envs=count, vectorization_mode="sync"))


def single(environment: str, **options: Any) -> Any:
    """One environment, options handed on. Raises OptionError for one that is unknown or does not load."""
    return _made(environment, lambda gym: gym.make(environment, **options))


def _made(environment: str, build: Callable[[Any], Any]) -> Any:
    try:
        import gymnasium
    except ImportError:
        raise OptionError("environments need gymnasium; install paperworks[control]") from None
    register_own()
    try:
        return build(gymnasium)
    except gymnasium.error.Error as error:
        raise OptionError(f"--env {environment}: {first_line(error)}") from None
    except (ImportError, AttributeError) as error:
        raise OptionError(f"--env {environment}: does not load ({first_line(error)})") from None


def spaces_of(environment: str) -> Spaces:
    """The spaces of an environment. Raises OptionError unless it shows arrays and takes bounded or discrete actions."""
    import gymnasium

    made = make(environment)
    try:
        seen, taken = made.single_observation_space, made.single_action_space
    finally:
        made.close()
    if not isinstance(seen, gymnasium.spaces.Box):
        raise OptionError(f"--env {environment}: shows {type(seen).__name__}; expected an array (Box)")
    if isinstance(taken, gymnasium.spaces.Discrete) and taken.start == 0:
        return Spaces(environment, int(np.prod(seen.shape)), DiscreteActions(int(taken.n)))
    if not isinstance(taken, gymnasium.spaces.Box):
        raise OptionError(f"--env {environment}: takes {taken} as actions; expected continuous ones (Box) or Discrete")
    low, high = (np.asarray(each, dtype=np.float32).reshape(-1) for each in (taken.low, taken.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise OptionError(f"--env {environment}: its actions have no bounds; wrap it in one that has")
    return Spaces(environment, int(np.prod(seen.shape)), ActionBounds(low, high))


def check_fits(policy: ControlPolicy, spaces: Spaces) -> None:
    """Raises OptionError where a policy is of other spaces than an environment."""
    same_kind = isinstance(policy.bounds, DiscreteActions) == isinstance(spaces.bounds, DiscreteActions)
    own, others = (len(policy.normaliser.mean), policy.width), (spaces.state, spaces.bounds.width)
    if own != others or not same_kind:
        named = [
            "discrete" if isinstance(each, DiscreteActions) else "continuous" for each in (spaces.bounds, policy.bounds)
        ]
        raise OptionError(
            f"--env {spaces.environment}: shows {others[0]} numbers and takes {others[1]} ({named[0]}); the policy is of "
            f"{own[0]} and {own[1]} ({named[1]})"
        )


def roll_out(environment: str, act: Act, episodes: int, *, seed: int = 0, gamma: float = 1.0) -> Episodes:
    """`episodes` whole episodes side by side, each from a start of its own that depends on the seed alone."""
    made = make(environment, episodes)
    shape = made.single_action_space.shape
    try:
        seen, _ = made.reset(seed=[derive_seed(seed, "episode", number) % 2**31 for number in range(episodes)])
        returns, lengths, costs = (np.zeros(episodes) for _ in range(3))
        alive, discount, has_costs = np.ones(episodes, dtype=bool), 1.0, False
        while alive.any():
            action = act(seen.reshape(episodes, -1)).reshape(episodes, *shape)
            seen, reward, terminated, truncated, told = made.step(action)
            returns += np.where(alive, discount * reward, 0.0)
            lengths += alive
            if "cost" in told:
                has_costs = True
                costs += np.where(alive, told["cost"], 0.0)
            alive &= ~(terminated | truncated)
            discount *= gamma
    finally:
        made.close()
    return Episodes(returns, lengths, costs if has_costs else None)


def random_returns(environment: str, episodes: int, *, seed: int = 0) -> Float[ndarray, " episodes"]:
    """Returns of a policy that draws its actions from the environment's own action space."""
    made = make(environment, 1)
    space = made.single_action_space
    made.close()
    space.seed(derive_seed(seed, "random policy") % 2**31)

    def act(seen: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.asarray(space.sample()) for _ in seen])

    return roll_out(environment, act, episodes, seed=seed).returns
