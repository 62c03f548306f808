"""FamO2O (arXiv 2310.17966): how far a policy leaves the log is decided for every state, not once for all.

A wrapper of IQL, CQL or AWAC: their critics judge, a family of policies (`family.py`) is what acts. On the log every row
trains a member drawn at random; in the environment it trains the member that the balance model picks for its state.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import LOG_STD, TanhGaussian, gaussian_log_prob
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.control.offline.cql import log_sum_exp
from paperworks.control.offline.family import BetaRange, Family, FamilyActor
from paperworks.control.offline.iql import expectile_loss
from paperworks.control.online.sac import target_entropy
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError
from paperworks.core.options import option

if TYPE_CHECKING:
    from paperworks.control.policy import ControlPolicy
    from paperworks.control.report import ReportSection

Base = Literal["iql", "cql", "awac"]
RANGES: Mapping[Base, tuple[float, float]] = {"iql": (1.0, 5.0), "cql": (0.5, 1.5), "awac": (1.0, 5.0)}


@dataclass(frozen=True)
class FamO2OOptions(LearnerOptions):
    """FamO2O's own, and those of its bases. Published for AntMaze: expectile 0.9, balances 8 to 14."""

    base: Base = option("iql", "whose critics and objective the family has")
    beta_range: tuple[float, float] | None = option(
        None, "lowest and highest balance, the higher the farther from the log; none: 1,5 (iql, awac), 0.5,1.5 (cql)"
    )
    encoding_dim: int = option(6, "numbers that a balance is encoded in, even", low=2)
    target_entropy: float = option(-0.5, "of the balance model, for x in (-1, 1) (iql, awac)")
    balance_every: int = option(1, "steps to a step of the balance model", low=1)
    expectile: float = option(0.7, "of Q over logged actions (iql)", above=0, below=1)
    most_weight: float = option(100.0, "largest weight exp(beta A) of a row (iql, awac)", above=0)
    conservatism: float = option(1.0, "weight of log sum exp Q - Q(logged) in the critics' loss (cql)", low=0)
    sampled_actions: int = option(10, "uniform, current and next actions each, in the log sum exp (cql)", low=1)
    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoding_dim % 2:
            raise OptionError(
                f"encoding_dim={self.encoding_dim} is odd: a balance is encoded in pairs of sine and cosine"
            )
        low, high = self.beta_range or RANGES[self.base]
        if low >= high:
            raise OptionError(f"beta_range={low:g},{high:g}: the first must be below the second")
        if low < 0:
            raise OptionError(f"beta_range={low:g},{high:g}: a negative balance would make values small, not large")

    @property
    def betas(self) -> BetaRange:
        """The range of balances, the base's where none was given."""
        return BetaRange(*(self.beta_range or RANGES[self.base]))


def advantage_weight(
    beta: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"], most: float
) -> Float[Tensor, "*shape"]:
    """min(exp(beta A), most): what a logged action counts for the member of that balance."""
    return (beta * advantage).exp().clamp(max=most)


class FamO2O(Learner):
    """A family of policies around the critics of `--base`, and a model that picks one of them for every state.

    Made as the class of that base. Balance model: min mean eta log pi_b(x|s) - min_j Q_j(s, a'), a' of the universal model
    at x's balance; eta is moved to hold the entropy at its target. Universal model: the base's objective at each row's balance.
    """

    name: ClassVar[str] = "famo2o"
    options_class: ClassVar[type[LearnerOptions]] = FamO2OOptions
    goes_online: ClassVar[bool] = True
    options: FamO2OOptions
    outputs: ClassVar[int] = 2  # numbers that the universal model gives for each dimension of an action
    balance_has_entropy: ClassVar[bool] = True

    def __new__(cls, shapes: Shapes, options: FamO2OOptions, *more: Any) -> FamO2O:
        return super().__new__(BASES[options.base] if cls is FamO2O else cls)

    def __init__(self, shapes: Shapes, options: FamO2OOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        outputs = self.outputs * shapes.action
        self.family = Family(shapes.state, outputs, options.hidden, seeds, options.betas, options.encoding_dim)
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_critics = copy.deepcopy(self.critics)
        self.log_eta = nn.Parameter(torch.zeros(len(self.seeds)))
        self.learns("critic", self.critics)
        self.learns("universal", self.family.universal)
        self.learns("balance", self.family.balance, self.family.balance_log_std)
        self.learns("eta", self.log_eta)

    @classmethod
    def explain(
        cls, policies: Sequence[ControlPolicy], log: Transitions, options: LearnerOptions, folder: Path
    ) -> Sequence[ReportSection]:
        from paperworks.control.offline.balance_map import write_map  # plots are for reports alone

        return [write_map(policies, log, folder)]

    @property
    def judge(self) -> Critics:
        """The critics that the balance model is to please: those of the base's own objective."""
        return self.critics

    def sample(
        self, output: Float[Tensor, "seeds rows outputs"], noise: Float[Tensor, "seeds rows action"]
    ) -> Float[Tensor, "seeds rows action"]:
        """Actions of the universal model's output, differentiable."""
        return TanhGaussian(output).sample(noise)[0]

    @torch.no_grad()
    def betas(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds rows"]:
        """The balance that each row trains: uniform on the log, drawn from the balance model online."""
        rows = batch.rewards.shape[1]
        if not self.is_online:
            return self.family.betas.of(2 * draws.uniform("uniform beta", step, rows) - 1)
        return self.family.betas.of(self.family.draw_x(batch.states, draws.normal("drawn beta", step, rows, 1))[0])

    def balance_loss(
        self, batch: Batch, noise: Float[Tensor, "seeds rows one"], action_noise: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """The balance model's loss, and its entropy and mean. The gradient goes through the universal model's input."""
        x, log_prob = self.family.draw_x(batch.states, noise)
        beta = self.family.betas.of(x)
        action = self.sample(self.family.output(batch.states, beta), action_noise)
        loss = -self.judge(batch.states, action).amin(1)
        if self.balance_has_entropy:
            loss = loss + self.log_eta.detach().exp()[:, None] * log_prob
        return loss.mean(1), {"balance": beta.detach().mean(1), "balance_entropy": -log_prob.detach().mean(1)}

    def fit_balance(self, batch: Batch, draws: Draws, step: int) -> dict[str, Float[Tensor, " seeds"]]:
        """A step of the balance model and of eta, every `balance_every` steps."""
        if (step + 1) % self.options.balance_every:
            return {}
        rows = batch.rewards.shape[1]
        noise = (draws.normal("x", step, rows, 1), draws.normal("balance action", step, rows, self.shapes.action))
        loss, told = self.balance_loss(batch, *noise)
        self.descend("balance", loss)
        if not self.balance_has_entropy:
            return told
        self.descend("eta", self.log_eta.exp() * (told["balance_entropy"] - self.options.target_entropy))
        return {**told, "eta": self.log_eta.detach().exp()}

    def fit_critics(self, batch: Batch, value: Float[Tensor, "seeds rows"], more: Tensor) -> dict[str, Tensor]:
        """A step of the critics towards r + gamma V(s'), with `more` [seeds] added to the loss; targets follow."""
        target = batch.rewards + self.options.gamma * batch.goes_on * value
        q = self.critics(batch.states, batch.actions)
        loss = (q - target[:, None]).square().mean(-1).sum(1)
        self.descend("critic", loss + more)
        follow(self.target_critics, self.critics, self.options.tau)
        return {"critic": loss.detach(), "q": q.detach().mean((1, 2))}

    @torch.no_grad()
    def next_value(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds rows"]:
        """min_j Q'_j(s', a') of an action of the family at the balance of s' (cql, awac)."""
        noise = draws.normal("next", step, *batch.actions.shape[1:])
        action = self.sample(self.family.output(batch.next_states, self.family.chosen(batch.next_states)), noise)
        return self.target_critics(batch.next_states, action).amin(1)

    @torch.no_grad()
    def act(self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None) -> Tensor:
        return self.family.output(states, self.family.chosen(states))[..., : self.shapes.action].tanh()

    @torch.no_grad()
    def explore(self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int) -> Tensor:
        noise = draws.normal("explore", step, states.shape[1], self.shapes.action)
        return self.sample(self.family.output(states, self.family.chosen(states)), noise).clamp(-1, 1)

    def actor_of(self, place: int) -> FamilyActor:
        return self.family.actor_of(place, self.shapes.action)


class FamilyIQL(FamO2O):
    """min mean -min(exp(beta (min_j Q'_j(s, a) - V(s))), 100) log pi_u(a|s, beta); critics: IQL's, without beta."""

    outputs = 1

    def __init__(self, shapes: Shapes, options: FamO2OOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.log_std = nn.Parameter(torch.zeros(len(self.seeds), 1, shapes.action))
        self.value = Perceptrons((shapes.state, *options.hidden, 1), seeds, "value")
        self.learns("value", self.value)
        self.learns("universal", self.family.universal, self.log_std)

    @property
    def judge(self) -> Critics:
        return self.target_critics

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        return output.tanh() + self.log_std.clamp(*LOG_STD).exp() * noise

    def universal_loss(
        self, batch: Batch, beta: Float[Tensor, "seeds rows"], advantage: Float[Tensor, "seeds rows"]
    ) -> Float[Tensor, " seeds"]:
        """Imitation of logged actions by advantage, each row at its balance."""
        mean, log_std = self.family.output(batch.states, beta).tanh(), self.log_std.clamp(*LOG_STD)
        weight = advantage_weight(beta, advantage, self.options.most_weight)
        return -(weight * gaussian_log_prob(mean, log_std, batch.actions)).mean(1)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        with torch.no_grad():
            known = self.target_critics(batch.states, batch.actions).amin(1)
        value_loss = expectile_loss(known - self.value(batch.states).squeeze(-1), self.options.expectile).mean(1)
        self.descend("value", value_loss)
        beta = self.betas(batch, draws, step)
        told = self.fit_balance(batch, draws, step)
        with torch.no_grad():
            advantage = known - self.value(batch.states).squeeze(-1)
            following = self.value(batch.next_states).squeeze(-1)
        actor_loss = self.universal_loss(batch, beta, advantage)
        self.descend("universal", actor_loss)
        told |= self.fit_critics(batch, following, torch.zeros_like(actor_loss))
        return {**told, "value": value_loss.detach(), "actor": actor_loss.detach(), "advantage": advantage.mean(1)}


class FamilyCQL(FamO2O):
    """min mean alpha log pi_u(a'|s, beta) - beta min_j Q_j(s, a'); critics: CQL's, next actions at the balance of s'.

    The balance model has no entropy term here. Its x is put into the range as everywhere (the released code leaves it).
    """

    balance_has_entropy = False

    def __init__(self, shapes: Shapes, options: FamO2OOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.log_temperature = nn.Parameter(torch.zeros(len(self.seeds)))
        self.learns("temperature", self.log_temperature)

    def universal_loss(
        self, batch: Batch, beta: Float[Tensor, "seeds rows"], noise: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, " seeds"], Float[Tensor, " seeds"]]:
        """(loss of the universal model, its entropy)."""
        action, log_prob = TanhGaussian(self.family.output(batch.states, beta)).sample(noise)
        temperature = self.log_temperature.detach().exp()[:, None]
        loss = temperature * log_prob - beta * self.critics(batch.states, action).amin(1)
        return loss.mean(1), -log_prob.detach().mean(1)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        options = self.options
        beta = self.betas(batch, draws, step)
        told = self.fit_balance(batch, draws, step)
        actor_loss, entropy = self.universal_loss(batch, beta, draws.normal("own", step, *batch.actions.shape[1:]))
        self.descend("universal", actor_loss)
        self.descend("temperature", self.log_temperature * (entropy - target_entropy(self.shapes)))
        with torch.no_grad():
            here = self.family.output(batch.states, beta)
            there = self.family.output(batch.next_states, self.family.chosen(batch.next_states))
        outputs = {"current": here, "following": there}
        every = log_sum_exp(self.critics, batch.states, outputs, options.sampled_actions, draws, step)
        gap = (every - self.critics(batch.states, batch.actions)).mean(-1).sum(1)
        told |= self.fit_critics(batch, self.next_value(batch, draws, step), options.conservatism * gap)
        return {
            **told,
            "gap": gap.detach(),
            "actor": actor_loss.detach(),
            "temperature": self.log_temperature.detach().exp(),
        }


class FamilyAWAC(FamO2O):
    """min mean -min(exp(beta A), 100) log pi_u(a|s, beta), A = Q(s, a) - Q(s, a'), a' of the same member.

    The paper reports AWAC and releases no code of it: this follows the IQL form, with AWAC's critics.
    """

    def universal_loss(
        self, batch: Batch, beta: Float[Tensor, "seeds rows"], noise: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, " seeds"], Float[Tensor, " seeds"]]:
        """(loss of the universal model, mean advantage of logged actions over the member's own)."""
        policy = TanhGaussian(self.family.output(batch.states, beta))
        with torch.no_grad():
            own, _ = policy.sample(noise)
            advantage = self.critics(batch.states, batch.actions).amin(1) - self.critics(batch.states, own).amin(1)
            weight = advantage_weight(beta, advantage, self.options.most_weight)
        return -(weight * policy.log_prob(batch.actions)).mean(1), advantage.mean(1)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        beta = self.betas(batch, draws, step)
        told = self.fit_balance(batch, draws, step)
        actor_loss, advantage = self.universal_loss(batch, beta, draws.normal("own", step, *batch.actions.shape[1:]))
        self.descend("universal", actor_loss)
        told |= self.fit_critics(batch, self.next_value(batch, draws, step), torch.zeros_like(actor_loss))
        return {**told, "actor": actor_loss.detach(), "advantage": advantage}


BASES: Mapping[Base, type[FamO2O]] = {"iql": FamilyIQL, "cql": FamilyCQL, "awac": FamilyAWAC}
