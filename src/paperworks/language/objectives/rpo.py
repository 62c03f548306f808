"""DPO with a small imitation term, which keeps probability on responses that the data cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import PairLogps, Prepared, require

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy

REDUCTIONS = ("sum", "seq_mean", "token_mean")
BASES = ("chosen", "ref", "file")


@dataclass(frozen=True)
class RPO(DPO):
    """Regularised preference optimisation (Liu et al. 2024, arXiv 2405.16436, eq. 4.8).

    loss = -log sigmoid(m) + coefficient * NLL of a baseline policy's responses, m the margin of DPO.
    The name says the reduction, and with it the coefficient:
    `sum` (the paper's main form): NLL summed over tokens, coefficient eta * beta, 0.005 * 0.01 = 5e-5 a nat by default;
    `seq_mean` (the paper's Appendix F): NLL averaged over each response's tokens, coefficient eta alone (there 0.2);
    `token_mean` (TRL's `sft`): NLL averaged over all such tokens of the step, coefficient eta alone.

    The baseline's responses are the `chosen` ones (the paper's experiments), `ref`, samples of the frozen reference
    drawn once before training, or `file`, the rows' field `base`; the last two are scored under the role "base",
    n_base a row, row after row. eta=0 is DPO. The imitation term is not de-biased for flipped labels.
    """

    name: ClassVar[str] = "rpo"

    beta: float = option(0.01, "strength of the pull to the reference: reward per nat", above=0)
    eta: float = option(0.005, "weight of the imitation term: eta * beta with sum, eta alone with the means", low=0)
    sft_reduction: Literal["sum", "seq_mean", "token_mean"] = option(
        "sum",
        "imitation loss summed over tokens (paper), averaged over each response (Appendix F) or over all tokens (TRL)",
    )
    base: Literal["chosen", "ref", "file"] = option(
        "chosen", "responses to imitate: the chosen ones, samples of the reference, or the rows' field base"
    )
    n_base: int = option(1, "responses imitated a prompt, with base=ref or base=file", low=1)
    max_new_tokens: int = option(256, "longest sample of the reference, with base=ref", low=1)
    max_drop_warn: float = option(
        20.0, "warn when log pi(chosen) falls this many nats below its start at accuracy > 0.9", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sft_reduction in REDUCTIONS, "sft_reduction", self.sft_reduction, ", ".join(REDUCTIONS))
        require(self.base in BASES, "base", self.base, ", ".join(BASES))

    @property
    def coefficient(self) -> float:
        """The factor on the imitation term: eta * beta on summed, eta on averaged negative log-likelihoods."""
        return self.eta * self.beta if self.sft_reduction == "sum" else self.eta

    @property
    def imitates_base(self) -> bool:
        """Whether responses other than the chosen ones are scored and imitated."""
        return self.base != "chosen" and self.eta > 0

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected", "base") if self.imitates_base else ("chosen", "rejected")

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Give every row exactly n_base responses to imitate.

        base=ref samples them from the reference, never from the policy in training. Raises DataError where base=file
        and a row has fewer than n_base.
        """
        if not self.imitates_base:
            return Prepared(self, dataset)
        if self.base == "ref":
            responses = self._sampled(dataset, policy, seed)
        else:
            responses = [self._from_file(row) for row in dataset.rows]
        rows: list[Any] = [replace(row, base=texts) for row, texts in zip(dataset.rows, responses, strict=True)]
        return Prepared(self, dataset.with_rows(rows))

    def _sampled(self, dataset: Dataset, policy: Policy, seed: int) -> list[tuple[str, ...]]:
        from paperworks.language.sampling import sample

        prompts = [row.prompt for row in dataset.rows]
        samples = sample(policy.reference(), prompts, n=self.n_base, max_new_tokens=self.max_new_tokens, seed=seed)
        return [tuple(of_prompt.texts) for of_prompt in samples]

    def _from_file(self, row: Any) -> tuple[str, ...]:
        if len(row.base) < self.n_base:
            raise DataError(
                f"base=file with n_base={self.n_base} takes {self.n_base} from each row, this one has {len(row.base)}; "
                "add responses, or train with base=chosen or base=ref",
                file=row.where.file or None,
                line=row.where.line or None,
                field="base",
            )
        return tuple(row.base[: self.n_base])

    def terms(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        preference = super().loss(batch)
        if self.eta == 0:
            return {"dpo": preference, "sft": torch.zeros_like(preference)}
        logp, tokens = self._imitated(batch)
        nll = {
            "sum": -logp.mean(dim=1),
            "seq_mean": -(logp / tokens).mean(dim=1),
            "token_mean": -logp.sum(dim=1) / tokens.sum(dim=1),
        }[self.sft_reduction]
        return {"dpo": preference, "sft": self.coefficient * nll}

    def weights(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        if self.sft_reduction != "token_mean":
            return {"dpo": batch.weight, "sft": batch.weight}
        _, tokens = self._imitated(batch)
        return {"dpo": batch.weight, "sft": batch.weight * tokens.sum(dim=1)}

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        """The loss of each pair on its own; under token_mean its terms have different weights over pairs."""
        terms = self.terms(batch)
        return terms["dpo"] + terms["sft"]

    def _imitated(self, batch: PairLogps) -> tuple[Float[Tensor, "items n"], Float[Tensor, "items n"]]:
        """Summed log-probability and token count of the responses to imitate, a row each pair."""
        response = batch.chosen
        if self.imitates_base:
            if batch.base is None:
                raise OptionError(f"objective rpo: base={self.base} takes scores of the role base, the batch has none")
            response = batch.base
        pairs = len(batch.weight)
        return response.policy.reshape(pairs, -1), response.tokens.reshape(pairs, -1)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        """Those of any pair objective; the chosen response's log-probability a token, and the imitation term's size.

        `sft_tokens`: mean length of the responses imitated. `sft_share`: of the pushes up that the two terms give to
        summed log-probabilities (d loss / d log pi), the imitation term's part; not under token_mean, where it depends
        on the other pairs of the step.
        """
        values = super().metrics(batch) | {"logp_chosen_per_token": batch.chosen.mean}
        if self.eta == 0:
            return values
        _, tokens = self._imitated(batch)
        values["sft_tokens"] = tokens.mean(dim=1)
        if self.sft_reduction != "token_mean":
            scale = tokens if self.sft_reduction == "seq_mean" else torch.ones_like(tokens)
            push = (self.coefficient / scale).mean(dim=1)
            values["sft_share"] = push / (push + self.beta * torch.sigmoid(-values["margin"]))
        return values

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        found = []
        drop = first.get("logp_chosen", math.nan) - now.get("logp_chosen", math.nan)
        if drop > self.max_drop_warn and now.get("accuracy", math.nan) > 0.9:
            found.append(
                f"overoptimisation: log pi(chosen) fell {drop:.3g} nats below its start (max_drop_warn="
                f"{self.max_drop_warn:g}) while accuracy is {now['accuracy']:.3f}; raise eta or stop earlier"
            )
        expected_size = self.coefficient * now.get("sft_tokens", 0.0)
        if self.sft_reduction == "sum" and expected_size > 1:
            found.append(
                f"dominant imitation: eta * beta * mean length is {expected_size:.3g}, above 1; lower eta, or use "
                "sft_reduction=seq_mean"
            )
        return found
