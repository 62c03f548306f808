"""Beginnings of logged responses from which a policy goes on (DR-PO, arXiv 2404.08495, Algorithm 1).

A reset response of the same prompt, a length between 1 and one less than its own: the policy is put behind that beginning
and writes the rest. The forced tokens belong to the response (the reward sees all of it) and not to the policy's loss.
Token ids in and out; prompts are matched by a key of the caller's, so that the order of a file changes nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed

ResetSource = Literal["chosen", "sft_samples", "both"]


@dataclass(frozen=True)
class ResetOptions:
    """Which answers begin with logged tokens. share=0 is the method without resets."""

    share: float = option(1.0, "probability that an answer starts from a logged beginning", low=0, high=1)
    source: ResetSource = option("chosen", "responses to start from: the chosen ones, samples of the start, or both")

    def __post_init__(self) -> None:
        check_ranges(self, what="resets")
        if self.source not in ("chosen", "sft_samples", "both"):
            raise OptionError(f"resets: source={self.source}: expected chosen, sft_samples or both")


@dataclass(frozen=True)
class Resets:
    """The beginning of each row's answer, () where it starts at the prompt."""

    prefixes: tuple[tuple[int, ...], ...]
    unmatched: int  # rows that were to be reset and whose prompt has no reset response

    @property
    def share(self) -> float:
        """The share of rows that were reset."""
        return sum(map(bool, self.prefixes)) / max(1, len(self.prefixes))

    @property
    def mean_length(self) -> float:
        """Mean length of the beginnings that there are; 0 where there are none."""
        lengths = [len(prefix) for prefix in self.prefixes if prefix]
        return sum(lengths) / len(lengths) if lengths else 0.0


class ResetBank:
    """Responses to begin from, by prompt."""

    def __init__(
        self, responses: Mapping[Hashable, tuple[tuple[int, ...], ...]], *, dropped: int = 0, cut: int = 0
    ) -> None:
        self._responses = dict(responses)
        self.dropped = dropped  # responses shorter than two tokens: nothing would be left to write
        self.cut = cut  # responses that were longer than the limit

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[Hashable, Sequence[int]]], *, end: int | None, max_tokens: int | None = None
    ) -> ResetBank:
        """A bank of (prompt's key, response ids). `end` is the end token; ids behind the first one are left out.

        A response longer than `max_tokens` is cut there and then has no end. Raises DataError where none has two tokens.
        """
        found: dict[Hashable, set[tuple[int, ...]]] = {}
        total = dropped = cut = 0
        for key, ids in pairs:
            total += 1
            response = tuple(map(int, ids))
            if end is not None and end in response:
                response = response[: response.index(end) + 1]
            if max_tokens is not None and len(response) > max_tokens:
                response, cut = response[:max_tokens], cut + 1
            if len(response) < 2:
                dropped += 1
                continue
            found.setdefault(key, set()).add(response)
        if not found:
            raise DataError(
                f"resets: none of {total} responses has two tokens or more, one to keep and one to write; give longer ones"
            )
        return cls({key: tuple(sorted(responses)) for key, responses in found.items()}, dropped=dropped, cut=cut)

    def __len__(self) -> int:
        return len(self._responses)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._responses

    def notes(self) -> list[str]:
        """One line on the responses left out and cut."""
        lines = []
        if self.dropped:
            lines.append(f"resets: {self.dropped} responses of fewer than two tokens were left out")
        if self.cut:
            lines.append(f"resets: {self.cut} responses were cut at the answer's length limit")
        return lines

    def draw(self, keys: Sequence[Hashable], *, share: float = 1.0, seed: int = 0, step: int = 0) -> Resets:
        """A beginning for each row: with probability `share` one of its prompt's responses, of length 1 to L - 1 uniformly.

        L counts the end token where there is one, which therefore is never forced. The response is chosen first, then the
        length. A row's draw depends on the seed, the step and its place. Raises DataError, with share=1, for a row whose
        prompt has no response; with less, such rows start at the prompt and are counted.
        """
        if not 0 <= share <= 1:
            raise OptionError(f"resets: share={share}: expected a probability in [0, 1]")
        prefixes: list[tuple[int, ...]] = []
        unmatched = 0
        draws = np.random.default_rng(derive_seed(seed, "resets", step)).random((len(keys), 3))
        for row, (key, (coin, which, length)) in enumerate(zip(keys, draws, strict=True)):
            if coin >= share:
                prefixes.append(())
                continue
            responses = self._responses.get(key, ())
            if not responses:
                if share == 1:
                    raise DataError(
                        f"resets: row {row + 1}: no reset response for its prompt {_shown(key)}; with share=1 every prompt "
                        "needs one: add responses, or give a share below 1"
                    )
                unmatched += 1
                prefixes.append(())
                continue
            response = responses[int(which * len(responses))]
            prefixes.append(response[: 1 + int(length * (len(response) - 1))])
        return Resets(tuple(prefixes), unmatched)


def written_by_policy(prefixes: Sequence[Sequence[int]], counts: Sequence[int]) -> Bool[Tensor, " tokens"]:
    """Which tokens of responses laid one after another the policy wrote: all but each response's first len(prefix).

    counts: tokens of each whole response. Raises OptionError where nothing is left to the policy.
    """
    import torch

    parts = []
    for number, (prefix, count) in enumerate(zip(prefixes, counts, strict=True), start=1):
        if len(prefix) >= count:
            raise OptionError(
                f"response {number}: {count} tokens with {len(prefix)} forced; expected at least one written"
            )
        parts.append(torch.arange(count) >= len(prefix))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def _shown(key: Hashable, limit: int = 40) -> str:
    text = repr(key)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
