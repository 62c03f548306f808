"""Values of rewards and of violations, of every seed and kind, as one batched network.

Kinds: `reward` (implicit Q-learning), `hj` (feasibility by Hamilton-Jacobi reachability, arXiv 2401.10700), `qc` (summed
costs, its ablation). Each has two critics with targets and a state value, fitted to logged actions alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.control.offline.iql import expectile_loss
from paperworks.control.safe.feasibility import feasibility_target, sum_target

Kind = Literal["reward", "hj", "qc"]
ENSEMBLE = 2  # critics of a kind


class SafeValues(nn.Module):
    """V and Q of some kinds for every seed: [seeds, kinds, rows].

    A kind's known Q is the worst of its target critics: their minimum for rewards, their maximum for violations.
    """

    def __init__(
        self, state: int, action: int, hidden: Sequence[int], seeds: Sequence[int], kinds: Sequence[Kind]
    ) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.value_nets = Perceptrons((state, *hidden, 1), seeds, "values", copies=len(kinds))
        self.critics = Critics(state, action, hidden, seeds, copies=ENSEMBLE * len(kinds), name="critics")
        self.targets = copy.deepcopy(self.critics)

    def value(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds kinds rows"]:
        """V(s) of every kind."""
        inputs = states.repeat_interleave(len(self.kinds), 0)
        return self.value_nets(inputs).squeeze(-1).unflatten(0, (-1, len(self.kinds)))

    @torch.no_grad()
    def known(
        self, states: Float[Tensor, "seeds rows state"], actions: Float[Tensor, "seeds rows action"]
    ) -> Float[Tensor, "seeds kinds rows"]:
        """Q(s, a) of every kind by its target critics, the worst of them."""
        each = self.targets(states, actions).unflatten(1, (len(self.kinds), ENSEMBLE))
        return torch.stack([_worst(kind, each[:, at]) for at, kind in enumerate(self.kinds)], 1)

    def place(self, kind: Kind) -> int:
        """Where the kind stands among the values."""
        return self.kinds.index(kind)

    def value_loss(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        tau_r: float,
        tau_h: float,
    ) -> Float[Tensor, "seeds kinds"]:
        """Expectile losses of known Q - V: the weight tau is on errors above 0 for rewards, below 0 for violations."""
        error = self.known(states, actions) - self.value(states)
        losses = [
            expectile_loss(error[:, at], tau_r if kind == "reward" else 1 - tau_h) for at, kind in enumerate(self.kinds)
        ]
        return torch.stack(losses, 1).mean(-1)

    def critic_loss(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        signals: Mapping[Kind, Float[Tensor, "seeds rows"]],
        next_states: Float[Tensor, "seeds rows state"],
        goes_on: Float[Tensor, "seeds rows"],
        gamma: float,
    ) -> Float[Tensor, "seeds kinds"]:
        """Mean squared errors of the critics, over a kind's ensemble and the rows."""
        with torch.no_grad():
            following = self.value(next_states)
            wanted = [
                (feasibility_target if kind == "hj" else sum_target)(signals[kind], following[:, at], goes_on, gamma)
                for at, kind in enumerate(self.kinds)
            ]
        each = self.critics(states, actions).unflatten(1, (len(self.kinds), ENSEMBLE))
        return (each - torch.stack(wanted, 1)[:, :, None]).square().mean((2, 3))

    def follow(self, rate: float) -> None:
        """Move the target critics."""
        follow(self.targets, self.critics, rate)


def _worst(kind: Kind, each: Float[Tensor, "seeds copies rows"]) -> Float[Tensor, "seeds rows"]:
    return each.amin(1) if kind == "reward" else each.amax(1)
