"""A family of policies in one network, and the model that picks a member for every state (FamO2O, arXiv 2310.17966).

The universal model acts from a state and an encoded balance beta; the balance model says beta from the state. Which critics
judge them and how they are trained is the learner's (`famo2o.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.actors import Actor, PerceptronActor
from paperworks.control.distributions import squashed
from paperworks.control.networks import Perceptrons
from paperworks.core.errors import OptionError

WAVELENGTH_BASE = 10_000.0  # n of the encoding
LOG_STD = (-10.0, 2.0)  # of the balance model


def encode(beta: Float[Tensor, "*shape"], dimensions: int) -> Float[Tensor, "*shape dimensions"]:
    """p(beta): the sine and the cosine of beta / n^(2i/d) for i = 0, ..., d/2 - 1, pair after pair."""
    wavelengths = WAVELENGTH_BASE ** (torch.arange(0, dimensions, 2, device=beta.device) / dimensions)
    angles = beta[..., None] / wavelengths
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


@dataclass(frozen=True)
class BetaRange:
    """The balances of a family, low to high. Raises OptionError where low is above high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise OptionError(f"balances from {self.low:g} to {self.high:g}: the first must be the lower")

    def of(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The balance of x in [-1, 1]: both ends and the middle exactly."""
        return torch.lerp(torch.full_like(x, self.low), torch.full_like(x, self.high), (x + 1) / 2)


class Family(nn.Module):
    """Both models of every seed: the universal one gives `outputs` numbers for a state and a balance."""

    def __init__(
        self, state: int, outputs: int, hidden: Sequence[int], seeds: Sequence[int], betas: BetaRange, dimensions: int
    ) -> None:
        super().__init__()
        self.betas, self.dimensions = betas, dimensions
        self.universal = Perceptrons((state + dimensions, *hidden, outputs), seeds, "actor")
        self.balance = Perceptrons((state, *hidden, 1), seeds, "balance")
        self.balance_log_std = nn.Parameter(torch.zeros(len(seeds), 1, 1))

    def output(
        self, states: Float[Tensor, "seeds rows state"], beta: Float[Tensor, "seeds rows"]
    ) -> Float[Tensor, "seeds rows outputs"]:
        """What the universal model gives for each state and its balance; gradients reach beta."""
        found: Tensor = self.universal(torch.cat([states, encode(beta, self.dimensions)], -1))
        return found

    def draw_x(
        self, states: Float[Tensor, "seeds rows state"], noise: Float[Tensor, "seeds rows one"]
    ) -> tuple[Float[Tensor, "seeds rows"], Float[Tensor, "seeds rows"]]:
        """(x in (-1, 1), log pi_b(x|s)) for standard normal noise; the density is that of x, not of the balance."""
        log_std = self.balance_log_std.clamp(*LOG_STD)
        mean = self.balance(states)
        x, log_prob = squashed(mean, log_std, mean + log_std.exp() * noise)
        return x.squeeze(-1), log_prob

    def chosen(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows"]:
        """The balance of each state that policies act by: that of tanh of the mean."""
        return self.betas.of(self.balance(states).squeeze(-1).tanh())

    def actor_of(self, place: int, action: int) -> FamilyActor:
        """One seed's family as it is saved; the first `action` outputs are what the tanh of is the action."""
        *inner, (weight, bias) = _on_cpu(self.universal, place)
        universal = [*inner, (weight[:, :action].contiguous(), bias[:action].contiguous())]
        balance = PerceptronActor(_on_cpu(self.balance, place))
        return FamilyActor(PerceptronActor(universal), balance, self.betas, self.dimensions)


class FamilyActor(Actor):
    """tanh of the universal model at the state's own balance, or at one balance in all states (`at`)."""

    kind: ClassVar[str] = "family"

    def __init__(
        self,
        universal: PerceptronActor,
        balance: PerceptronActor,
        betas: BetaRange,
        dimensions: int,
        beta: float | None = None,
    ) -> None:
        super().__init__()
        self.universal, self.balance, self.betas, self.dimensions, self.beta = (
            universal, balance, betas, dimensions, beta
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return {
            "universal": self.universal.settings(),
            "balance": self.balance.settings(),
            "beta_range": [self.betas.low, self.betas.high],
            "encoding_dim": self.dimensions,
            "beta": self.beta,
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> FamilyActor:
        universal, balance = (PerceptronActor.from_settings(settings[name]) for name in ("universal", "balance"))
        low, high = settings["beta_range"]
        return cls(universal, balance, BetaRange(low, high), int(settings["encoding_dim"]), settings["beta"])

    def at(self, beta: float) -> FamilyActor:
        """The member of the family that has this balance in every state. Raises OptionError outside the range."""
        if not self.betas.low <= beta <= self.betas.high:
            raise OptionError(
                f"beta={beta:g}: this family was trained on balances from {self.betas.low:g} to {self.betas.high:g}"
            )
        member = copy.copy(self)
        member.beta = beta
        return member

    def chosen(self, states: Float[Tensor, "rows state"]) -> Float[Tensor, " rows"]:
        """The balance in each state."""
        if self.beta is not None:
            return torch.full_like(states[:, 0], self.beta)
        return self.betas.of(self.balance.scores(states).squeeze(-1).tanh())

    def forward(
        self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None
    ) -> Float[Tensor, "rows action"]:
        found: Tensor = self.universal(torch.cat([states, encode(self.chosen(states), self.dimensions)], -1))
        return found


def _on_cpu(nets: Perceptrons, place: int) -> list[tuple[Tensor, Tensor]]:
    return [(weight.cpu(), bias.cpu()) for weight, bias in nets.net(place)]
