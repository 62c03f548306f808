"""A conditional variational auto-encoder of logged actions, every seed's side by side: what A2PR and BCQ propose by.

The encoder takes (state, action) to a Gaussian of latent numbers, the decoder (state, latent numbers) to an action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.networks import Perceptrons

LOG_STD = (-4.0, 15.0)
PRIOR_REACH = 0.5  # proposals take latent numbers of N(0, 1), clipped to +-this


class ConditionalVAE(nn.Module):
    """E(s, a) -> (mean, log_std), G(s, z) -> tanh in [-1, 1]."""

    def __init__(self, state: int, action: int, latent: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = Perceptrons((state + action, *hidden, 2 * latent), seeds, "encoder")
        self.decoder = Perceptrons((state + latent, *hidden, action), seeds, "decoder")

    def encode(
        self, states: Float[Tensor, "seeds rows state"], actions: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, "seeds rows latent"], Float[Tensor, "seeds rows latent"]]:
        """(mean, log_std), the second clamped."""
        mean, log_std = self.encoder(torch.cat([states, actions], -1)).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD)

    def decode(
        self, states: Float[Tensor, "seeds rows state"], latent: Float[Tensor, "seeds rows latent"]
    ) -> Float[Tensor, "seeds rows action"]:
        """The action of these latent numbers."""
        return decoded(self.decoder, states, latent)

    def forward(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        noise: Float[Tensor, "seeds rows latent"],
    ) -> tuple[
        Float[Tensor, "seeds rows action"], Float[Tensor, "seeds rows latent"], Float[Tensor, "seeds rows latent"]
    ]:
        """(the action that comes back, mean, log_std) for standard normal noise, differentiable."""
        mean, log_std = self.encode(states, actions)
        return self.decode(states, mean + log_std.exp() * noise), mean, log_std

    def propose(
        self, states: Float[Tensor, "seeds rows state"], noise: Float[Tensor, "seeds rows latent"]
    ) -> Float[Tensor, "seeds rows action"]:
        """An action from the prior."""
        return proposed(self.decoder, states, noise)

    def loss(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        noise: Float[Tensor, "seeds rows latent"],
        weight: Float[Tensor, "seeds rows"] | None = None,
    ) -> tuple[Float[Tensor, " seeds"], Float[Tensor, " seeds"], Float[Tensor, " seeds"]]:
        """(reconstruction + 0.5 KL, reconstruction, KL); rows count in the reconstruction by their weight."""
        found, mean, log_std = self(states, actions, noise)
        reconstruction = reconstruction_loss(found, actions, weight)
        divergence = gaussian_kl(mean, log_std).mean((1, 2))
        return reconstruction + 0.5 * divergence, reconstruction, divergence


def decoded(decoder: Perceptrons, states: Tensor, latent: Tensor) -> Tensor:
    """The decoder alone, for policies that need no encoder."""
    found: Tensor = decoder(torch.cat([states, latent], -1))
    return found.tanh()


def proposed(decoder: Perceptrons, states: Tensor, noise: Tensor) -> Tensor:
    """Actions from latent numbers of the clipped prior."""
    return decoded(decoder, states, noise.clamp(-PRIOR_REACH, PRIOR_REACH))


def reconstruction_loss(
    found: Float[Tensor, "seeds rows action"],
    actions: Float[Tensor, "seeds rows action"],
    weight: Float[Tensor, "seeds rows"] | None = None,
) -> Float[Tensor, " seeds"]:
    """mean of weight (found - a)^2 over rows and dimensions: over all rows, whatever they weigh."""
    squares = (found - actions).square().mean(-1)
    return (squares if weight is None else weight * squares).mean(1)


def gaussian_kl(
    mean: Float[Tensor, "seeds rows latent"], log_std: Float[Tensor, "seeds rows latent"]
) -> Float[Tensor, "seeds rows latent"]:
    """KL of N(mean, exp(log_std)^2) to N(0, 1), a dimension each."""
    return -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp())
