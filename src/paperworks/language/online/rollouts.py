"""What a policy wrote in one iteration, flat: prompts in order, the responses to each one after another, then their tokens.

Every number here is a constant of the update that follows: nothing carries a gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.language.data.schemas import Text


@dataclass(frozen=True)
class Rollouts:
    """Responses to prompts, with what is known of them. Shapes: [prompts], [responses], [tokens]."""

    prompts: Sequence[Text]
    rows: Sequence[Any]  # the row of each prompt
    prompt_ids: Sequence[tuple[int, ...]]  # what the model had read, the beginning of a logged answer included
    prefixes: Sequence[tuple[int, ...]]  # that beginning; empty where the policy wrote from the prompt on
    texts: Sequence[str]  # whole answers, beginnings included
    ids: Sequence[tuple[int, ...]]  # what was written; the end token is there where it came
    group: Int[Tensor, " responses"]  # the prompt of each
    finished: Bool[Tensor, " responses"]  # ended by itself rather than by the length limit
    response: Int[Tensor, " tokens"]  # the response of each token
    logps: Float[Tensor, " tokens"]  # log pi(y_t) of the policy that wrote them, at its own temperature
    reference: Float[Tensor, " tokens"] | None = None  # log pi_ref(y_t)
    values: Float[Tensor, " tokens"] | None = None  # V of the state before each token
    rewards: Float[Tensor, " responses"] = field(default_factory=lambda: torch.zeros(0))
    from_reference: Bool[Tensor, " responses"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    own: Bool[Tensor, " responses"] = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.bool)
    )  # written by the policy itself, neither by the reference nor by a mixture; empty: all are
    extra: Mapping[str, Float[Tensor, " tokens"]] = field(default_factory=dict)  # scores under other models, by name

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> Float[Tensor, " responses"]:
        """Tokens of each response."""
        return self.summed(torch.ones_like(self.logps))

    @property
    def log_ratio(self) -> Float[Tensor, " tokens"]:
        """log pi(y_t) - log pi_ref(y_t)."""
        assert self.reference is not None
        return self.logps - self.reference

    def summed(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " responses"]:
        """The sum over each response's tokens."""
        return torch.zeros(len(self.ids), dtype=values.dtype).index_add(0, self.response, values)

    @property
    def last(self) -> Bool[Tensor, " tokens"]:
        """Whether a token is its response's last."""
        ends = torch.ones_like(self.response, dtype=torch.bool)
        ends[:-1] = self.response[1:] != self.response[:-1]
        return ends

    def members(self) -> list[list[int]]:
        """The responses of each prompt."""
        found: list[list[int]] = [[] for _ in self.prompts]
        for index, group in enumerate(self.group.tolist()):
            found[group].append(index)
        return found

    def of(self, values: Tensor, responses: Sequence[int]) -> Tensor:
        """The token values of these responses, one response after another."""
        parts = values.split([len(ids) for ids in self.ids])
        return torch.cat([parts[index] for index in responses]) if responses else values[:0]

    def of_policy(self) -> Rollouts:
        """The responses that the policy itself wrote; all where it wrote none."""
        if not len(self.own) or bool(self.own.all()) or not bool(self.own.any()):
            return self
        return self.select(self.own.nonzero().squeeze(1).tolist())

    def replace(self, **changes: Any) -> Rollouts:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def select(self, responses: Sequence[int]) -> Rollouts:
        """These responses alone, in this order (one named twice is there twice); every prompt stays."""
        index = torch.tensor(list(responses), dtype=torch.long)
        counts = torch.tensor([len(self.ids[i]) for i in responses], dtype=torch.long)
        pick: Callable[[Tensor], Tensor] = lambda values: self.of(values, responses)  # noqa: E731
        return dataclasses.replace(
            self,
            texts=[self.texts[i] for i in responses],
            ids=[self.ids[i] for i in responses],
            group=self.group[index],
            finished=self.finished[index],
            response=torch.arange(len(index)).repeat_interleave(counts),
            logps=pick(self.logps),
            reference=None if self.reference is None else pick(self.reference),
            values=None if self.values is None else pick(self.values),
            rewards=self.rewards[index] if len(self.rewards) else self.rewards,
            from_reference=self.from_reference[index] if len(self.from_reference) else self.from_reference,
            own=self.own[index] if len(self.own) else self.own,
            extra={name: pick(values) for name, values in self.extra.items()},
        )
