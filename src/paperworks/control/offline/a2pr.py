"""A2PR (arXiv 2405.19909): TD3 whose actor is pulled to the better of two actions, and only where that one is good.

A VAE of the behaviour learns from logged actions of positive advantage alone. In each state its proposal and the logged
action are compared by the critic; where neither reaches the state's value, nothing pulls. As in the authors' code the
proposal encodes the policy's own action, and the actor's gradient passes through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.control.networks import Perceptrons
from paperworks.control.offline.td3_bc import TD3BC, TD3BCOptions
from paperworks.control.offline.vae import ConditionalVAE
from paperworks.core.options import option
from paperworks.core.seeding import torch_generator

if TYPE_CHECKING:
    from paperworks.control.report import ReportSection

ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class A2PROptions(TD3BCOptions):
    """A2PR's own. Published per task: HalfCheetah alpha 40; Hopper mask 0.4, gamma 0.995; Walker2d vae_weight 1.5."""

    hidden: tuple[int, ...] = option((256,) * 3, "widths of the actor's hidden layers")
    critic_hidden: tuple[int, ...] = option((256,) * 4, "widths of the hidden layers of critics and value")
    vae_hidden: tuple[int, ...] = option((750, 750), "widths of the VAE's hidden layers")
    vae_learning_rate: float = option(1e-3, "of Adam, for the VAE", above=0)
    latent_dim: int | None = option(None, "latent numbers of the VAE; none: twice the action's", low=1)
    mask: float = option(1.0, "weight of the pull to the guide", low=0)
    vae_weight: float = option(1.0, "weight in the VAE's reconstruction of a row that is learned from", low=0)
    adv_threshold: float = option(0.0, "advantage above which the VAE learns from a row; -inf: from every row")
    candidate: Literal["encode_policy", "prior", "none"] = option(
        "encode_policy",
        "the VAE's proposal: of the policy's action encoded, of the prior, or none (logged actions only)",
    )
    detach_guide: bool = option(False, "no gradient of the actor through the proposal")
    gate: bool = option(True, "no pull where neither action reaches the state's value; off: a pull everywhere")


@dataclass(frozen=True)
class Guide:
    """What each row is pulled to."""

    action: Float[Tensor, "seeds rows action"]
    pulls: Bool[Tensor, "seeds rows"]
    is_candidate: Bool[Tensor, "seeds rows"]


def choose_guide(
    candidate: Float[Tensor, "seeds rows action"],
    logged: Float[Tensor, "seeds rows action"],
    q_candidate: Float[Tensor, "seeds rows"],
    q_logged: Float[Tensor, "seeds rows"],
    value: Float[Tensor, "seeds rows"],
) -> Guide:
    """The candidate where Q(s, c) >= Q(s, a), else the logged action; it pulls if Q(s, c) >= V(s) or Q(s, a) > V(s)."""
    is_candidate = q_candidate >= q_logged
    pulls = (q_candidate >= value) | (q_logged > value)
    return Guide(torch.where(is_candidate[..., None], candidate, logged), pulls, is_candidate)


@dataclass(frozen=True)
class Quality:
    """What trained networks say of a log, by seed: shares are of its rows."""

    episode_advantage: Sequence[Sequence[float]]  # each episode's mean of Q(s, a) - V(s)
    positive: Sequence[float]  # rows whose logged action is better than V(s)
    generated: Sequence[float]  # rows guided by the VAE's proposal
    logged: Sequence[float]  # rows guided by the logged action


class A2PR(TD3BC):
    """-lambda mean Q_1(s, pi(s)) + mask mean 1{guide is good} (pi(s) - guide)^2, guide: the better of VAE's and logged."""

    name: ClassVar[str] = "a2pr"
    options_class: ClassVar[type[LearnerOptions]] = A2PROptions
    options: A2PROptions

    def __init__(self, shapes: Shapes, options: A2PROptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.value = Perceptrons((shapes.state, *options.critic_hidden, 1), seeds, "value")
        latent = options.latent_dim or 2 * shapes.action
        self.vae = ConditionalVAE(shapes.state, shapes.action, latent, options.vae_hidden, seeds)
        self.learns("value", self.value)
        self.learns("vae", self.vae, rate=options.vae_learning_rate)

    def critic_hidden(self) -> Sequence[int]:
        return self.options.critic_hidden

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        following = self.next_action(batch, draws, step)
        target = self.bootstrapped(batch, self.target_critics, following)
        told = self.fit_critics(batch, target)
        value = self.value(batch.states).squeeze(-1)
        told |= self.fit_value(batch, value, target, following)
        value, rows = value.detach(), batch.rewards.shape[1]  # as it was before its step, as in the authors' code
        told |= self.fit_behaviour(batch, value, draws.normal("behaviour", step, rows, self.vae.latent))
        if (step + 1) % self.options.policy_every == 0:
            action = self.actor(batch.states).tanh()
            q = self.critics.first(batch.states, action, frozen=True)
            weight = self.weight(q)
            pull, more = self.guided_pull(batch, action, value, draws.normal("guide", step, rows, self.vae.latent))
            self.move_actor(-weight * q.mean(1) + pull)
            told |= {"weight": weight, "pull": pull.detach(), **more}
        return told

    def fit_value(
        self,
        batch: Batch,
        value: Float[Tensor, "seeds rows"],
        target: Float[Tensor, "seeds rows"],
        following: Float[Tensor, "seeds rows action"],
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """V to the lower of two bootstraps: the critics' target, and the same of the critics as they are now."""
        lower = torch.minimum(target, self.bootstrapped(batch, self.critics, following))
        loss = (value - lower).square().mean(1)
        self.descend("value", loss)
        return {"value": loss.detach()}

    def fit_behaviour(
        self, batch: Batch, value: Float[Tensor, "seeds rows"], noise: Float[Tensor, "seeds rows latent"]
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """The VAE to logged actions whose advantage is above the threshold."""
        options = self.options
        with torch.no_grad():
            advantage = self.critics.first(batch.states, batch.actions) - value
        weight = options.vae_weight * (advantage > options.adv_threshold).float()
        loss, reconstruction, divergence = self.vae.loss(batch.states, batch.actions, noise, weight)
        self.descend("vae", loss)
        return {
            "reconstruction": reconstruction.detach(), "kl": divergence.detach(), "advantage": advantage.mean(1),
            "positive": (advantage > 0).float().mean(1),
        }  # fmt: skip

    def guided_pull(
        self,
        batch: Batch,
        action: Float[Tensor, "seeds rows action"],
        value: Float[Tensor, "seeds rows"],
        noise: Float[Tensor, "seeds rows latent"],
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """mask mean 1{guide pulls} (pi(s) - guide)^2, and which guides there were."""
        options = self.options
        candidate = self.propose(batch, action, noise)
        guide = self.guide(batch.states, candidate, batch.actions, value)
        pulls = guide.pulls if options.gate else torch.ones_like(guide.pulls)
        squares = (action - guide.action).square().mean(-1)
        told = {
            "guide_generated": (pulls & guide.is_candidate).float().mean(1),
            "guide_logged": (pulls & ~guide.is_candidate).float().mean(1),
            "guide_none": (~pulls).float().mean(1),
            "candidate_distance": (candidate - batch.actions).detach().norm(dim=-1).mean(1),
        }
        return options.mask * (pulls * squares).mean(1), told

    @torch.no_grad()
    def _judged(self, states: Tensor, actions: Tensor) -> Tensor:
        return self.critics.first(states, actions)

    def guide(self, states: Tensor, candidate: Tensor, logged: Tensor, value: Tensor) -> Guide:
        """The guides of these rows; without a candidate the logged actions, where they are better than V(s)."""
        q_logged = self._judged(states, logged)
        if self.options.candidate == "none":
            return Guide(logged, q_logged > value, torch.zeros_like(q_logged, dtype=torch.bool))
        return choose_guide(candidate, logged, self._judged(states, candidate), q_logged, value)

    def propose(
        self, batch: Batch, action: Float[Tensor, "seeds rows action"], noise: Float[Tensor, "seeds rows latent"]
    ) -> Float[Tensor, "seeds rows action"]:
        """The VAE's candidate for each state."""
        if self.options.candidate == "none":
            return batch.actions
        if self.options.candidate == "prior":
            candidate = self.vae.propose(batch.states, noise)
        else:
            candidate = self.vae(batch.states, action, noise)[0]
        return candidate.detach() if self.options.detach_guide else candidate

    @torch.no_grad()
    def quality(self, log: Log) -> Quality:
        """What the networks say of the whole log; proposals are drawn with the same numbers each time."""
        advantages, guides, draw = [], [], torch_generator(self.seeds[0], "quality")
        for begin in range(0, len(log), ROWS_AT_A_TIME):
            rows = torch.arange(begin, min(begin + ROWS_AT_A_TIME, len(log)), device=log.device)
            batch = log.batch(rows.expand(len(self.seeds), -1))
            value = self.value(batch.states).squeeze(-1)
            noise = torch.randn(*batch.rows.shape, self.vae.latent, generator=draw).to(log.device)
            candidate = self.propose(batch, self.actor(batch.states).tanh(), noise)
            guide = self.guide(batch.states, candidate, batch.actions, value)
            advantages.append(self.critics.first(batch.states, batch.actions) - value)
            guides.append(torch.stack([guide.pulls & guide.is_candidate, guide.pulls & ~guide.is_candidate]))
        advantage, found = torch.cat(advantages, 1).cpu(), torch.cat(guides, 2).float().mean(2).cpu()
        return Quality(
            episode_means(advantage, log.ends.cpu()), (advantage > 0).float().mean(1).tolist(), found[0].tolist(),
            found[1].tolist(),
        )  # fmt: skip

    def judged(self, log: Log) -> Sequence[ReportSection]:
        from paperworks.control.report import ReportSection
        from paperworks.core import plots

        found = self.quality(log)
        shares = {
            "logged actions better than V(s)": found.positive,
            "states whose guide is the VAE's proposal": found.generated,
            "states whose guide is the logged action": found.logged,
            "states that nothing pulls": [1 - a - b for a, b in zip(found.generated, found.logged, strict=True)],
        }
        facts = {name: f"{sum(values) / len(values):.1%}" for name, values in shares.items()}
        of_first = plots.histogram({"episodes": found.episode_advantage[0]}, "mean advantage of an episode", bins=30)
        text = (
            "As critics and value see the log at the end of training, mean over seeds; the figure is of the first seed."
        )
        return [ReportSection("Quality of the data", text, facts, [(of_first, "Q(s, a) - V(s), each episode's mean")])]


def episode_means(
    values: Float[Tensor, "seeds rows"], ends: Bool[Tensor, " rows"] | Bool[Tensor, "seeds rows"]
) -> list[list[float]]:
    """The mean of each episode, of each seed."""
    found = []
    for row, last in zip(values, ends.expand_as(values), strict=True):
        number = last.long().cumsum(0) - last.long()
        sums = torch.zeros(int(number[-1]) + 1).index_add_(0, number, row)
        found.append((sums / number.bincount()).tolist())
    return found
