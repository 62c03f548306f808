"""Keys and values of what a batch of rows has read, for decoding one token at a time in step.

Attention of the model's layers calls it through `logprobs`, which hands over the packed prompts' keys and values first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class KeyValueCache:
    """Keys and values of all layers for `rows` rows. Prompts are right-aligned, so every row writes the same slot."""

    def __init__(self, prompt_lengths: Sequence[int], n: int, capacity: int, device: torch.device) -> None:
        self.longest = max(prompt_lengths)
        self.capacity = self.longest + capacity
        self.slot = self.longest  # where the next token's key goes
        lengths = torch.tensor(prompt_lengths, device=device)
        starts = lengths.cumsum(0) - lengths  # prompts lie one after another in the packed row
        aligned = torch.arange(self.longest, device=device)[None] - (self.longest - lengths)[:, None]
        self._packed_index = (starts[:, None] + aligned.clamp(min=0)).flatten()
        self.padding = (self.longest - lengths).repeat_interleave(n)
        self._n = n
        self._layers: dict[int, list[Tensor]] = {}
        self.mask: Tensor | None = None

    def remember(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take a layer's keys and values [1, kv_heads, positions, dim] from the packed prefill."""
        entry = []
        for packed in (key, value):
            prompts = packed[0].index_select(1, self._packed_index).unflatten(1, (-1, self.longest)).transpose(0, 1)
            cache = packed.new_empty(prompts.shape[0] * self._n, prompts.shape[1], self.capacity, prompts.shape[3])
            cache[:, :, : self.longest] = prompts.repeat_interleave(self._n, 0)
            entry.append(cache)
        self._layers[layer] = entry

    def begin_step(self) -> None:
        """Prepare the mask that hides each row's left padding, shared by all layers."""
        if int(self.padding.max()) == 0:
            self.mask = None
        else:
            slots = torch.arange(self.slot + 1, device=self.padding.device)
            self.mask = (slots[None] >= self.padding[:, None])[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Write one new position a row and attend to all of the row's positions: [rows, 1, heads, dim]."""
        keys, values = self._layers[layer]
        keys[:, :, self.slot] = key[:, :, 0]
        values[:, :, self.slot] = value[:, :, 0]
        grouped = query.squeeze(2).unflatten(1, (keys.shape[1], -1))  # query heads of a key head take the query axis
        out = functional.scaled_dot_product_attention(
            grouped,
            keys[:, :, : self.slot + 1],
            values[:, :, : self.slot + 1],
            attn_mask=None if self.mask is None else self.mask.expand(-1, 1, grouped.shape[2], -1),
            scale=scaling,
        )
        return out.flatten(1, 2)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        used = self.slot
        for entry in self._layers.values():
            for which, cache in enumerate(entry):
                kept = cache.new_empty(len(rows), *cache.shape[1:])
                kept[:, :, :used] = cache[:, :, :used].index_select(0, rows)
                entry[which] = kept
        self.padding = self.padding[rows]
