"""What an algorithm that learns from a log is: it takes a step for all its seeds at once, and has an actor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.adam import adam

from paperworks.control.actors import Actor, PerceptronActor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.networks import Perceptrons
from paperworks.control.transitions import Transitions
from paperworks.core.options import check_ranges, option

if TYPE_CHECKING:
    from paperworks.control.policy import ControlPolicy
    from paperworks.control.report import ReportSection


@dataclass(frozen=True)
class Shapes:
    """How many numbers a state and an action have; with discrete actions, how many actions there are.

    Continuous actions lie in [-1, 1] here; policies know the environment's bounds.
    """

    state: int
    action: int


@dataclass(frozen=True)
class LearnerOptions:
    """What all algorithms have."""

    hidden: tuple[int, ...] = option((256, 256), "widths of the hidden layers of every network")
    learning_rate: float = option(3e-4, "of Adam, for every network", above=0)
    gamma: float = option(0.99, "discount", low=0, high=1)

    def __post_init__(self) -> None:
        check_ranges(self)


class Learner(nn.Module, ABC):
    """An algorithm in the middle of training, for every seed: networks, one Adam over them, and how a step goes."""

    name: ClassVar[str]
    options_class: ClassVar[type[LearnerOptions]]
    is_discrete: ClassVar[bool] = False
    goes_online: ClassVar[bool] = False  # whether it can go on in an environment what it began on a log

    def __init__(self, shapes: Shapes, options: Any, seeds: Sequence[int], log: Log) -> None:
        """`log` is for algorithms that look up more of it than a batch."""
        super().__init__()
        self.shapes, self.options, self.seeds = shapes, options, tuple(seeds)
        self.is_online = False  # whether it learns from an environment by now, and no more from a log alone
        self._parts: dict[str, list[nn.Parameter]] = {}
        self._rates: dict[str, float] = {}
        self._varied: dict[str, Tensor] = {}
        self._optimiser: torch.optim.Adam | None = None

    @classmethod
    def check(cls, log: Transitions, options: LearnerOptions) -> Sequence[str]:
        """What a user should know of a log before learning from it. Raises DataError where it cannot be learned from."""
        return ()

    @classmethod
    def explain(
        cls, policies: Sequence[ControlPolicy], log: Transitions, options: LearnerOptions, folder: Path
    ) -> Sequence[ReportSection]:
        """What the report of a run says besides its curves; files that go with it are written into the run's folder."""
        return ()

    def judged(self, log: Log) -> Sequence[ReportSection]:
        """What its networks say of the log that it learned from, for the report; `explain` says what policies show."""
        return ()

    @abstractmethod
    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        """Take step `step` (from 0) and return numbers to log, one a seed, without gradient."""

    @abstractmethod
    def act(
        self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None
    ) -> Float[Tensor, "seeds rows action"] | Int[Tensor, "seeds rows"]:
        """Every seed's action in its own states, as its saved policy would act."""

    @abstractmethod
    def actor_of(self, place: int) -> Actor:
        """What acts for the seed at that place, on the CPU, to be saved."""

    def behaviour_of(self, place: int) -> Actor:
        """What collects data as that seed's policy: with the randomness that the policy has."""
        return self.actor_of(place)

    @torch.no_grad()
    def explore(
        self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int
    ) -> Float[Tensor, "seeds rows action"] | Int[Tensor, "seeds rows"]:
        """Every seed's action while it learns in an environment: what it would do, and a little noise."""
        noise = draws.normal("explore", step, states.shape[1], self.shapes.action)
        return (self.act(states) + 0.1 * noise).clamp(-1, 1)

    def vary(self, name: str, values: Sequence[float]) -> None:
        """Give an option a value a seed, so that the points of a grid stand side by side; for options read by `each`."""
        if len(values) != len(self.seeds):
            raise ValueError(f"{name}: {len(values)} values for {len(self.seeds)} seeds")
        self._varied[name] = torch.tensor(values)

    def each(self, name: str, dims: int = 0) -> Any:
        """An option's value: a number, or [seeds, 1, ...] with `dims` ones where it varies."""
        if name not in self._varied:
            return getattr(self.options, name)
        return self._varied[name].view(-1, *([1] * dims))

    def learns(self, name: str, *parts: nn.Module | nn.Parameter, rate: float | None = None) -> None:
        """Say what `descend(name, ...)` moves, and at which rate where it is not the options'."""
        if rate is not None:
            self._rates[name] = rate
        self._parts[name] = [
            p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
        ]

    @property
    def optimiser(self) -> torch.optim.Adam:
        """Adam over all parts; made at the first use, when the networks are where they will stay."""
        if self._optimiser is None:
            usual = self.options.learning_rate
            groups = [{"params": found, "lr": self._rates.get(name, usual)} for name, found in self._parts.items()]
            self._optimiser = torch.optim.Adam(groups, lr=usual, fused=True)
        return self._optimiser

    def descend(self, name: str, loss: Float[Tensor, " seeds"]) -> None:
        """A step of the parts of that name: each seed's parameters follow its own loss, and nothing else moves."""
        parameters = self._parts[name]
        self._step(name, parameters, list(torch.autograd.grad(loss.sum(), parameters)))

    @torch.no_grad()
    def _step(self, name: str, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
        """Adam's step of one group: what `optimiser.step()` does, without a look at the groups that stay."""
        optimiser = self.optimiser
        states: list[dict[str, Tensor]] = [optimiser.state.get(parameter, {}) for parameter in parameters]
        if not all(states):  # the first time it makes them
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()  # the others have no gradient, so they stay
            for parameter in parameters:
                parameter.grad = None
            return
        group = optimiser.param_groups[list(self._parts).index(name)]
        kept = [[state[each] for state in states] for each in ("exp_avg", "exp_avg_sq", "step")]
        adam(
            list[Tensor](parameters), gradients, kept[0], kept[1], [], kept[2], fused=True, amsgrad=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"], weight_decay=0.0, eps=group["eps"],
            maximize=False,
        )  # fmt: skip


class PerceptronLearner(Learner):
    """A learner whose policy is the tanh of a perceptron."""

    @abstractmethod
    def acting(self) -> Perceptrons:
        """The nets whose output begins with what the tanh of is the action."""

    @torch.no_grad()
    def act(
        self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None
    ) -> Float[Tensor, "seeds rows action"]:
        output: Tensor = self.acting()(states)[..., : self.shapes.action]
        return output.tanh()

    def actor_of(self, place: int) -> Actor:
        width = self.shapes.action
        *inner, (weight, bias) = [(w.cpu(), b.cpu()) for w, b in self.acting().net(place)]
        return PerceptronActor([*inner, (weight[:, :width].contiguous(), bias[:width].contiguous())])
