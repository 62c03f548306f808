"""FISOR (arXiv 2401.10700): reward where the constraint can be kept, the least violation where it cannot, from a log alone.

Three supervised problems that do not wait for each other: feasibility values (which states can still be kept safe), reward
values, and a diffusion policy that clones logged actions by weights of both. Safety is that of the estimated region: it is
no guarantee. The `staged` way, and bootstrapping through time limits, are ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import follow
from paperworks.control.policy import ControlPolicy
from paperworks.control.report import ReportSection
from paperworks.control.safe.constraints import ConstraintColumn, check_constraints, log_constraint
from paperworks.control.safe.diffusion import NoiseModels, Schedule, draw_actions, noise_loss
from paperworks.control.safe.diffusion_actor import DiffusionActor, Extract, best_candidate, take_net
from paperworks.control.safe.feasibility import cloning_weights, discounted_limit, reward_weights
from paperworks.control.safe.feasibility_report import check_map_dims, feasibility_sections
from paperworks.control.safe.values import Kind, SafeValues
from paperworks.control.transitions import Transitions
from paperworks.core.options import option
from paperworks.core.seeding import torch_generator


@dataclass(frozen=True)
class FISOROptions(LearnerOptions):
    """FISOR's own. The paper's batches are of 2048 rows (--batch-size): two policy steps of 1024, values on 256."""

    critic_type: Literal["hj", "qc"] = option("hj", "feasibility (hj), or summed costs with a limit (qc: its ablation)")
    weights: Literal["fisor", "bc", "reward"] = option("fisor", "of logged actions: by both values, 1, by reward alone")
    extract: Extract = option("minqc", "of the candidates take the lowest Q of violations, or the highest of rewards")
    constraint: ConstraintColumn = option("auto", "h: the log's signed column, its costs as 0/1, or what there is")
    cost_scale: float = option(25.0, "h of a violation where the log has costs alone; -1 elsewhere", above=0)
    tau_h: float = option(0.9, "reversed expectile: near 1 is the safest logged action", above=0, below=1)
    tau_r: float = option(0.9, "expectile of rewards: near 1 is the best logged action", above=0, below=1)
    alpha_h: float = option(5.0, "inverse temperature of violations, in infeasible states", low=0)
    alpha_r: float = option(3.0, "inverse temperature of reward advantages, in feasible states", low=0)
    cost_limit: float = option(10.0, "qc: costs of an episode that are allowed", low=0)
    episode_length: int = option(1000, "qc: steps that the limit is spread over", low=1)
    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)
    timeouts_bootstrap: bool = option(False, "values look beyond a time limit; the paper's stop there as at an end")
    staged: int = option(
        0, "steps in which values alone learn; then they stay, and the policy learns; 0: together", low=0
    )
    value_rows: int = option(256, "rows of a batch that values learn from", low=1)
    policy_updates: int = option(2, "parts of a batch, each a step of the policy", low=1)
    policy_decay: int = option(3_000_000, "policy steps of the cosine along which its learning rate falls to 0", low=1)
    policy_tau: float = option(0.001, "rate at which the policy that acts follows the one that learns", above=0, high=1)
    policy_width: int = option(256, "width of the policy's residual blocks", low=1)
    policy_blocks: int = option(3, "residual blocks of the policy", low=0)
    dropout: float = option(0.1, "in the policy's blocks", low=0, below=1)
    diffusion_steps: int = option(5, "steps from noise to an action", low=1)
    candidates: int = option(16, "actions drawn in a state, of which one is taken", low=1)
    temperature: float = option(1.0, "of the noise between steps", low=0)
    map_dims: tuple[int, ...] = option((), "two numbers of the state that the report's map is drawn over: 0,1")


def threshold_of(options: FISOROptions) -> float:
    """The value up to which a state is feasible: 0, or the limit of summed costs, discounted."""
    if options.critic_type == "hj":
        return 0.0
    return discounted_limit(options.cost_limit, options.episode_length, options.gamma)


class FISOR(Learner):
    """V_h, Q_h by Hamilton-Jacobi reachability, V_r, Q_r by IQL; diffusion policy: mean w |noise model - noise|^2."""

    name: ClassVar[str] = "fisor"
    options_class: ClassVar[type[LearnerOptions]] = FISOROptions
    options: FISOROptions

    def __init__(self, shapes: Shapes, options: FISOROptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.violation: Kind = options.critic_type
        self.values = SafeValues(shapes.state, shapes.action, options.hidden, seeds, self.kinds())
        self.policy = NoiseModels(shapes.state, shapes.action, options.policy_width, options.policy_blocks, seeds)
        self.averaged = copy.deepcopy(self.policy)
        self.schedule = Schedule(options.diffusion_steps)
        self.threshold = threshold_of(options)
        self._log = log
        self._signals: dict[Kind, Tensor] = {
            kind: log.rewards if kind == "reward" else log_constraint(log, kind, options.constraint, options.cost_scale)
            for kind in self.values.kinds
        }
        self.learns("value", self.values.value_nets)
        self.learns("critic", self.values.critics)
        self.learns("policy", self.policy)

    def kinds(self) -> tuple[Kind, ...]:
        """The values that are learned."""
        return ("reward", self.violation)

    @classmethod
    def check(cls, log: Transitions, options: LearnerOptions) -> Sequence[str]:
        assert isinstance(options, FISOROptions)
        if options.map_dims:
            check_map_dims(options.map_dims, log.observations.shape[1])
        return check_constraints(log, "costs" if options.critic_type == "qc" else options.constraint)

    @classmethod
    def explain(
        cls, policies: Sequence[ControlPolicy], log: Transitions, options: LearnerOptions, folder: Path
    ) -> Sequence[ReportSection]:
        assert isinstance(options, FISOROptions)
        is_of_costs = options.critic_type == "hj" and (options.constraint == "costs" or log.constraint is None)
        return feasibility_sections(
            policies, log, folder,
            map_dims=options.map_dims, threshold=threshold_of(options), gamma=options.gamma,
            cost_scale=options.cost_scale if is_of_costs else None,
        )  # fmt: skip

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        staged, told = self.options.staged, dict[str, Tensor]()
        if step >= staged:
            weight = self.weigh(batch.states, batch.actions)
            told |= {"imitated": (weight > 0).float().mean(1), **self.clone(batch, weight, draws, step)}
        if not staged or step < staged:
            told |= self.learn_values(batch)
        return told

    def learn_values(self, batch: Batch) -> dict[str, Float[Tensor, " seeds"]]:
        """A step of every value and critic, on the first rows of the batch."""
        options, first = self.options, slice(self.options.value_rows)
        states, actions, rows = batch.states[:, first], batch.actions[:, first], batch.rows[:, first]
        value_loss = self.values.value_loss(states, actions, options.tau_r, options.tau_h).sum(1)
        self.descend("value", value_loss)
        signals = {kind: self._log.pick(signal, rows) for kind, signal in self._signals.items()}
        goes_on = (
            batch.goes_on[:, first] if options.timeouts_bootstrap else 1 - self._log.pick(self._log.ends, rows).float()
        )
        critic_loss = self.values.critic_loss(
            states, actions, signals, batch.next_states[:, first], goes_on, options.gamma
        ).sum(1)
        self.descend("critic", critic_loss)
        self.values.follow(options.tau)
        with torch.no_grad():
            value = self.values.value(states)
        return {
            "value": value_loss.detach(), "critic": critic_loss.detach(),
            "q": value[:, self.values.place("reward")].mean(1),
            "feasible": (value[:, self.values.place(self.violation)] <= self.threshold).float().mean(1),
        }  # fmt: skip

    @torch.no_grad()
    def weigh(
        self, states: Float[Tensor, "seeds rows state"], actions: Float[Tensor, "seeds rows action"]
    ) -> Float[Tensor, "seeds rows"]:
        """How much each logged action counts, by the values of the moment."""
        options, values = self.options, self.values
        if options.weights == "bc":
            return torch.ones_like(states[..., 0])
        value, known = values.value(states), values.known(states, actions)
        advantage = (known - value)[:, values.place("reward")]
        if options.weights == "reward":
            return reward_weights(advantage, options.alpha_r)
        value_h, q_h = (each[:, values.place(self.violation)] - self.threshold for each in (value, known))
        return cloning_weights(value_h, q_h, advantage, alpha_h=options.alpha_h, alpha_r=options.alpha_r)

    def clone(
        self, batch: Batch, weight: Float[Tensor, "seeds rows"], draws: Draws, step: int
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """Steps of the policy, one a part of the batch; and of the average that acts."""
        options, rows = self.options, batch.rewards.shape[1]
        times = (draws.uniform("times", step, rows) * options.diffusion_steps).long()
        noise = draws.normal("noise", step, rows, self.shapes.action)
        noisy = self.schedule.noisy(batch.actions, noise, times)
        losses = list[Tensor]()
        for part in torch.arange(rows).chunk(options.policy_updates):
            at = slice(int(part[0]), int(part[-1]) + 1)
            kept = self._dropout(len(part), step, len(losses))
            predicted = self.policy(batch.states[:, at], noisy[:, at], times[:, at], options.diffusion_steps, kept)
            loss = noise_loss(predicted, noise[:, at], weight[:, at])
            self._slow_down(step * options.policy_updates + len(losses))
            self.descend("policy", loss)
            follow(self.averaged, self.policy, options.policy_tau)
            losses.append(loss.detach())
        return {"policy": torch.stack(losses).mean(0)}

    def _dropout(self, rows: int, step: int, part: int) -> list[Float[Tensor, "seeds rows width"]]:
        share, size = self.options.dropout, (self.options.policy_blocks, rows, self.options.policy_width)
        if share == 0:
            return []
        draws = [torch_generator(seed, "dropout", step, part) for seed in self.seeds]
        kept = torch.stack([torch.rand(size, generator=draw) >= share for draw in draws], 1)
        return list((kept.float() / (1 - share)).to(self._log.device))

    def _slow_down(self, updates: int) -> None:
        """The policy's learning rate after so many steps of it: a cosine down to 0."""
        share = min(updates / self.options.policy_decay, 1.0)
        group = self.optimiser.param_groups[list(self._parts).index("policy")]
        group["lr"] = self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    @torch.no_grad()
    def act(
        self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None
    ) -> Float[Tensor, "seeds rows action"]:
        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw).to(states.device)

        options = self.options
        found = draw_actions(
            self.averaged, self.schedule, states, options.candidates, normal, temperature=options.temperature
        )
        return best_candidate(self.values, states, found, self.violation, options.extract)

    def actor_of(self, place: int) -> DiffusionActor:
        options = self.options
        settings = {
            "state": self.shapes.state, "action": self.shapes.action, "hidden": list(options.hidden),
            "violation": self.violation, "width": options.policy_width, "blocks": options.policy_blocks,
            "steps": options.diffusion_steps, "candidates": options.candidates, "temperature": options.temperature,
            "extract": options.extract,
        }  # fmt: skip
        found = DiffusionActor(settings)
        take_net(found.model, self.averaged, place, len(self.seeds))
        take_net(found.values, self.values, place, len(self.seeds))
        return found
