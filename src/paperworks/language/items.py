"""Rows as token ids: what the training loop, the evaluation and the reference cache work on.

Lengths are settled here and nowhere else: a response is cut at its end (and then has no end token, which is counted), a
prompt that leaves no room is an error unless it may be cut at its front or left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from paperworks.core.errors import DataError, ModelError
from paperworks.core.seeding import torch_generator
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Graded
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.text_model import TextModel

LongPrompts = Literal["error", "cut", "skip"]


MISMATCHED = "mismatched"  # the role of another row's response, for objectives with a step-wide KL estimate


@dataclass(frozen=True)
class Item:
    """One row: its prompt and, role by role, its responses, as token ids. A role that the row lacks is not there."""

    prompt: tuple[int, ...]
    responses: Mapping[str, tuple[tuple[int, ...], ...]]
    weight: float
    where: str
    numbers: Mapping[str, float] = field(default_factory=dict)  # numeric fields of the row; NaN where it has none
    grades: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # degrees of the responses of graded roles
    is_companion: bool = False
    response_numbers: Mapping[str, Mapping[str, tuple[float, ...]]] = field(
        default_factory=dict
    )  # name, role: one each
    token_numbers: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)  # name, role: one a token

    def responses_in(self, roles: Sequence[str] | None = None) -> tuple[tuple[int, ...], ...]:
        """The responses of these roles (all but mismatched ones), in the order of the roles."""
        roles = [role for role in self.responses if role != MISMATCHED] if roles is None else roles
        return tuple(response for role in roles for response in self.responses.get(role, ()))

    def tree(self, roles: Sequence[str] | None = None) -> Tree:
        """The prompt with its responses in these roles (all but mismatched ones)."""
        return Tree(self.prompt, self.responses_in(roles))


@dataclass(frozen=True)
class Items:
    """All rows' items and what cutting did; companions (rows drawn beside the others) come last."""

    items: Sequence[Item]
    roles: tuple[str, ...]
    responses: int
    cut_responses: int  # responses cut at max_length: they have no end token
    cut_prompts: int
    skipped: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def companions(self) -> int:
        """How many of the items are companions."""
        return sum(item.is_companion for item in self.items)

    def number(self, name: str) -> torch.Tensor:
        """The numeric field of that name, a float64 value a row; NaN where a row has none."""
        return torch.tensor([item.numbers.get(name, math.nan) for item in self.items], dtype=torch.float64)

    def notes(self) -> list[str]:
        """One line on everything cut or left out; empty when nothing was."""
        lines = []
        if self.cut_responses:
            share = self.cut_responses / self.responses
            lines.append(f"{share:.1%} of responses were cut at max_length and have no end token; raise --max-length")
        if self.cut_prompts:
            lines.append(f"{self.cut_prompts} prompts were cut at their front")
        if self.skipped:
            lines.append(f"{self.skipped} rows were left out: their prompts fill max_length")
        return lines


def tokenise(
    dataset: Dataset[Any],
    policy: TextModel,
    roles: Sequence[str],
    *,
    numbers: Sequence[str] = (),
    response_numbers: Sequence[str] = (),
    max_length: int | None = None,
    long_prompts: LongPrompts = "error",
    mismatched: bool = False,
    seed: int = 0,
) -> Items:
    """Token ids of every row's prompt and of its responses in those of `roles` that it has.

    `numbers`: numeric fields to keep; `response_numbers`: fields with a number for each response of the row's
    one role. `max_length`: most tokens of prompt and response together (encoder-decoder: of each), at most the model's
    context. `mismatched`: also give every row the response of another, fixed by `seed`.
    Raises DataError (file:line) for a prompt with no room for a response, or a row without any response.
    """
    limit = policy.context_length if max_length is None else min(max_length, policy.context_length)
    texts = [_responses(row, roles) for row in dataset.rows]
    encoded = iter(policy.encode_responses([text for of_row in texts for role in of_row.values() for text in role]))
    prompts: dict[str, list[int]] = {}  # plain prompts often repeat
    items: list[Item] = []
    cut_responses = cut_prompts = skipped = 0
    for number, (row, of_row) in enumerate(zip(dataset.rows, texts, strict=True), start=1):
        responses = {role: [next(encoded) for _ in of_role] for role, of_role in of_row.items()}
        prompt = prompts.get(row.prompt) if isinstance(row.prompt, str) else None
        if prompt is None:
            prompt = _encoded_prompt(policy, row)
            if isinstance(row.prompt, str):
                prompts[row.prompt] = prompt
        room = limit if policy.is_encoder_decoder else limit - len(prompt)
        too_long = len(prompt) > limit or room < 1
        if too_long and long_prompts == "skip":
            skipped += 1
            continue
        if too_long and long_prompts == "error":
            raise DataError(
                f"the prompt has {len(prompt)} tokens, the limit for prompt and response is {limit} "
                f"({'max_length' if limit != policy.context_length else 'the context of the model'}): "
                "raise --max-length, or give --long-prompts cut or skip",
                file=row.where.file or None,
                line=row.where.line or None,
                field="prompt",
            )
        if too_long:
            room = limit if policy.is_encoder_decoder else max(1, limit // 2)
            prompt = prompt[-(limit if policy.is_encoder_decoder else limit - room) :]
            cut_prompts += 1
        cut_responses += sum(len(ids) > room for of_role in responses.values() for ids in of_role)
        items.append(
            Item(
                tuple(prompt),
                {role: tuple(tuple(ids[:room]) for ids in of_role) for role, of_role in responses.items()},
                float(row.weight),
                str(row.where) if row.where.file else f"row {number}",
                {name: _number(row, name) for name in numbers},
                {
                    role: tuple(t.degree for t in found)
                    for role, found in of_row.items()
                    if isinstance(found[0], Graded)
                },
                getattr(row, "is_companion", False),
                {name: _of_responses(row, name, of_row) for name in response_numbers},
            )
        )
    if not items:
        raise DataError("0 rows left: every prompt fills max_length", file=dataset.report.source or None)
    if mismatched:
        items = _with_mismatched(items, limit, policy.is_encoder_decoder, seed)
    items.sort(key=lambda item: item.is_companion)  # stable: the rows keep their order
    total = sum(len(item.responses_in()) for item in items)
    return Items(items, tuple(roles), total, cut_responses, cut_prompts, skipped)


def _responses(row: Any, roles: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The row's responses by role; a tuple of strings or graded versions holds several, messages are one."""
    found: dict[str, tuple[Any, ...]] = {}
    for role in roles:
        value = getattr(row, role, ())
        several = isinstance(value, tuple) and (not value or isinstance(value[0], str | Graded))
        texts = value if several else (value,)
        if texts:
            found[role] = texts
    if not found:
        raise DataError(
            f"no response in any of the roles {', '.join(roles)}; expected at least one",
            file=row.where.file or None,
            line=row.where.line or None,
        )
    return found


def _of_responses(row: Any, name: str, of_row: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, ...]]:
    """A row's numbers, one for each response of its first role. Raises DataError for another count."""
    values = tuple(map(float, getattr(row, name, ())))
    role = next(iter(of_row))
    if len(values) != len(of_row[role]):
        raise DataError(
            f"{len(values)} {name} for {len(of_row[role])} responses; expected one each",
            file=row.where.file or None,
            line=row.where.line or None,
            field=name,
        )
    return {role: values}


def _number(row: Any, name: str) -> float:
    value = getattr(row, name, None)
    return math.nan if value is None else float(value)


def _encoded_prompt(policy: TextModel, row: Any) -> list[int]:
    try:
        return policy.encode_prompt(row.prompt)
    except ModelError as error:
        raise ModelError(f"{row.where}: {error}" if row.where.file else str(error)) from error


def _with_mismatched(items: list[Item], limit: int, is_encoder_decoder: bool, seed: int) -> list[Item]:
    """Give each item the first response of another; a shuffled cycle, so that no item gets its own."""
    order = torch.randperm(len(items), generator=torch_generator(seed, "mismatched")).tolist()
    partner = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    out = []
    for index, item in enumerate(items):
        room = limit if is_encoder_decoder else max(1, limit - len(item.prompt))
        other = items[partner[index]].responses_in()[0][:room]
        out.append(dataclasses.replace(item, responses={**item.responses, MISMATCHED: (other,)}))
    return out


def batches_by_tokens(trees: Sequence[Tree], most_tokens: int) -> list[list[int]]:
    """Indices of trees in batches of similar length and at most `most_tokens` tokens (at least one tree each)."""
    sizes = [len(tree.prompt) + sum(map(len, tree.responses)) for tree in trees]
    batches: list[list[int]] = []
    total = 0
    for index in sorted(range(len(trees)), key=sizes.__getitem__):
        if not batches or total + sizes[index] > most_tokens:
            batches.append([])
            total = 0
        batches[-1].append(index)
        total += sizes[index]
    return batches


def score(policy: Policy, trees: Sequence[Tree], *, most_tokens: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probability and token count of every response, in order, without gradient: two [responses] tensors."""
    firsts = [0]
    for tree in trees:
        firsts.append(firsts[-1] + len(tree.responses))
    sums, counts = torch.zeros(firsts[-1]), torch.zeros(firsts[-1])
    for batch in batches_by_tokens(trees, most_tokens):
        scored = policy.token_logps([trees[i] for i in batch])
        where = torch.cat([torch.arange(firsts[i], firsts[i + 1]) for i in batch])
        sums[where], counts[where] = scored.sums().float().cpu(), scored.counts.float().cpu()
    return sums, counts
