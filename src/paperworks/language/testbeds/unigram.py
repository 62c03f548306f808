"""A unigram language model with an end token: likelihoods, lengths, quality and KL are exact, and length can confound.

A response is a string of independent tokens that stops at the end token or at the cap. Its quality is the mean value
of its content tokens; annotators who judge quality may also like (or dislike) length. The policy is one row of
logits. All seeds and grid points are one batched program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import (
    FeedbackLogps,
    FeedbackObjective,
    Objective,
    PairLogps,
    ResponseLogps,
)
from paperworks.language.testbeds.independent import losses_of_problems

QUALITY_SCALE = 3.0  # quality is this times the mean token value
NEUTRAL_LENGTH = 12.0  # the length at which a length-liking annotator is neutral
WIDEST_GAP = 4.0  # ratio of KL between neighbouring grid points that may still be interpolated


@dataclass(frozen=True)
class UnigramWorld:
    """Token values, one world a seed; the end token is the last of the vocabulary and has no value."""

    values: Float[Tensor, "seeds words"]  # mean 0, deviation 1 over the words
    log_reference: Float[Tensor, " tokens"]  # the reference: uniform over words beside the end token
    cap: int  # most tokens a response has, the end token included

    def expected_length(self, logits: Float[Tensor, "*points seeds tokens"]) -> Float[Tensor, "*points seeds"]:
        """Exact mean number of tokens a response, end token included."""
        # 1 - (1 - p)^cap over p, where p may be so small that the quotient loses its digits
        stay = torch.log1p(-logits.softmax(-1)[..., -1])
        positions = torch.arange(self.cap, dtype=logits.dtype)
        return (stay[..., None] * positions).exp().sum(-1)

    def expected_quality(self, logits: Float[Tensor, "*points seeds tokens"]) -> Float[Tensor, "*points seeds"]:
        """Exact mean quality of a response; an empty one has quality 0."""
        probability = logits.softmax(-1)
        return QUALITY_SCALE * (probability[..., :-1] * self.values).sum(-1)

    def kl(self, logits: Float[Tensor, "*points seeds tokens"]) -> Float[Tensor, "*points seeds"]:
        """Exact KL(pi || pi_ref) in nats a response: expected length times the KL of a token."""
        logp = torch.log_softmax(logits, dim=-1)
        return self.expected_length(logits) * (logp.exp() * (logp - self.log_reference)).sum(-1)


@dataclass(frozen=True)
class CountedResponses:
    """Responses as token counts, which is all a unigram model sees of them."""

    counts: Float[Tensor, "seeds responses tokens"]

    @property
    def tokens(self) -> Float[Tensor, "seeds responses"]:
        """Tokens a response, end token included."""
        return self.counts.sum(-1)


@dataclass(frozen=True)
class CountedPairs:
    """As many chosen as rejected responses."""

    chosen: CountedResponses
    rejected: CountedResponses


def make_unigram_world(
    seeds: Sequence[int], *, words: int = 20, end_probability: float = 0.08, cap: int = 60
) -> UnigramWorld:
    """Worlds with standardised Gaussian word values; the reference ends with `end_probability` at each token."""
    if not 0 < end_probability < 1:
        raise OptionError(f"option end_probability={end_probability}: expected a probability in (0, 1)")
    values = torch.stack(
        [torch.randn(words, generator=torch_generator("unigram world", seed), dtype=torch.float64) for seed in seeds]
    )
    values = (values - values.mean(-1, keepdim=True)) / values.std(-1, correction=0, keepdim=True)
    reference = torch.full((words + 1,), (1 - end_probability) / words, dtype=torch.float64)
    reference[-1] = end_probability
    return UnigramWorld(values, reference.log(), cap)


def draw_unigram_pairs(
    world: UnigramWorld, seeds: Sequence[int], count: int, *, length_bias: float = 0.1
) -> CountedPairs:
    """`count` pairs of reference samples a seed, labelled by Bradley-Terry on quality + length_bias * (length - 12)."""
    drawn = []
    for index, seed in enumerate(seeds):
        generator = torch_generator("unigram pairs", seed)
        counts = _sample_counts(world, 2 * count, generator).unflatten(0, (2, count))
        content = counts[..., :-1].sum(-1)
        quality = QUALITY_SCALE * (counts[..., :-1] @ world.values[index]) / content.clamp(min=1)
        utility = quality + length_bias * (counts.sum(-1) - NEUTRAL_LENGTH)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        first_wins = (uniform < torch.sigmoid(utility[0] - utility[1]))[:, None]
        drawn.append((torch.where(first_wins, counts[0], counts[1]), torch.where(first_wins, counts[1], counts[0])))
    chosen, rejected = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return CountedPairs(CountedResponses(chosen), CountedResponses(rejected))


def _sample_counts(world: UnigramWorld, count: int, generator: torch.Generator) -> Float[Tensor, "responses tokens"]:
    size = len(world.log_reference)
    draws = torch.multinomial(world.log_reference.exp(), count * world.cap, replacement=True, generator=generator)
    draws = draws.view(count, world.cap)
    ends = (draws == size - 1).long()
    alive: Bool[Tensor, "responses cap"] = ends.cumsum(-1) - ends == 0  # up to and with the first end token
    counts = torch.zeros(count, size, dtype=torch.float64)
    return counts.scatter_add_(-1, draws, alive.double())


def train_unigram(
    world: UnigramWorld,
    objectives: Sequence[Objective],
    pairs: CountedPairs,
    *,
    steps: int = 300,
    learning_rate: float = 0.02,
) -> Float[Tensor, "points seeds tokens"]:
    """Full-batch Adam on the logits from the reference; every objective is a grid point. Returns the last logits.

    Objectives on single responses get the chosen ones as desirable, the rejected ones as undesirable; the unigram model
    has one prompt, so that a mismatched pair is any response: KTO's KL estimate is the mean log-ratio of the step.
    """
    responses = torch.cat([pairs.chosen.counts, pairs.rejected.counts], dim=1)
    scorer = _Scorer(world, responses)
    start = world.log_reference.expand(len(objectives), len(responses), -1)
    logits = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([logits], lr=learning_rate)
    for _ in range(steps):
        adam.zero_grad()
        logp = torch.log_softmax(logits, dim=-1)
        policy = (responses @ logp.permute(1, 2, 0)).permute(2, 0, 1)  # every grid point's scores in one product
        scorer.losses(objectives, policy).sum().backward()
        adam.step()
    return logits.detach()


class _Scorer:
    """Losses from scores [points, seeds, responses], chosen responses first; what never changes is computed once."""

    def __init__(self, world: UnigramWorld, responses: Float[Tensor, "seeds responses tokens"]) -> None:
        self.seeds, count, _ = responses.shape
        self.half = count // 2
        self.tokens, self.reference = responses.sum(-1), responses @ world.log_reference
        self.desirable = (torch.arange(count) < self.half).to(responses.dtype)
        self.weight = responses.new_ones(self.seeds * self.half)
        self.fixed = [(self._roles(self.tokens)[role], self._roles(self.reference)[role]) for role in (0, 1)]

    def losses(
        self, objectives: Sequence[Objective], policy: Float[Tensor, "points seeds responses"]
    ) -> Float[Tensor, "points seeds"]:
        chosen, rejected = self._roles(policy)
        losses = []
        for objective, scores, of_chosen, of_rejected in zip(objectives, policy, chosen, rejected, strict=True):
            if isinstance(objective, FeedbackObjective):
                losses.append(self._feedback_losses(objective, scores))
                continue
            pair = PairLogps(
                ResponseLogps(of_chosen, *self.fixed[0]), ResponseLogps(of_rejected, *self.fixed[1]), self.weight
            )
            losses.append(losses_of_problems(objective, pair, self.seeds))
        return torch.stack(losses)

    def _roles(self, values: Float[Tensor, "*points seeds responses"]) -> tuple[Tensor, Tensor]:
        return values[..., : self.half].flatten(-2), values[..., self.half :].flatten(-2)

    def _feedback_losses(self, objective: Objective, policy: Float[Tensor, "seeds responses"]) -> Tensor:
        def of_seed(scores: Tensor, tokens: Tensor, reference: Tensor) -> Tensor:
            response = ResponseLogps(scores, tokens, reference)
            kl = response.log_ratio.detach().mean()  # one number a batch, so that every seed is a batch of its own
            batch = FeedbackLogps(response, self.desirable, torch.ones_like(self.desirable), kl)
            return losses_of_problems(objective, batch, 1)

        return torch.func.vmap(of_seed)(policy, self.tokens, self.reference).flatten()


def at_kl(target: float, kl: Float[Tensor, " points"], value: Float[Tensor, " points"]) -> float:
    """A value at `target` nats of KL, linear in KL between the grid points just below and just above it.

    NaN where the grid has no point on one side, or where the two are more than a factor WIDEST_GAP apart in KL: then
    the grid says nothing about that KL.
    """
    order = kl.argsort()
    nats, values = kl[order], value[order]
    above = int(torch.searchsorted(nats, target))
    if above < len(nats) and float(nats[above]) == target:
        return float(values[above])
    if above in (0, len(nats)) or nats[above] > WIDEST_GAP * nats[above - 1]:
        return math.nan
    share = (target - nats[above - 1]) / (nats[above] - nats[above - 1])
    return float(values[above - 1] + share * (values[above] - values[above - 1]))
