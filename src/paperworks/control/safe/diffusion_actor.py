"""A saved diffusion policy: it draws some actions and takes the one that its values like best; the values come with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.actors import Actor
from paperworks.control.safe.diffusion import NoiseModels, Schedule, draw_actions
from paperworks.control.safe.values import Kind, SafeValues

Extract = Literal["minqc", "maxq"]


@torch.no_grad()
def best_candidate(
    values: SafeValues,
    states: Float[Tensor, "seeds rows state"],
    candidates: Float[Tensor, "seeds rows candidates action"],
    violation: Kind,
    extract: Extract,
) -> Float[Tensor, "seeds rows action"]:
    """Of each state's candidates that of the lowest Q of violations (`minqc`), or of the highest Q of rewards (`maxq`)."""
    count = candidates.shape[2]
    known = values.known(states.repeat_interleave(count, 1), candidates.flatten(1, 2)).unflatten(2, (-1, count))
    if extract == "maxq":
        chosen = known[:, values.place("reward")].argmax(-1)
    else:
        chosen = known[:, values.place(violation)].argmin(-1)
    at = chosen[..., None, None].expand(-1, -1, 1, candidates.shape[-1])
    return candidates.gather(2, at).squeeze(2)


class DiffusionActor(Actor):
    """One seed's diffusion policy with its values of rewards and violations."""

    kind: ClassVar[str] = "diffusion"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._settings = dict(settings)
        state, action = int(settings["state"]), int(settings["action"])
        self.violation: Kind = settings["violation"]
        self.extract: Extract = settings["extract"]
        if self.extract not in ("minqc", "maxq") or self.violation not in ("hj", "qc"):
            raise ValueError(f"extract {self.extract!r}, violation {self.violation!r}")
        self.candidates, self.temperature = int(settings["candidates"]), float(settings["temperature"])
        self.model = NoiseModels(state, action, int(settings["width"]), int(settings["blocks"]), [0])
        self.schedule = Schedule(int(settings["steps"]))
        self.values = SafeValues(state, action, tuple(settings["hidden"]), [0], ("reward", self.violation))
        self.requires_grad_(False)

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> DiffusionActor:
        return cls(settings)

    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw)

        found = draw_actions(
            self.model, self.schedule, states[None], self.candidates, normal, temperature=self.temperature
        )
        return best_candidate(self.values, states[None], found, self.violation, self.extract)[0]

    @torch.no_grad()
    def value(self, states: Float[Tensor, "rows state"], kind: Kind) -> Float[Tensor, " rows"]:
        """V of normalised states: of rewards, or of violations (`hj`: at most 0 where they can be avoided)."""
        return self.values.value(states[None])[0, self.values.place(kind)]

    @torch.no_grad()
    def q(
        self, states: Float[Tensor, "rows state"], actions: Float[Tensor, "rows action"], kind: Kind
    ) -> Float[Tensor, " rows"]:
        """Q of normalised states and actions in [-1, 1]."""
        return self.values.known(states[None], actions[None])[0, self.values.place(kind)]


def take_net(target: nn.Module, source: nn.Module, place: int, seeds: int) -> None:
    """Copy one seed's slice of batched networks into networks of one seed."""
    for own, among in zip(target.parameters(), source.parameters(), strict=True):
        each = len(among) // seeds
        own.data.copy_(among.detach()[place * each : (place + 1) * each])
