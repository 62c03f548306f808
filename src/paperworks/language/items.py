"""Rows as token ids: what the training loop, the evaluation and the reference cache work on.

Lengths are settled here and nowhere else: a response is cut at its end (and then has no end token, which is counted), a
prompt that leaves no room is an error unless it may be cut at its front or left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from paperworks.core.errors import DataError, ModelError
from paperworks.core.seeding import torch_generator
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Text
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy

LongPrompts = Literal["error", "cut", "skip"]


@dataclass(frozen=True)
class Item:
    """One row: its prompt and, role by role, its responses, as token ids."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]  # all roles' responses, in the order of the roles
    weight: float
    desirable: float | None
    mismatched: tuple[int, ...] | None  # another prompt's response, for objectives with a step-wide KL estimate
    where: str

    def tree(self) -> Tree:
        return Tree(self.prompt, self.responses)

    def mismatched_tree(self) -> Tree:
        assert self.mismatched is not None
        return Tree(self.prompt, (self.mismatched,))


@dataclass(frozen=True)
class Items:
    """All rows' items and what cutting did. `role_sizes`: how many responses each role has in an item."""

    items: Sequence[Item]
    roles: tuple[str, ...]
    role_sizes: tuple[int, ...]
    responses: int
    cut_responses: int  # responses cut at max_length: they have no end token
    cut_prompts: int
    skipped: int

    def __len__(self) -> int:
        return len(self.items)

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
    policy: Policy,
    roles: Sequence[str],
    *,
    max_length: int | None = None,
    long_prompts: LongPrompts = "error",
    mismatched: bool = False,
    seed: int = 0,
) -> Items:
    """Token ids of every row's prompt and of its responses in `roles`.

    `max_length`: most tokens of prompt and response together (encoder-decoder: of each), at most the model's context.
    `mismatched`: also pair every prompt with the response of another row, fixed by `seed`.
    Raises DataError (file:line) for a prompt with no room for a response, or rows without a role's responses.
    """
    limit = policy.context_length if max_length is None else min(max_length, policy.context_length)
    texts = [[text for role in roles for text in _texts(row, role)] for row in dataset.rows]
    sizes = _role_sizes(dataset, roles)
    encoded = iter(policy.encode_responses([text for of_row in texts for text in of_row]))
    prompts: dict[str, list[int]] = {}  # plain prompts often repeat
    items: list[Item] = []
    cut_responses = cut_prompts = skipped = 0
    for row, of_row in zip(dataset.rows, texts, strict=True):
        responses = [next(encoded) for _ in of_row]
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
        cut_responses += sum(len(ids) > room for ids in responses)
        desirable = getattr(row, "desirable", None)
        items.append(
            Item(
                tuple(prompt),
                tuple(tuple(ids[:room]) for ids in responses),
                float(row.weight),
                None if desirable is None else float(desirable),
                None,
                str(row.where) if row.where.file else f"row {len(items) + skipped + 1}",
            )
        )
    if not items:
        raise DataError("0 rows left: every prompt fills max_length", file=dataset.report.source or None)
    if mismatched:
        items = _with_mismatched(items, limit, policy.is_encoder_decoder, seed)
    return Items(items, tuple(roles), sizes, len(items) * sum(sizes), cut_responses, cut_prompts, skipped)


def _texts(row: Any, role: str) -> tuple[Text, ...]:
    """The responses of a role: the field of that name; a tuple of plain strings holds several, messages are one."""
    value = getattr(row, role)
    if isinstance(value, tuple) and (not value or isinstance(value[0], str)):
        return value
    return (value,)


def _role_sizes(dataset: Dataset[Any], roles: Sequence[str]) -> tuple[int, ...]:
    """How many responses each role has, which must be the same in every row."""
    sizes: tuple[int, ...] = ()
    for row in dataset.rows:
        of_row = tuple(len(_texts(row, role)) for role in roles)
        sizes = sizes or of_row
        if of_row != sizes or 0 in of_row:
            raise DataError(
                f"expected the same number of responses in every row ({dict(zip(roles, sizes, strict=True))}), "
                f"got {dict(zip(roles, of_row, strict=True))}",
                file=row.where.file or None,
                line=row.where.line or None,
            )
    return sizes


def _encoded_prompt(policy: Policy, row: Any) -> list[int]:
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
        out.append(dataclasses.replace(item, mismatched=items[partner[index]].responses[0][:room]))
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
