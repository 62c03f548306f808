"""BCQ for continuous actions (arXiv 1812.02900): a VAE proposes logged-like actions, a small network shifts them, Q chooses.

The policy is all three: in a state it draws proposals and takes the one that the first critic values most.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.actors import Actor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.control.offline.vae import ConditionalVAE, proposed
from paperworks.core.options import option


@dataclass(frozen=True)
class BCQOptions(LearnerOptions):
    """BCQ's own; defaults are those published."""

    hidden: tuple[int, ...] = option((400, 300), "widths of the hidden layers of critics and perturbation")
    learning_rate: float = option(1e-3, "of Adam, for every network", above=0)
    vae_hidden: tuple[int, ...] = option((750, 750), "widths of the VAE's hidden layers")
    latent_dim: int | None = option(None, "latent numbers of the VAE; none: twice the action's", low=1)
    perturbation: float = option(0.05, "how far a proposal may be shifted, of the action's half range", low=0, high=1)
    optimism: float = option(0.25, "weight of the higher critic in targets; the lower one has the rest", low=0, high=1)
    proposals: int = option(10, "actions proposed in every next state", low=1)
    acting_proposals: int = option(100, "actions proposed where the policy acts", low=1)
    tau: float = option(0.005, "rate at which targets follow", above=0, high=1)


def soft_clipped(q: Float[Tensor, "seeds copies rows"], optimism: float) -> Float[Tensor, "seeds rows"]:
    """(1 - optimism) min_j Q_j + optimism max_j Q_j; the paper's lambda is 1 - optimism."""
    return (1 - optimism) * q.amin(1) + optimism * q.amax(1)


def shifted(
    perturbation: Perceptrons,
    states: Float[Tensor, "seeds rows state"],
    actions: Float[Tensor, "seeds rows action"],
    reach: float,
) -> Float[Tensor, "seeds rows action"]:
    """a + reach tanh(xi(s, a)), within [-1, 1]."""
    shift: Tensor = perturbation(torch.cat([states, actions], -1)).tanh()
    return (actions + reach * shift).clamp(-1, 1)


class BCQ(Learner):
    """y = r + gamma max_i [(1 - w) min_j + w max_j] Q'_j(s', a_i), a_i proposed and shifted; xi: max Q_1(s, shifted)."""

    name: ClassVar[str] = "bcq"
    options_class: ClassVar[type[LearnerOptions]] = BCQOptions
    options: BCQOptions

    def __init__(self, shapes: Shapes, options: BCQOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        pair = shapes.state + shapes.action
        latent = options.latent_dim or 2 * shapes.action
        self.vae = ConditionalVAE(shapes.state, shapes.action, latent, options.vae_hidden, seeds)
        self.perturbation = Perceptrons((pair, *options.hidden, shapes.action), seeds, "perturbation")
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_perturbation = copy.deepcopy(self.perturbation)
        self.target_critics = copy.deepcopy(self.critics)
        self.learns("vae", self.vae)
        self.learns("critic", self.critics)
        self.learns("perturbation", self.perturbation)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        options, rows, latent = self.options, batch.rewards.shape[1], self.vae.latent
        noise = draws.normal("behaviour", step, rows, latent)
        vae_loss, reconstruction, divergence = self.vae.loss(batch.states, batch.actions, noise)
        self.descend("vae", vae_loss)
        target = self.target(batch, draws.normal("next", step, rows * options.proposals, latent))
        q = self.critics(batch.states, batch.actions)
        critic_loss = (q - target[:, None]).square().mean(-1).sum(1)
        self.descend("critic", critic_loss)
        with torch.no_grad():
            proposal = self.vae.propose(batch.states, draws.normal("own", step, rows, latent))
        action = shifted(self.perturbation, batch.states, proposal, options.perturbation)
        actor_loss = -self.critics.first(batch.states, action, frozen=True).mean(1)
        self.descend("perturbation", actor_loss)
        follow(self.target_critics, self.critics, options.tau)
        follow(self.target_perturbation, self.perturbation, options.tau)
        return {
            "critic": critic_loss.detach(), "q": q.detach().mean((1, 2)), "actor": actor_loss.detach(),
            "reconstruction": reconstruction.detach(), "kl": divergence.detach(),
        }  # fmt: skip

    @torch.no_grad()
    def target(self, batch: Batch, noise: Float[Tensor, "seeds many latent"]) -> Float[Tensor, "seeds rows"]:
        """What the critics are fitted to; `noise` is of `proposals` actions in every next state, side by side."""
        options = self.options
        states = batch.next_states.repeat_interleave(options.proposals, 1)
        actions = shifted(self.target_perturbation, states, self.vae.propose(states, noise), options.perturbation)
        value = soft_clipped(self.target_critics(states, actions), options.optimism)
        best = value.unflatten(1, (-1, options.proposals)).amax(-1)
        return batch.rewards + options.gamma * batch.goes_on * best

    @torch.no_grad()
    def act(
        self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None
    ) -> Float[Tensor, "seeds rows action"]:
        count = self.options.acting_proposals
        noise = torch.randn(*states.shape[:2], count, self.vae.latent, generator=draw).to(states.device)
        nets = (self.vae.decoder, self.perturbation, self.critics)
        return best_proposal(*nets, states, noise, self.options.perturbation)

    def actor_of(self, place: int) -> BCQActor:
        settings = {
            "state": self.shapes.state, "action": self.shapes.action, "latent": self.vae.latent,
            "hidden": list(self.options.hidden), "vae_hidden": list(self.options.vae_hidden),
            "reach": self.options.perturbation, "proposals": self.options.acting_proposals,
        }  # fmt: skip
        found = BCQActor(settings)
        found.decoder, found.perturbation = self.vae.decoder.alone(place), self.perturbation.alone(place)
        found.critic.nets = self.critics.nets.alone(place * self.critics.copies)
        return found


def best_proposal(
    decoder: Perceptrons,
    perturbation: Perceptrons,
    critics: Critics,
    states: Float[Tensor, "seeds rows state"],
    noise: Float[Tensor, "seeds rows proposals latent"],
    reach: float,
) -> Float[Tensor, "seeds rows action"]:
    """Of the shifted proposals in each state the one of highest Q_1."""
    count = noise.shape[2]
    many = states.repeat_interleave(count, 1)
    actions = shifted(perturbation, many, proposed(decoder, many, noise.flatten(1, 2)), reach)
    best = critics.first(many, actions).unflatten(1, (-1, count)).argmax(-1)
    every = actions.unflatten(1, (-1, count))
    return every.gather(2, best[..., None, None].expand(-1, -1, 1, every.shape[-1])).squeeze(2)


class BCQActor(Actor):
    """One seed's decoder, perturbation and first critic."""

    kind: ClassVar[str] = "bcq"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._settings = dict(settings)
        state, action, latent = (int(settings[name]) for name in ("state", "action", "latent"))
        self.latent, self.reach, self.proposals = latent, float(settings["reach"]), int(settings["proposals"])
        self.decoder = Perceptrons((state + latent, *settings["vae_hidden"], action), [0], "decoder")
        self.perturbation = Perceptrons((state + action, *settings["hidden"], action), [0], "perturbation")
        self.critic = Critics(state, action, settings["hidden"], [0], copies=1)

    def settings(self) -> dict[str, Any]:
        return self._settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> BCQActor:
        return cls(settings)

    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(1, len(states), self.proposals, self.latent, generator=draw)
        return best_proposal(self.decoder, self.perturbation, self.critic, states[None], noise, self.reach)[0]
