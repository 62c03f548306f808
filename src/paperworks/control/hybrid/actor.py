"""The saved form of a policy that knows the step of an episode: a net for each step, or one that is told the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.actors import Actor
from paperworks.control.hybrid.policies import CategoricalPolicies, GaussianPolicies, Policies


class StepActor(Actor):
    """Counts the steps of the episodes it acts in, all of which begin together with `begin`; behind the last, it stays there.

    A sample where a generator is given, clipped to [-1, 1]; the likeliest action without.
    """

    kind: ClassVar[str] = "per-step"

    def __init__(
        self,
        parameters: Float[Tensor, "nets parameters"],
        *,
        state: int,
        action: int,
        hidden: tuple[int, ...],
        horizon: int,
        is_discrete: bool,
        is_told_step: bool,
    ) -> None:
        """`state` counts the numbers of a state alone; a net that is told the step sees one more."""
        super().__init__()
        self._settings = {
            "state": state, "action": action, "hidden": list(hidden), "horizon": horizon, "nets": len(parameters),
            "is_discrete": is_discrete, "is_told_step": is_told_step,
        }  # fmt: skip
        width = state + is_told_step
        self.policies: Policies = (
            CategoricalPolicies(width, action, hidden) if is_discrete else GaussianPolicies(width, action, hidden)
        )
        self.rows = nn.Parameter(parameters.float(), requires_grad=False)
        self.horizon, self.is_told_step, self.step = horizon, is_told_step, 0

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> StepActor:
        given = dict(settings)
        nets, hidden = int(given.pop("nets")), tuple(given.pop("hidden"))
        width = given["state"] + given["is_told_step"]
        kind = CategoricalPolicies if given["is_discrete"] else GaussianPolicies
        return cls(torch.zeros(nets, kind(width, given["action"], hidden).count), hidden=hidden, **given)

    def begin(self) -> None:
        self.step = 0

    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        step = min(self.step, self.horizon - 1)
        self.step += 1
        row = self.rows[min(step, len(self.rows) - 1)][None]
        if self.is_told_step:
            states = torch.cat([states, torch.full((len(states), 1), step / self.horizon)], 1)
        if draw is None:
            found = self.policies.likeliest(row, states[None])[0]
        else:
            noise = torch.randn(1, len(states), self.policies.action, generator=draw)
            found = self.policies.sample(row, states[None], noise)[0]
        return found if self.policies.is_discrete else found.clamp(-1, 1)
