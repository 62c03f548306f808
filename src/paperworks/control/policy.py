"""A control policy as users have it: observations in, actions of the environment out; saved as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from paperworks.control.actors import Actor, built
from paperworks.core.errors import DataError, ModelError, first_line
from paperworks.core.files import atomic_folder, write_json_atomic
from paperworks.core.seeding import torch_generator

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class ActionBounds:
    """The box of actions: [low, high] of each dimension, which the networks know as [-1, 1]."""

    low: Numbers
    high: Numbers

    @property
    def width(self) -> int:
        return len(self.low)

    @property
    def centre(self) -> Numbers:
        return np.asarray((self.high + self.low) / 2, dtype=np.float32)

    @property
    def half(self) -> Numbers:
        return np.asarray((self.high - self.low) / 2, dtype=np.float32)

    def inward(self, actions: Numbers) -> Numbers:
        """Actions of the environment as [-1, 1]."""
        return ((actions - self.centre) / self.half).astype(np.float32)

    def outward(self, actions: Numbers) -> Numbers:
        """Actions in [-1, 1] as the environment's."""
        return (actions * self.half + self.centre).astype(np.float32)

    def check(self, actions: Numbers, source: str = "") -> None:
        """Raises DataError for the first action outside the box (by more than rounding)."""
        outside = ((actions < self.low - 1e-4) | (actions > self.high + 1e-4)).any(1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"actions: {int(outside.sum())} rows outside the bounds, the first is row {row}: {actions[row].tolist()}; "
                f"expected {self.low.tolist()} to {self.high.tolist()}",
                file=source or None,
                field="actions",
            )


@dataclass(frozen=True)
class Normaliser:
    """(observation - mean) / deviation."""

    mean: Numbers
    deviation: Numbers

    @classmethod
    def of(cls, observations: Numbers, *, enough: float = 1e-3) -> Normaliser:
        """That of a log; `enough` is added to deviations, so that a constant column stays finite."""
        numbers = observations.astype(np.float64)
        return cls(numbers.mean(0).astype(np.float32), (numbers.std(0) + enough).astype(np.float32))

    @classmethod
    def none(cls, width: int) -> Normaliser:
        """One that changes nothing."""
        return cls(np.zeros(width, np.float32), np.ones(width, np.float32))


@dataclass(frozen=True)
class DiscreteActions:
    """Actions that are whole numbers, 0 to count - 1."""

    count: int

    @property
    def width(self) -> int:
        return self.count

    def check(self, actions: NDArray[np.int64], source: str = "") -> None:
        """Raises DataError for the first action that is none of them."""
        outside = (actions < 0) | (actions >= self.count)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"actions: {int(outside.sum())} rows outside 0 to {self.count - 1}, the first is row {row}: {actions[row]}",
                file=source or None,
                field="actions",
            )


@dataclass(frozen=True)
class ControlPolicy:
    """An actor with what it needs around it: observations are normalised, actions put into the environment's bounds."""

    actor: Actor
    normaliser: Normaliser
    bounds: ActionBounds | DiscreteActions
    method: str = ""

    @property
    def width(self) -> int:
        """How many numbers an action has, or how many discrete actions there are."""
        return self.bounds.width

    @torch.no_grad()
    def act(
        self, observations: Float[ndarray, "*rows state"], draw: torch.Generator | None = None
    ) -> Float[ndarray, "*rows action"] | Int[ndarray, "*rows"]:
        """The action in each state; `draw` decides for policies that sample. Raises DataError for another width."""
        given = np.asarray(observations, dtype=np.float32)
        if given.shape[-1:] != self.normaliser.mean.shape:
            raise DataError(
                f"observations of shape {given.shape}; expected {len(self.normaliser.mean)} numbers in the last dimension"
            )
        states = torch.from_numpy((given - self.normaliser.mean) / self.normaliser.deviation)
        found = self.actor(states.reshape(-1, given.shape[-1]), draw).numpy()
        if isinstance(self.bounds, DiscreteActions):
            return np.asarray(found.reshape(given.shape[:-1]), dtype=np.int64)
        return self.bounds.outward(found.reshape(*given.shape[:-1], -1))

    def acting(self, seed: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """`act` with random numbers of its own from the start of an episode: a roll-out with the same seed is the same."""
        self.actor.begin()
        draw = torch_generator(seed, "acting")
        return lambda observations: self.act(observations, draw)

    def save(self, folder: str | Path) -> Path:
        """Write the policy into a folder, whole or not at all."""
        described: dict[str, Any] = {
            "method": self.method,
            "actor": self.actor.kind,
            "settings": self.actor.settings(),
            "mean": _numbers(self.normaliser.mean),
            "deviation": _numbers(self.normaliser.deviation),
        }
        if isinstance(self.bounds, DiscreteActions):
            described["actions"] = self.bounds.count
        else:
            described |= {"low": _numbers(self.bounds.low), "high": _numbers(self.bounds.high)}
        with atomic_folder(folder) as partial:
            save_file({name: t.contiguous() for name, t in self.actor.state_dict().items()}, partial / WEIGHTS)
            write_json_atomic(partial / DESCRIPTION, described)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> ControlPolicy:
        """The policy in a folder, or in a run's. Raises ModelError where it is missing or damaged."""
        place = Path(folder)
        place = place / "policy" if (place / "policy" / DESCRIPTION).is_file() else place
        try:
            described = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
            actor = built(str(described["actor"]), described["settings"])
            actor.load_state_dict(load_file(place / WEIGHTS))
            normaliser = Normaliser(*(np.asarray(described[name], np.float32) for name in ("mean", "deviation")))
            if "actions" in described:
                bounds: ActionBounds | DiscreteActions = DiscreteActions(int(described["actions"]))
            else:
                bounds = ActionBounds(*(np.asarray(described[name], np.float32) for name in ("low", "high")))
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder}: no control policy there ({Path(str(error.filename)).name} is missing)"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder}: the policy there is damaged ({first_line(error)}); train it again") from None
        return cls(actor, normaliser, bounds, str(described.get("method", "")))


def _numbers(values: Numbers) -> list[float]:
    return [float(value) for value in values]
