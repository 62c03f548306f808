"""Last hidden states of prompts, as a frozen policy sees them: what a value head is fitted on.

Where the policy's packed path runs, prompts lie one after another and no padding is computed at all; elsewhere they are
padded on the right, where nothing that a state depends on looks. Responses are never part of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language import logprobs
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy


@dataclass(frozen=True)
class PromptStates:
    """Hidden states of prompts of different lengths, one prompt after another."""

    values: Float[Tensor, "positions width"]  # float32, on the CPU
    lengths: tuple[int, ...]  # positions of each prompt, at least 1

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Numbers a state has."""
        return self.values.shape[1]

    def padded(
        self, which: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "prompts longest width"], Bool[Tensor, "prompts longest"]]:
        """The states of the prompts `which` (all by default), zeros after each, and True where states are."""
        chosen = range(len(self)) if which is None else which
        lengths = torch.tensor([self.lengths[i] for i in chosen])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        states = self.values.new_zeros(*mask.shape, self.width)
        starts = self._starts
        states[mask] = torch.cat([self.values[starts[i] : starts[i] + self.lengths[i]] for i in chosen])
        return states, mask

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *torch.tensor(self.lengths).cumsum(0).tolist()]


def prompt_states(policy: Policy, prompts: Sequence[Text], *, most_tokens: int = 8192) -> PromptStates:
    """The last hidden states of each prompt, in order, without gradient and as this policy acts.

    Decoder-only models give the states after their last norm, encoder-decoder models the encoder's; for a reference
    with adapters these are off. A prompt longer than the context keeps its end. `most_tokens` bounds a forward pass.
    """
    parts: list[Tensor] = [torch.empty(0)] * len(prompts)
    for indices, states in state_batches(policy, prompts, most_tokens=most_tokens):
        for index, part in zip(indices, states.values.split(list(states.lengths)), strict=True):
            parts[index] = part
    return PromptStates(torch.cat(parts), tuple(len(part) for part in parts))


def state_batches(
    policy: Policy, prompts: Sequence[Text], *, most_tokens: int = 8192
) -> Iterator[tuple[list[int], PromptStates]]:
    """The same, batch by batch with the prompts' indices, shortest first: for more prompts than memory holds states of.

    Raises OptionError without prompts.
    """
    if not prompts:
        raise OptionError("prompt states: expected at least one prompt")
    encoded = [policy.encode_prompt(prompt)[-policy.context_length :] for prompt in prompts]
    batch: list[int] = []
    for index in sorted(range(len(encoded)), key=lambda i: len(encoded[i])):
        if batch and len(encoded[index]) * (len(batch) + 1) > most_tokens:
            yield batch, _states(policy, [encoded[i] for i in batch])
            batch = []
        batch.append(index)
    yield batch, _states(policy, [encoded[i] for i in batch])


def _states(policy: Policy, prompts: Sequence[list[int]]) -> PromptStates:
    with torch.no_grad(), policy.acting():
        parts = _packed(policy, prompts) if _can_pack(policy, prompts) else _right_padded(policy, prompts)
    return PromptStates(torch.cat([part.float().cpu() for part in parts]), tuple(len(ids) for ids in prompts))


def _can_pack(policy: Policy, prompts: Sequence[list[int]]) -> bool:
    window = getattr(policy.base.config, "sliding_window", None)
    return policy.method == "packed" and (window is None or max(map(len, prompts)) <= window)


def _packed(policy: Policy, prompts: Sequence[list[int]]) -> list[Tensor]:
    # the one token of the response is a target, never an input, so that the row holds the prompts alone
    layout = logprobs.lay_out([logprobs.Tree(ids, [ids[:1]]) for ids in prompts], device=policy.device)
    hidden = logprobs.packed_hidden(policy.base, layout)
    ends = (layout.predictors + 1).tolist()
    return [hidden[end - len(ids) : end] for end, ids in zip(ends, prompts, strict=True)]


def _right_padded(policy: Policy, prompts: Sequence[list[int]]) -> list[Tensor]:
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long, device=policy.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=policy.device)
        mask[row, : len(prompt)] = 1
    base = policy.base
    part: Any = base.get_encoder() if policy.is_encoder_decoder else base.get_decoder()
    more = {} if policy.is_encoder_decoder else {"use_cache": False}
    hidden = cast(Tensor, part(input_ids=ids, attention_mask=mask, **more).last_hidden_state)
    return [hidden[row, : len(prompt)] for row, prompt in enumerate(prompts)]
