"""Contrastive policy gradient: any score of whole responses, from a fixed file of scored groups or from fresh samples.

A row holds several responses to one prompt. The baseline of each is the regularised score of the others: that is what
makes a policy gradient right whatever distribution the responses came from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.core.seeding import torch_generator
from paperworks.language.data.schemas import ScoredGroup
from paperworks.language.objectives.objective import Objective, Prepared, ResponseLogps, StepInputs, require

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy

Form = Literal["objective", "surrogate"]
RewardNorm = Literal["none", "global-std"]

WIDE_SCORES = 100.0  # std(scores) / beta above which the optimum is all but greedy


@dataclass(frozen=True)
class GroupLogps:
    """Responses of several prompts, those of one prompt one after another, with a score each."""

    response: ResponseLogps  # its `row` says which prompt of the batch each response answers
    reward: Float[Tensor, " items"]
    weight: Float[Tensor, " rows"]

    def padded(self, values: Float[Tensor, " items"]) -> Float[Tensor, "rows most"]:
        """The values a row each; zeros where a row has fewer responses than the longest."""
        if self._is_even:
            return values.reshape(self.shape)
        return values.new_zeros(self.shape).index_put(self._places, values)

    @property
    def row(self) -> Int[Tensor, " items"]:
        """The row of each response. Raises OptionError for scores that do not say it."""
        if self.response.row is None:
            raise OptionError(
                "the batch does not say which row each response belongs to, which groups of responses need"
            )
        return self.response.row

    @cached_property
    def present(self) -> Bool[Tensor, "rows most"]:
        """Which places of `padded` hold a response."""
        return self.padded(torch.ones_like(self.reward)) > 0

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows, and responses of the longest row."""
        return len(self.weight), int(self._counts.max()) if len(self.row) else 0

    @cached_property
    def _counts(self) -> Int[Tensor, " rows"]:
        return torch.bincount(self.row, minlength=len(self.weight))

    @cached_property
    def _is_even(self) -> bool:
        """Whether every row has as many responses."""
        return bool((self._counts == self.shape[1]).all())

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        counts = self._counts
        first = counts.cumsum(0) - counts
        return self.row, torch.arange(len(self.row), device=self.row.device) - first[self.row]


@dataclass(frozen=True)
class CoPG(Objective):
    """Contrastive policy gradient (Flet-Berliac et al. 2024, arXiv 2406.19185, eq. 7-10).

    With D the difference of two responses' scores and d that of their log-ratios log pi - log pi_ref (sums over tokens),
    a pair is worth D d - beta/2 d^2, which is maximised; a row of k responses 1/(k-1) times the sum over its pairs, whose
    gradient is RLOO's with the KL in the reward. The optimum is pi_ref exp(score / beta), whatever wrote the responses,
    so long as it could have written any. A tie teaches too: it pulls the two log-ratios together.

    `form`: `objective` differentiates that value, nothing detached; `surrogate` weights log pi by the detached
    coefficient of each response, at the full beta. Their gradients are equal, the surrogate's value says nothing.
    Pairs read as groups get the scores 1/4 and -1/4: that is IPO with tau = beta. Raises OptionError for beta <= 0.
    """

    name: ClassVar[str] = "copg"
    schema: ClassVar[type] = ScoredGroup
    response_numbers: ClassVar[tuple[str, ...]] = ("reward",)

    beta: float = option(0.06, "strength of the pull to the reference, in units of the score a nat", above=0)
    pairs: str = option(
        "all",
        "which pairs of a row: all, adjacent (neighbours in the file), or random:N, drawn once from the file's rows",
    )
    form: Form = option("objective", "the value itself, or detached coefficients times log pi; the same gradient")
    reward_norm: RewardNorm = option("none", "global-std: scores of a file divided by their deviation over the file")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.pairs in ("all", "adjacent") or self.random_pairs > 0, "pairs", self.pairs, "all, adjacent or random:N"
        )
        require(self.form in get_args(Form), "form", self.form, " or ".join(get_args(Form)))
        require(
            self.reward_norm in get_args(RewardNorm), "reward_norm", self.reward_norm, " or ".join(get_args(RewardNorm))
        )

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    @property
    def random_pairs(self) -> int:
        """How many random pairs of each row of a file to keep; 0: pairs are not drawn."""
        found = re.fullmatch(r"random:(\d+)", self.pairs)
        return int(found[1]) if found else 0

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Put the scores on their scale, and draw the pairs of `random:N`, each then a row of its own.

        Raises DataError where all scores of the file are equal.
        """
        scores = torch.tensor([score for row in dataset.rows for score in row.scores], dtype=torch.float64)
        deviation = float(scores.std(correction=0))
        if not held_out and deviation <= 1e-9 * (1 + float(scores.abs().max())):
            raise DataError(
                f"nothing to learn: reward has no variance, all {len(scores)} scores are {float(scores[0]):g}; "
                "give scores that differ",
                file=dataset.report.source or None,
                field="scores",
            )
        if self.reward_norm == "global-std":
            divisor = deviation if deviation > 0 else 1.0
            normed = [tuple(score / divisor for score in row.scores) for row in dataset.rows]
            dataset = dataset.with_rows(
                [dataclasses.replace(row, scores=of) for row, of in zip(dataset.rows, normed, strict=True)]
            )
            deviation = min(1.0, deviation)
        if self.random_pairs:
            dataset = dataset.with_rows(_drawn_pairs(dataset.rows, self.random_pairs, seed))
        notes = []
        if not held_out and deviation / self.beta > WIDE_SCORES:
            notes.append(
                f"scores have the deviation {deviation:.4g}, beta is {self.beta:g}: {deviation / self.beta:.0f} times as "
                "much; beta is in units of the score, so divide the scores (--reward-norm global-std) or raise beta"
            )
        return Prepared(self, dataset, notes=tuple(notes), facts={"score_deviation": deviation})

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> GroupLogps:
        return GroupLogps(scores["response"], inputs.response_numbers["reward"]["response"], inputs.weight)

    def worth(self, batch: GroupLogps) -> Float[Tensor, " rows"]:
        """The value that is maximised: ell_k of the paper; 0 of a row with one response."""
        score_gap, ratio_gap, factor = self._gaps(batch)
        return (factor * (score_gap * ratio_gap - self.beta / 2 * ratio_gap.square())).sum((1, 2))

    def coefficients(self, batch: GroupLogps) -> Float[Tensor, " items"]:
        """What each response's grad log pi is multiplied by: its regularised score less the mean of the others'."""
        score_gap, ratio_gap, factor = self._gaps(batch)
        push = (factor * (score_gap - self.beta * ratio_gap)).detach()
        return (push.sum(2) - push.sum(1))[batch.present]

    def loss(self, batch: GroupLogps) -> Float[Tensor, " rows"]:
        if self.form == "objective":
            return -self.worth(batch)
        return -batch.padded(self.coefficients(batch) * batch.response.policy).sum(1)

    @torch.no_grad()
    def metrics(self, batch: GroupLogps) -> dict[str, Any]:
        """`worth`: what is maximised. `score_gap`, `ratio_gap`: mean |D| and |d| of a row's pairs. `agreement`: share of
        pairs with different scores that the log-ratios rank as the scores do."""
        score_gap, ratio_gap, factor = self._gaps(batch)
        used = (factor > 0).to(factor.dtype)
        told = used * (score_gap != 0)
        agree = 0.5 * (1 + torch.sign(score_gap) * torch.sign(ratio_gap))
        pairs, ranked = used.sum((1, 2)), told.sum((1, 2))
        return {
            "worth": self.worth(batch),
            "score_gap": (used * score_gap.abs()).sum((1, 2)) / pairs.clamp(min=1),
            "ratio_gap": (used * ratio_gap.abs()).sum((1, 2)) / pairs.clamp(min=1),
            "agreement": ((told * agree).sum((1, 2)) / ranked.clamp(min=1), batch.weight * (ranked > 0)),
            "reward": (batch.reward, batch.weight[batch.row]),
            "logp": (batch.response.policy.detach(), batch.weight[batch.row]),
        }

    def quality(self, values: Mapping[str, float]) -> float:
        return values.get("worth", -values["loss"])

    def _gaps(
        self, batch: GroupLogps
    ) -> tuple[Float[Tensor, "rows most most"], Float[Tensor, "rows most most"], Float[Tensor, "rows most most"]]:
        """Of every pair (first, second) of a row: the gap of scores and of log-ratios, and its factor in the sum.

        The factor is 1/(k-1) a pair where all are used; where only neighbours are, their mean stands for that of all.
        """
        present = batch.present
        scores, ratios = batch.padded(batch.reward), batch.padded(batch.response.log_ratio)
        used = (present[:, :, None] & present[:, None, :]).triu(1)
        if self.pairs == "adjacent":
            used = used & ~used.triu(2)
        pairs = used.sum((1, 2)).clamp(min=1).to(ratios.dtype)
        factor = used.to(ratios.dtype) * (present.sum(1).to(ratios.dtype) / 2 / pairs)[:, None, None]
        return scores[:, :, None] - scores[:, None, :], ratios[:, :, None] - ratios[:, None, :], factor


def _drawn_pairs(rows: Sequence[ScoredGroup], count: int, seed: int) -> list[ScoredGroup]:
    """Each row as `count` rows of two of its responses, pairs drawn without replacement (all, where it has no more)."""
    found = []
    for index, row in enumerate(rows):
        size = len(row.responses)
        every = torch.triu_indices(size, size, offset=1).T
        order = torch.randperm(len(every), generator=torch_generator(seed, "pairs", index))[:count]
        weight = row.weight * size / 2 / len(order)  # so that a row counts as it does with all its pairs
        for first, second in every[order.sort().values].tolist():
            two = (row.responses[first], row.responses[second])
            found.append(
                dataclasses.replace(row, responses=two, scores=(row.scores[first], row.scores[second]), weight=weight)
            )
    return found
