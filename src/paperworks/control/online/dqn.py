"""Double DQN that acts while it learns: now and then at random, less and less often (arXiv 1509.06461)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.batches import Draws
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.learner import LearnerOptions
from paperworks.core.options import option


@dataclass(frozen=True)
class OnlineDQNOptions(DQNOptions):
    """How it explores; the defaults are the study's of data sets (arXiv 2111.04714)."""

    first_epsilon: float = option(1.0, "share of random actions at first", low=0, high=1)
    last_epsilon: float = option(0.01, "and from `epsilon_steps` on", low=0, high=1)
    epsilon_steps: int = option(1000, "steps in which it falls, evenly", low=1)

    def epsilon(self, step: int) -> float:
        """The share of random actions at a step."""
        done = min(1.0, step / self.epsilon_steps)
        return self.first_epsilon + (self.last_epsilon - self.first_epsilon) * done


class OnlineDQN(DQN):
    """Double DQN whose data are its own: an action is random with probability epsilon, and else the best."""

    name: ClassVar[str] = "online-dqn"
    options_class: ClassVar[type[LearnerOptions]] = OnlineDQNOptions
    options: OnlineDQNOptions

    @torch.no_grad()
    def explore(self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int) -> Int[Tensor, "seeds rows"]:
        uniform = draws.uniform("explore", step, 2, states.shape[1])
        at_random = (uniform[:, 0] * self.shapes.action).long().clamp(max=self.shapes.action - 1)
        return torch.where(uniform[:, 1] < self.options.epsilon(step), at_random, self.act(states))
