"""What algorithms for discrete actions share: networks of SELU, the value of the action that was logged, how a policy acts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paperworks.control.actors import Actor, PerceptronActor
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import Perceptrons
from paperworks.core.options import option

Acts = Literal["sample", "greedy"]


@dataclass(frozen=True)
class DiscreteOptions(LearnerOptions):
    """What the discrete family has: the study's settings (arXiv 2111.04714; its gamma was 0.99 on MinAtar)."""

    hidden: tuple[int, ...] = option((256, 256, 256), "widths of the hidden layers of every network")
    learning_rate: float = option(1e-4, "of Adam, for every network", above=0)
    gamma: float = option(0.95, "discount", low=0, high=1)


class DiscreteLearner(Learner):
    """A learner whose policy scores every action, and takes the best one or a sample of the scores' softmax."""

    is_discrete: ClassVar[bool] = True

    @property
    def samples(self) -> bool:
        """Whether the policy samples."""
        return False

    @abstractmethod
    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        """What the policy chooses by."""

    @torch.no_grad()
    def act(
        self, states: Float[Tensor, "seeds rows state"], draw: torch.Generator | None = None
    ) -> Int[Tensor, "seeds rows"]:
        scores = self.scores(states)
        if not self.samples:
            return scores.argmax(-1)
        return sampled(scores.softmax(-1), torch.rand(*scores.shape[:2], 1, generator=draw)).squeeze(-1)


def nets(shapes: Shapes, options: LearnerOptions, seeds: Sequence[int], name: str, *, heads: int = 1) -> Perceptrons:
    """A network a seed: `heads` numbers for every action, SELU between layers."""
    sizes = (shapes.state, *options.hidden, shapes.action * heads)
    return Perceptrons(sizes, seeds, name, activation="selu", start="normal")


def actor_of(net: Perceptrons, place: int, *, heads: int = 1, samples: bool = False) -> Actor:
    """The policy of one of these networks; heads are put together to their mean, which a last layer can do alone."""
    *inner, (weight, bias) = [(w.cpu(), b.cpu()) for w, b in net.net(place)]
    last = (weight.unflatten(-1, (-1, heads)).mean(-1), bias.unflatten(-1, (-1, heads)).mean(-1))
    return PerceptronActor([*inner, last], "sample" if samples else "greedy", "selu")


def chosen(
    values: Float[Tensor, "seeds rows actions *heads"], actions: Int[Tensor, "seeds rows"]
) -> Float[Tensor, "seeds rows *heads"]:
    """The values of the actions that were taken."""
    index = actions.reshape(*actions.shape, *[1] * (values.dim() - 2)).expand(*actions.shape, 1, *values.shape[3:])
    return values.gather(2, index).squeeze(2)


def huber(errors: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x^2 / 2 within 1 of 0, |x| - 1/2 beyond (smooth L1)."""
    return functional.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none")


def cross_entropy(
    scores: Float[Tensor, "seeds rows actions"], actions: Int[Tensor, "seeds rows"]
) -> Float[Tensor, "seeds rows"]:
    """-log of the softmax at the logged action."""
    return -chosen(scores.log_softmax(-1), actions)


def sampled(
    probabilities: Float[Tensor, "seeds rows actions"], uniform: Float[Tensor, "seeds rows draws"]
) -> Int[Tensor, "seeds rows draws"]:
    """Actions drawn from these probabilities, for uniform numbers in [0, 1)."""
    below = probabilities.cumsum(-1)[:, :, None] <= uniform[..., None]
    return below.sum(-1).clamp(max=probabilities.shape[-1] - 1)
