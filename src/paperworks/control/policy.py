"""A control policy as users have it: observations in, actions of the environment out; saved as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.core.errors import DataError, ModelError
from paperworks.core.files import atomic_folder, write_json_atomic

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class ActionBounds:
    """The box of actions: [low, high] of each dimension, which the networks know as [-1, 1]."""

    low: Numbers
    high: Numbers

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
class ControlPolicy:
    """tanh of a perceptron of the normalised observation, put into the bounds: the most likely action."""

    layers: Sequence[tuple[Tensor, Tensor]]  # (weight [in, out], bias [out]) with ReLU between them
    normaliser: Normaliser
    bounds: ActionBounds
    method: str = ""

    @torch.no_grad()
    def act(self, observations: Float[ndarray, "*rows state"]) -> Float[ndarray, "*rows action"]:
        """The action in each state. Raises DataError for observations of another width."""
        given = np.asarray(observations, dtype=np.float32)
        if given.shape[-1:] != self.normaliser.mean.shape:
            raise DataError(
                f"observations of shape {given.shape}; expected {len(self.normaliser.mean)} numbers in the last dimension"
            )
        x = torch.from_numpy((given - self.normaliser.mean) / self.normaliser.deviation)
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if number + 1 < len(self.layers):
                x = x.relu()
        return self.bounds.outward(x.tanh().numpy())

    def save(self, folder: str | Path) -> Path:
        """Write the policy into a folder, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"{number}.weight": weight.contiguous(), f"{number}.bias": bias.contiguous()}
        numbers = {
            "mean": self.normaliser.mean, "deviation": self.normaliser.deviation,
            "low": self.bounds.low, "high": self.bounds.high,
        }  # fmt: skip
        with atomic_folder(folder) as partial:
            save_file(tensors, partial / WEIGHTS)
            described = {name: [float(value) for value in values] for name, values in numbers.items()}
            write_json_atomic(partial / DESCRIPTION, {"method": self.method, "layers": len(self.layers), **described})
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> ControlPolicy:
        """The policy in a folder, or in a run's. Raises ModelError where it is missing or damaged."""
        place = Path(folder)
        place = place / "policy" if (place / "policy" / DESCRIPTION).is_file() else place
        try:
            described = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
            tensors = load_file(place / WEIGHTS)
            layers = [(tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in range(int(described["layers"]))]
            mean, deviation, low, high = (
                np.asarray(described[name], dtype=np.float32) for name in ("mean", "deviation", "low", "high")
            )
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder}: no control policy there ({Path(str(error.filename)).name} is missing)"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: the policy there is damaged ({error}); train it again") from None
        return cls(layers, Normaliser(mean, deviation), ActionBounds(low, high), str(described.get("method", "")))
