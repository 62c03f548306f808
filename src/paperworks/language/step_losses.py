"""The loss of an optimiser step, and how it is averaged: decided here and nowhere else.

An objective gives every item a value and a weight in each of its terms; the loss of a step is the sum over terms of
(sum of value * weight) / (sum of weight), both sums taken over the whole step: all micro-batches of all processes. So the
loss and its gradient do not change with padding, with how the step is cut into micro-batches, or with the number of
processes (whose gradients the training loop adds up).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from paperworks.language import logprobs
from paperworks.language.items import Items
from paperworks.language.objectives.objective import Objective, ResponseLogps
from paperworks.language.policy import Policy
from paperworks.language.step_means import StepMeans
from paperworks.language.train_options import TrainOptions

ReferenceSums = tuple[Tensor, Tensor | None]  # [items, responses], and of mismatched responses [items]


class StepLosses:
    """Scores rows under the policy in training and forms the step's loss and metrics.

    `over_processes` sums a tensor over all processes.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        options: TrainOptions,
        over_processes: Callable[[Tensor], Tensor],
    ) -> None:
        self.policy, self.objective, self.model = policy, objective, policy.model
        self._micro_batch, self._uses_autocast = options.micro_batch, options.autocast != "none"
        self._reduced = over_processes

    def means(
        self, data: Items, rows: Sequence[int], reference: ReferenceSums | None, *, backward: bool
    ) -> dict[str, float]:
        """The loss, its terms and the objective's metrics over the step of which this process has `rows`.

        With `backward` the gradient of this process's share is added to the parameters.
        """
        kl = self._mismatched_kl(data, rows, reference)
        totals = self._term_weights(data, rows, reference, kl)
        means = StepMeans()
        for chunk in _chunks(rows, self._micro_batch):
            batch = self._batch(data, chunk, reference, kl)
            loss = self._weighted(batch, totals, means)
            if backward:
                loss.backward()
            means.add_all(self.objective.metrics(batch), batch.weight)
        if not rows:
            self._nothing(data, reference, kl, means)
        values = means.reduced(self._reduced)
        return values if kl is None else {**values, "kl_estimate": float(kl)}

    @torch.no_grad()
    def row_metrics(self, data: Items, reference: ReferenceSums | None) -> dict[str, list[float]]:
        """The objective's metrics of every row, one by one."""
        out: dict[str, list[float]] = {}
        for chunk in _chunks(range(len(data)), self._micro_batch):
            for name, values in self.objective.metrics(self._batch(data, chunk, reference, None)).items():
                out.setdefault(name, []).extend(values.tolist())
        return out

    def _scores(
        self, data: Items, rows: Sequence[int], reference: ReferenceSums | None, *, scored: bool
    ) -> dict[str, ResponseLogps]:
        """Each role's scores for these rows; zeros for the log-probabilities unless `scored`."""
        device = self.policy.device
        trees = [data.items[row].tree() for row in rows]
        width = sum(data.role_sizes)
        if scored:
            with self._autocast():
                result = logprobs.token_logps(self.model, trees, method=self.policy.method)
            sums, counts = result.sums().view(-1, width), result.counts.view(-1, width)
        else:
            counts = torch.tensor([[float(len(r)) for r in tree.responses] for tree in trees], device=device)
            sums = torch.zeros_like(counts)
        known = None if reference is None else reference[0][list(rows)].to(device)
        out, at = {}, 0
        for role, size in zip(data.roles, data.role_sizes, strict=True):
            columns = slice(at, at + size)
            out[role] = ResponseLogps(
                sums[:, columns].flatten(),
                counts[:, columns].flatten(),
                None if known is None else known[:, columns].flatten(),
            )
            at += size
        return out

    def _batch(
        self, data: Items, rows: Sequence[int], reference: Any, kl: Tensor | None, *, scored: bool = True
    ) -> Any:
        device = self.policy.device
        items = [data.items[row] for row in rows]
        desirable = None
        if items[0].desirable is not None:
            desirable = torch.tensor([cast(float, item.desirable) for item in items], device=device)
        return self.objective.batch(
            self._scores(data, rows, reference, scored=scored),
            weight=torch.tensor([item.weight for item in items], device=device),
            desirable=desirable,
            kl=kl,
        )

    def _mismatched_kl(self, data: Items, mine: Sequence[int], reference: Any) -> Tensor | None:
        """Mean log-ratio of mismatched pairs over the whole step, without gradient (KTO's reference point)."""
        if not self.objective.needs_mismatched:
            return None
        total = torch.zeros(2, dtype=torch.float64)
        for chunk in _chunks(mine, self._micro_batch):
            trees = [data.items[row].mismatched_tree() for row in chunk]
            with torch.no_grad(), self._autocast():
                sums = logprobs.token_logps(self.model, trees, method=self.policy.method).sums().cpu()
            total += torch.tensor([(sums - reference[1][list(chunk)]).sum().item(), len(chunk)], dtype=torch.float64)
        total = self._reduced(total)
        return (total[0] / total[1]).float().to(self.policy.device)

    def _term_weights(self, data: Items, mine: Sequence[int], reference: Any, kl: Tensor | None) -> dict[str, float]:
        """The sum of each term's weights over the whole step. Weights depend on counts alone, so nothing is scored."""
        totals: dict[str, Tensor] = {}
        for chunk in _chunks(mine, 1024):
            batch = self._batch(data, chunk, reference, kl, scored=False)
            for name, weight in self.objective.weights(batch).items():
                totals[name] = totals.get(name, torch.zeros(())) + weight.sum().cpu()
        names = sorted(totals) or sorted(self._term_names(data, reference))
        summed = self._reduced(torch.tensor([float(totals.get(name, 0.0)) for name in names], dtype=torch.float64))
        return dict(zip(names, summed.tolist(), strict=True))

    def _term_names(self, data: Items, reference: Any) -> list[str]:
        return list(self.objective.weights(self._batch(data, [0], reference, None, scored=False)))

    def _nothing(self, data: Items, reference: Any, kl: Tensor | None, means: StepMeans) -> None:
        """Zeros under the names that the other processes sum, for a process without rows in this step."""
        with torch.no_grad():
            batch = self._batch(data, [0], reference, kl, scored=False)
            batch = dataclasses.replace(batch, weight=torch.zeros_like(batch.weight))
            totals = dict.fromkeys(self.objective.weights(batch), 1.0)
            self._weighted(batch, totals, means)
            means.add_all(self.objective.metrics(batch), batch.weight)

    def _weighted(self, batch: Any, totals: Mapping[str, float], means: StepMeans) -> Tensor:
        """This micro-batch's share of the step's loss, by the rule at the top of this file."""
        terms, weights = self.objective.terms(batch), self.objective.weights(batch)
        loss = batch.weight.new_zeros(())
        for name, value in terms.items():
            share = (value * weights[name]).sum() / max(totals[name], 1e-12)
            loss = loss + share
            means.add_share(name, share)
        if len(terms) > 1 or "loss" not in terms:
            means.add_share("loss", loss)
        return loss

    def _autocast(self) -> Any:
        if not self._uses_autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16)


def _chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
