"""What acts in a saved policy: a network from a normalised state to an action, and how it is built again from a file.

An actor is one seed's. It knows nothing of observations' units or action bounds; `ControlPolicy` puts them around it.
"""

from __future__ import annotations

import importlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.distributions import TanhGaussian
from paperworks.core.errors import ModelError

ACTORS: dict[str, str] = {
    "perceptron": "paperworks.control.actors:PerceptronActor",
    "per-step": "paperworks.control.hybrid.actor:StepActor",
    "bcq": "paperworks.control.offline.bcq:BCQActor",
    "allowed": "paperworks.control.discrete.bcq:AllowedActor",
    "family": "paperworks.control.offline.family:FamilyActor",
    "diffusion": "paperworks.control.safe.diffusion_actor:DiffusionActor",
}
"""Where the class of each kind lives; loaded when a policy of that kind is."""

Output = Literal["tanh", "tanh-gaussian", "linear", "greedy", "sample"]
Activation = Literal["relu", "tanh", "selu"]


class Actor(nn.Module, ABC):
    """States [rows, state] to actions in [-1, 1], [rows, action]; of a discrete policy to numbers of actions, [rows]."""

    kind: ClassVar[str]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values from which `from_settings` builds one of the same shapes; the weights are in the state dict."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Actor:
        """An actor of these shapes, whose weights are still to be loaded."""

    def begin(self) -> None:
        """An episode begins: for actors that count its steps."""

    @abstractmethod
    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        """The actions; `draw` is for actors that sample (None: torch's own generator)."""


def built(kind: str, settings: Mapping[str, Any]) -> Actor:
    """An actor of that kind. Raises ModelError for an unknown one."""
    if kind not in ACTORS:
        raise ModelError(f"unknown kind of actor {kind!r}; known: {', '.join(ACTORS)}")
    module, name = ACTORS[kind].split(":")
    found: Actor = getattr(importlib.import_module(module), name).from_settings(settings)
    return found


class PerceptronActor(Actor):
    """A perceptron, and what is made of its output.

    `tanh` of it; a sample of a tanh-Gaussian (its mode without a generator); the output clipped to [-1, 1] (`linear`); the
    place of its largest number (`greedy`); or a `sample` of its softmax.
    """

    kind: ClassVar[str] = "perceptron"

    def __init__(
        self, layers: Sequence[tuple[Tensor, Tensor]], output: Output = "tanh", activation: Activation = "relu"
    ) -> None:
        """`layers` are (weight [in, out], bias [out])."""
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight, _ in layers])
        self.biases = nn.ParameterList([nn.Parameter(bias, requires_grad=False) for _, bias in layers])
        self.output: Output = output
        self.activation: Activation = activation

    def settings(self) -> dict[str, Any]:
        sizes = [int(self.weights[0].shape[0]), *(int(weight.shape[1]) for weight in self.weights)]
        return {"sizes": sizes, "output": self.output, "activation": self.activation}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PerceptronActor:
        sizes, output, activation = settings["sizes"], settings["output"], settings["activation"]
        if output not in get_args(Output) or activation not in get_args(Activation):
            raise ValueError(f"output {output!r}, activation {activation!r}")
        layers = [(torch.zeros(a, b), torch.zeros(b)) for a, b in itertools.pairwise(sizes)]
        return cls(layers, output, activation)

    def scores(self, states: Float[Tensor, "rows state"]) -> Float[Tensor, "rows out"]:
        """What the last layer gives."""
        bend, last, x = getattr(torch, self.activation), len(self.weights) - 1, states
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if number < last:
                x = bend(x)
        return x

    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        scores = self.scores(states)
        if self.output == "tanh":
            return scores.tanh()
        if self.output == "tanh-gaussian":
            policy = TanhGaussian(scores)
            if draw is None:
                return policy.mean.tanh()
            return policy.sample(torch.randn(policy.mean.shape, generator=draw))[0]
        if self.output == "linear":
            return scores.clamp(-1, 1)
        if self.output == "greedy":
            return scores.argmax(-1)
        return torch.multinomial(scores.softmax(-1), 1, generator=draw).squeeze(-1)
