"""A bandit with one state whose answers are known: reward 3 - (a - 0.8)^2, most actions logged on the wrong side.

With exact critics an actor that is pulled to `guide` settles where lambda (a - 0.8) + (a - guide) = 0, lambda = alpha / Q(a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperworks.control.learner import Learner
from paperworks.control.networks import Critics
from paperworks.control.offline.a2pr import A2PR
from paperworks.control.offline.bc import BC
from paperworks.control.offline.prdc import PRDC
from paperworks.control.offline.td3_bc import TD3BC
from paperworks.control.testbeds.many_logs import Nets, Trained
from paperworks.control.transitions import Transitions
from paperworks.experiment.definition import Arm, Budget, Workspace

TOP, BEST = 3.0, 0.8
LOGGED = ((0.9, -0.5), (0.1, 0.7))  # shares of the log and their actions
ALPHA, NOISE, ROWS = 2.5, 0.01, 1000
EXACT, LEARNED = "exact critics", "learned critics"
STEPS: Mapping[Budget, int] = {"smoke": 10, "small": 600, "full": 5000}

KINDS: Mapping[str, type[Learner]] = {"a2pr": A2PR, "td3-bc": TD3BC, "prdc": PRDC, "bc": BC}


def reward(action: Tensor) -> Tensor:
    """Of [..., 1] actions."""
    found: Tensor = TOP - (action[..., 0] - BEST).square()
    return found


def settled(guide: float, alpha: float = ALPHA) -> float:
    """The action at which the pull to `guide` and the critics' gradient are even."""
    action = guide
    for _ in range(200):
        weight = alpha / (TOP - (action - BEST) ** 2)
        action = (weight * BEST + guide) / (weight + 1)
    return action


def bandit_log(seed: int) -> Transitions:
    """A thousand pulls, each an episode of its own."""
    draw = np.random.default_rng(seed)
    shares, actions = (np.array(column) for column in zip(*LOGGED, strict=True))
    chosen = actions[draw.choice(len(actions), ROWS, p=shares)] + draw.normal(0, NOISE, ROWS)
    column = chosen.astype(np.float32)[:, None]
    state, over = np.zeros((ROWS, 1), np.float32), np.ones(ROWS, bool)
    return Transitions(state, column, reward(torch.from_numpy(column)).numpy(), state, over, ~over)


class KnownCritics(Critics):
    """The reward itself, with a parameter that changes nothing, so that there is something for a step to move."""

    def __init__(self, copies: int) -> None:
        nn.Module.__init__(self)
        self.copies, self.nothing = copies, nn.Parameter(torch.zeros(1))

    def forward(self, states: Tensor, actions: Tensor, *, frozen: bool = False) -> Tensor:
        return self.first(states, actions)[:, None].expand(-1, self.copies, -1)

    def first(self, states: Tensor, actions: Tensor, *, frozen: bool = False) -> Tensor:
        return reward(actions) + 0 * self.nothing


def bandit_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Where the arm's actor settles for every seed, and what that earns."""
    torch.set_num_threads(1)
    kind = KINDS[arm.name]
    fields = kind.options_class.__dataclass_fields__
    given: dict[str, Any] = dict.fromkeys(("hidden", "critic_hidden", "vae_hidden"), (32, 32))
    given |= {"tau": 0.02, "learning_rate": 3e-3, "vae_learning_rate": 3e-3}
    options = kind.options_class(**{name: value for name, value in given.items() if name in fields})
    trained = Trained(kind, options, Nets([bandit_log(seed) for seed in seeds], list(seeds), {}), 64)
    if setting == EXACT and kind is not BC:
        learner: Any = trained.learner
        learner.critics, learner.target_critics = KnownCritics(2), KnownCritics(2)
        learner.learns("critic", learner.critics)
    trained.learn(STEPS[budget])
    action = trained.acting()(torch.zeros(len(seeds), 1, 1))[:, 0]
    return [{"action": float(a[0]), "reward": float(reward(a))} for a in action]
