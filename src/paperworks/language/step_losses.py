"""The loss of an optimiser step, and how it is averaged: decided here and nowhere else.

An objective gives every item a value and a weight in each of its terms; the loss of a step is the sum over terms of
(sum of value * weight) / (sum of weight), both sums taken over the whole step: all micro-batches of all processes. So the
loss and its gradient do not change with padding, with how the step is cut into micro-batches, or with the number of
processes (whose gradients the training loop adds up).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperworks.language import logprobs, vocabulary
from paperworks.language.items import Item, Items
from paperworks.language.objectives.objective import ByToken, Objective, ResponseLogps, StepInputs
from paperworks.language.reference_scores import Reference
from paperworks.language.step_means import StepMeans
from paperworks.language.text_model import TextModel
from paperworks.language.train_options import TrainOptions
from paperworks.language.values.critic import Critic


class StepLosses:
    """Scores rows under the model in training and forms the step's loss and metrics.

    Each row's prompt and responses go through the model once, whatever the objective reads out of it. `over_processes`
    sums a tensor over all processes; `modules` are the objective's own heads.
    """

    def __init__(
        self,
        policy: TextModel,
        objective: Objective,
        options: TrainOptions,
        over_processes: Callable[[Tensor], Tensor],
        modules: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.policy, self.objective, self.modules = policy, objective, dict(modules or {})
        self._micro_batch, self._uses_autocast = options.micro_batch, options.autocast != "none"
        self._reduced = over_processes

    def means(self, data: Items, rows: Sequence[int], reference: Reference, *, backward: bool) -> dict[str, float]:
        """The loss, its terms and the objective's metrics over the step of which this process has `rows`.

        With `backward` the gradient of this process's share is added to the parameters.
        """
        step_kl = self._step_kl(data, rows, reference)
        totals = self._term_weights(data, rows, reference, step_kl)
        means = StepMeans()
        for chunk in _chunks(rows, self._micro_batch):
            batch, weight = self._batch(data, chunk, reference, step_kl)
            loss = self._weighted(batch, totals, means)
            if backward:
                loss.backward()
            means.add_all(self.objective.metrics(batch), weight)
        if not rows:
            self._nothing(data, reference, step_kl, means)
        values = means.reduced(self._reduced)
        return values if step_kl is None else {**values, "kl_estimate": float(step_kl)}

    @torch.no_grad()
    def row_metrics(self, data: Items, reference: Reference) -> dict[str, list[float]]:
        """The objective's metrics of every row, one by one; those of other items than rows are left out."""
        out: dict[str, list[float]] = {}
        for chunk in _chunks(range(len(data)), self._micro_batch):
            for name, values in self.objective.metrics(self._batch(data, chunk, reference, None)[0]).items():
                if not isinstance(values, tuple):
                    out.setdefault(name, []).extend(values.tolist())
        return out

    # -------------------------------------------------------------------------------------------------------- a batch

    def _batch(
        self,
        data: Items,
        rows: Sequence[int],
        reference: Reference,
        step_kl: Tensor | None,
        *,
        scored: bool = True,
        weightless: bool = False,
    ) -> tuple[Any, Tensor]:
        """The objective's batch of these rows, and the rows' weights (zeros when `weightless`)."""
        device = self.policy.device
        items = [data.items[row] for row in rows]
        weight = torch.tensor([0.0 if weightless else item.weight for item in items], device=device)
        inputs = StepInputs(
            weight=weight,
            numbers={
                name: torch.tensor([item.numbers.get(name, math.nan) for item in items], device=device)
                for name in self.objective.numbers
            },
            graded={
                role: torch.tensor([g for item in items for g in item.grades.get(role, ())], dtype=torch.long).to(
                    device
                )
                for role in self.objective.roles
                if any(role in item.grades for item in items)
            },
            step_kl=step_kl,
            modules=self.modules,
            response_numbers={
                name: {role: _one_each(items, name, role).to(device) for role in self.objective.roles}
                for name in self.objective.response_numbers
            },
            token_numbers={
                name: {role: _one_a_token(items, name, role).to(device) for role in self.objective.roles}
                for name in self.objective.token_numbers
            },
        )
        return self.objective.batch(self._scores(items, rows, weight, reference, scored=scored), inputs), weight

    def _scores(
        self, items: Sequence[Item], rows: Sequence[int], weight: Tensor, reference: Reference, *, scored: bool
    ) -> dict[str, ResponseLogps]:
        """Each role's scores for these rows; zeros in place of everything the model computes unless `scored`."""
        objective, roles = self.objective, self.objective.roles
        trees = [item.tree(roles) for item in items]
        critic = self.modules.get("critic") if objective.state_roles else None
        reads_own = isinstance(critic, Critic)
        keep_hidden = bool(objective.kl_roles or objective.feature_roles or (objective.state_roles and not reads_own))
        if scored:
            with self._autocast():
                result = self.policy.scores(trees, keep_hidden=keep_hidden)
                all_states = critic.states(trees) if isinstance(critic, Critic) else result.hidden
        else:
            result = self._unscored(trees, keep_hidden)
            all_states = result.hidden
        sums = result.sums()
        features = result.features() if objective.feature_roles else None
        where = _where(items, roles)
        of_role = torch.empty(len(result.counts), dtype=torch.long)  # each response's role, then its place in that role
        place = torch.empty_like(of_role)
        for index, role in enumerate(roles):
            responses = where[role][0]
            of_role[responses], place[responses] = index, torch.arange(len(responses))
        of_role, place = of_role.to(sums.device), place.to(sums.device)
        out = {}
        for index, role in enumerate(roles):
            responses, of_row = (part.to(sums.device) for part in where[role])
            by_token = known = kl = None
            if role in objective.reference_roles:
                known = _joined(reference.tokens[role], rows, sums)
            with_states = role in objective.state_roles
            needs_places = objective.needs_tokens or known is not None or role in objective.kl_roles or with_states
            if needs_places:
                at = (of_role[result.response] == index).nonzero().squeeze(1)
                states = all_states[at] if with_states and all_states is not None else None
                by_token = ByToken(result.values[at], known, place[result.response[at]], len(responses), states)
            if role in objective.kl_roles:
                assert by_token is not None
                kl = by_token.summed(self._vocabulary_kl(result, at, role, rows, reference, scored=scored))
            out[role] = ResponseLogps(
                sums[responses],
                result.counts[responses],
                None if known is None or by_token is None else by_token.summed(known),
                by_token if objective.needs_tokens else None,
                kl,
                features[responses] if features is not None and role in objective.feature_roles else None,
                weight[of_row],
                of_row,
            )
        return out

    def _vocabulary_kl(
        self,
        result: logprobs.TokenLogps,
        at: Tensor,
        role: str,
        rows: Sequence[int],
        reference: Reference,
        *,
        scored: bool,
    ) -> Tensor:
        assert result.hidden is not None and reference.head is not None
        hidden = result.hidden[at]
        if not scored:
            return hidden.sum(-1)
        states = [reference.hidden[role][row] for row in rows]
        known = [part for part in states if part is not None]
        fixed = torch.cat(known).to(hidden.device) if known else hidden.detach()
        return vocabulary.vocabulary_kl(hidden, vocabulary.VocabularyHead.of(self.policy.model), fixed, reference.head)

    def _unscored(self, trees: Sequence[logprobs.Tree], keep_hidden: bool) -> logprobs.TokenLogps:
        device = self.policy.device
        counts = torch.tensor([len(r) for tree in trees for r in tree.responses], device=device)
        response = torch.arange(len(counts), device=device).repeat_interleave(counts)
        hidden = None
        if keep_hidden:
            config: Any = self.policy.base.config
            hidden = torch.zeros(1, config.hidden_size, device=device).expand(len(response), -1)
        return logprobs.TokenLogps(torch.zeros(len(response), device=device), response, counts.float(), hidden)

    def _step_kl(self, data: Items, mine: Sequence[int], reference: Reference) -> Tensor | None:
        """Mean log-ratio of the role that the objective names, over the whole step, without gradient."""
        role = self.objective.step_kl_role
        if role is None:
            return None
        total = torch.zeros(2, dtype=torch.float64)
        for chunk in _chunks([row for row in mine if role in data.items[row].responses], self._micro_batch):
            trees = [data.items[row].tree((role,)) for row in chunk]
            with torch.no_grad(), self._autocast():
                sums = self.policy.scores(trees).sums().cpu()
            known = _joined(reference.tokens[role], chunk, sums)
            total += torch.tensor([float(sums.double().sum() - known.double().sum()), len(sums)], dtype=torch.float64)
        total = self._reduced(total)
        return (total[0] / total[1].clamp(min=1)).float().to(self.policy.device)

    # ------------------------------------------------------------------------------------------------------ averaging

    def _term_weights(
        self, data: Items, mine: Sequence[int], reference: Reference, step_kl: Tensor | None
    ) -> dict[str, float]:
        """The sum of each term's weights over the whole step. Weights depend on counts alone, so nothing is scored."""
        totals: dict[str, Tensor] = {}
        for chunk in _chunks(mine, 1024):
            batch, _ = self._batch(data, chunk, reference, step_kl, scored=False)
            for name, weight in self.objective.weights(batch).items():
                totals[name] = totals.get(name, torch.zeros(())) + weight.sum().cpu()
        names = sorted(totals) or sorted(self._term_names(data, reference))
        summed = self._reduced(torch.tensor([float(totals.get(name, 0.0)) for name in names], dtype=torch.float64))
        return dict(zip(names, summed.tolist(), strict=True))

    def _term_names(self, data: Items, reference: Reference) -> list[str]:
        return list(self.objective.weights(self._batch(data, [0], reference, None, scored=False)[0]))

    def _nothing(self, data: Items, reference: Reference, step_kl: Tensor | None, means: StepMeans) -> None:
        """Zeros under the names that the other processes sum, for a process without rows in this step."""
        with torch.no_grad():
            batch, weight = self._batch(data, [0], reference, step_kl, scored=False, weightless=True)
            totals = dict.fromkeys(self.objective.weights(batch), 1.0)
            self._weighted(batch, totals, means)
            means.add_all(self.objective.metrics(batch), weight)

    def _weighted(self, batch: Any, totals: Mapping[str, float], means: StepMeans) -> Tensor:
        """This micro-batch's share of the step's loss, by the rule at the top of this file."""
        terms, weights = self.objective.terms(batch), self.objective.weights(batch)
        loss = torch.zeros((), device=self.policy.device)
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


def _where(items: Sequence[Item], roles: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """By role: which of the responses of the items' trees are in it, and the row of each."""
    responses: dict[str, list[int]] = {role: [] for role in roles}
    rows: dict[str, list[int]] = {role: [] for role in roles}
    at = 0
    for row, item in enumerate(items):
        for role in roles:
            count = len(item.responses.get(role, ()))
            responses[role] += range(at, at + count)
            rows[role] += [row] * count
            at += count
    return {
        role: (torch.tensor(responses[role], dtype=torch.long), torch.tensor(rows[role], dtype=torch.long))
        for role in roles
    }


def _one_each(items: Sequence[Item], name: str, role: str) -> Tensor:
    """A number for each response of that role, rows in order; NaN where a row has none."""
    found: list[float] = []
    for item in items:
        values = item.response_numbers.get(name, {}).get(role)
        found += values if values is not None else [math.nan] * len(item.responses.get(role, ()))
    return torch.tensor(found)


def _one_a_token(items: Sequence[Item], name: str, role: str) -> Tensor:
    """A number for each token of that role's responses, rows in order."""
    parts = [item.token_numbers[name][role] for item in items if role in item.token_numbers.get(name, {})]
    return torch.cat(parts) if parts else torch.zeros(0)


def _joined(of_rows: Sequence[Tensor | None], rows: Sequence[int], like: Tensor) -> Tensor:
    """The rows' token values one after another, on the device of `like`."""
    known = [part for part in (of_rows[row] for row in rows) if part is not None]
    return torch.cat(known).to(like.device) if known else like.new_zeros(0)


def _chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
