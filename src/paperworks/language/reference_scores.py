"""What the frozen start of a policy says about the rows, computed once before training.

Log-probabilities, token by token, are kept on disk. The key is what they depend on: the weights that act, the tokenizer and
template, and the token ids; a run that is resumed or repeated, another objective or another seed on the same data finds
them there. Last hidden states, for divergences over the whole vocabulary, are kept in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from paperworks.core.errors import ModelError
from paperworks.core.files import cache_dir, write_atomic
from paperworks.language.items import Item, batches_by_tokens
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.vocabulary import VocabularyHead

SCORING_VERSION = 2  # raise when the numbers of `logprobs` change


@dataclass(frozen=True)
class Reference:
    """A reference's view of the rows: by role, an entry a row with the tokens of all its responses in that role."""

    tokens: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)  # log-probabilities [tokens]
    hidden: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)  # last hidden states [tokens, width]
    head: VocabularyHead | None = None  # goes with `hidden`


class ReferenceScores:
    """Token log-probabilities of the responses of trees, read from and written to one file of the cache.

    `acting` is the policy whose weights are the reference's (a LoRA policy's reference, or the policy at its start).
    """

    def __init__(self, acting: Policy, trees: Sequence[Tree], *, model_hash: str, on_disk: bool = True) -> None:
        self._policy, self._trees = acting, trees
        digest = hashlib.sha256(f"{SCORING_VERSION} {model_hash}".encode())
        for tree in trees:
            digest.update(repr((tuple(tree.prompt), [tuple(response) for response in tree.responses])).encode())
        self._path: Path | None = cache_dir("reference") / f"{digest.hexdigest()[:40]}.safetensors" if on_disk else None
        self._sizes = [sum(map(len, tree.responses)) for tree in trees]
        self.values = self._read()  # [tokens of all trees], NaN where not known yet
        self._views = self.values.split(self._sizes)

    def _read(self) -> Tensor:
        unknown = torch.full((sum(self._sizes),), float("nan"))
        if self._path is None or not self._path.is_file():
            return unknown
        try:
            found = load_file(self._path)["tokens"]
        except (SafetensorError, KeyError, OSError):
            return unknown  # a damaged cache file is computed again
        return found if found.shape == unknown.shape else unknown

    def __len__(self) -> int:
        return len(self._trees)

    def mark(self, where: Tensor, rows: Sequence[int]) -> None:
        """Set `where`, of the shape of `values`, to True at the tokens of these rows."""
        views = where.split(self._sizes)
        for row in rows:
            views[row].fill_(True)

    def tokens(self, row: int) -> Tensor:
        """The log-probabilities of a tree's response tokens, response after response."""
        return self._views[row]

    @property
    def sums(self) -> Tensor:
        """log pi_ref of every response, [trees, most responses]; NaN where there is none or it is not known."""
        width = max((len(tree.responses) for tree in self._trees), default=1)
        out = torch.full((len(self._trees), width), float("nan"))
        for row, (tree, values) in enumerate(zip(self._trees, self._views, strict=True)):
            counts = torch.tensor([len(response) for response in tree.responses], dtype=torch.long)
            response = torch.arange(len(counts)).repeat_interleave(counts)
            # added up as `TokenLogps.sums` is, so that a policy differs from itself by nothing
            out[row, : len(counts)] = torch.zeros(len(counts)).index_add(0, response, values)
        return out

    def missing(self, rows: Sequence[int]) -> list[int]:
        """The rows among these whose scores are not known yet."""
        return [row for row in dict.fromkeys(rows) if self._sizes[row] and bool(self._views[row][0].isnan())]

    def compute(self, rows: Sequence[int], *, most_tokens: int = 4096) -> None:
        """Score these rows now."""
        for batch in batches_by_tokens([self._trees[row] for row in rows], most_tokens):
            of = [rows[at] for at in batch]
            found = self._policy.token_logps([self._trees[row] for row in of]).values.float().cpu()
            for row, values in zip(of, found.split([self._sizes[row] for row in of]), strict=True):
                self._views[row].copy_(values)

    def save(self) -> None:
        """Write what is known to the cache."""
        if self._path is not None:
            write_atomic(self._path, save({"tokens": self.values.contiguous()}))


def by_role(items: Sequence[Item], roles: Sequence[str], tokens: Sequence[Tensor]) -> dict[str, list[Tensor | None]]:
    """An entry a row and role: that part of the row's `tokens`, which are in the order of `roles`; None without any."""
    out: dict[str, list[Tensor | None]] = {role: [] for role in roles}
    for item, of_row in zip(items, tokens, strict=True):
        sizes = [sum(map(len, item.responses.get(role, ()))) for role in roles]
        for role, part in zip(roles, of_row.split(sizes), strict=True):
            out[role].append(part if len(part) else None)
    return out


def hidden_states(
    acting: Policy, items: Sequence[Item], roles: Sequence[str], rows: Sequence[int], *, most_tokens: int = 4096
) -> dict[str, list[Tensor | None]]:
    """Last hidden states of the reference at the response tokens of `roles`, [tokens, width] a row; None elsewhere.

    Raises ModelError for models that are not scored by the packed path: there, hidden states and the vocabulary matrix
    need not give the model's logits.
    """
    if acting.method != "packed":
        raise ModelError(
            f"{acting.name}: the divergence over the whole vocabulary needs a decoder that is scored by the packed path "
            f"({acting.method_note() or 'this one is not'}); use the retain loss in place of the KL term"
        )
    out: dict[str, list[Tensor | None]] = {role: [None] * len(items) for role in roles}
    having = [row for row in dict.fromkeys(rows) if items[row].responses_in(roles)]
    for batch in batches_by_tokens([items[row].tree(roles) for row in having], most_tokens):
        of = [having[at] for at in batch]
        hidden = acting.token_logps([items[row].tree(roles) for row in of], keep_hidden=True).hidden
        assert hidden is not None
        sizes = [sum(map(len, items[row].responses_in(roles))) for row in of]
        for row, states in zip(of, hidden.cpu().split(sizes), strict=True):
            for role, found in by_role([items[row]], roles, [states]).items():
                out[role][row] = found[0]
    return out
