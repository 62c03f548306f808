"""Log-probabilities under the frozen start of a policy, computed once and kept on disk.

The key is what they depend on: the weights that act, the tokenizer and template, and the token ids. A run that is resumed
or repeated, another objective or another seed on the same data finds them there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from paperworks.core.files import cache_dir, write_atomic
from paperworks.language.items import score
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy

SCORING_VERSION = 1  # raise when the numbers of `logprobs` change


class ReferenceScores:
    """Sums of response log-probabilities by tree, read from and written to one file of the cache.

    `acting` is the policy whose weights are the reference's (a LoRA policy's reference, or the policy at its start).
    """

    def __init__(self, acting: Policy, trees: Sequence[Tree], *, model_hash: str, on_disk: bool = True) -> None:
        self._policy, self._trees = acting, trees
        digest = hashlib.sha256(f"{SCORING_VERSION} {model_hash}".encode())
        for tree in trees:
            digest.update(repr((tuple(tree.prompt), [tuple(response) for response in tree.responses])).encode())
        self._path: Path | None = cache_dir("reference") / f"{digest.hexdigest()[:40]}.safetensors" if on_disk else None
        width = max((len(tree.responses) for tree in trees), default=1)
        self.sums = self._read((len(trees), width))

    def _read(self, shape: tuple[int, int]) -> torch.Tensor:
        unknown = torch.full(shape, float("nan"))
        if self._path is None or not self._path.is_file():
            return unknown
        try:
            found = load_file(self._path)["sums"]
        except (SafetensorError, KeyError, OSError):
            return unknown  # a damaged cache file is computed again
        return found if found.shape == shape else unknown

    def missing(self, rows: Sequence[int]) -> list[int]:
        """The rows among these whose scores are not known yet."""
        return [row for row in dict.fromkeys(rows) if bool(self.sums[row, 0].isnan())]

    def compute(self, rows: Sequence[int]) -> None:
        """Score these rows now."""
        sums, _ = score(self._policy, [self._trees[row] for row in rows])
        at = 0
        for row in rows:
            size = len(self._trees[row].responses)
            self.sums[row, :size] = sums[at : at + size]
            at += size

    def save(self) -> None:
        """Write what is known to the cache."""
        if self._path is not None:
            write_atomic(self._path, save({"sums": self.sums.contiguous()}))
