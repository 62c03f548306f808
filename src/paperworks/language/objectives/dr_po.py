"""PPO whose answers may begin in the middle of a logged one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paperworks.core.errors import DataError
from paperworks.core.options import option
from paperworks.language.data.conversation import plain_text
from paperworks.language.objectives.policy_gradient import PPO
from paperworks.language.sources.resets import ResetBank

if TYPE_CHECKING:
    from paperworks.language.policy import Policy


@dataclass(frozen=True)
class DRPO(PPO):
    """Dataset reset policy optimisation (Chang et al. 2024, arXiv 2404.08495), with PPO as its optimiser.

    With probability `reset_share` an answer goes on from a beginning of a logged response to its prompt, of length 1 to
    L - 1 uniformly; it is rewarded whole, and only what the policy wrote is trained on. reset_share = 0 is PPO.
    """

    name: ClassVar[str] = "dr-po"

    reset_share: float = option(1.0, "probability that a prompt's answers start from a logged beginning", low=0, high=1)
    reset_field: str = option("chosen", "field of the prompts' rows with the logged response")

    def bank(self, rows: Sequence[Any], policy: Policy, max_tokens: int) -> ResetBank:
        """The logged responses of the rows, by prompt. Raises DataError where rows have none."""
        found = []
        for row in rows:
            response = getattr(row, self.reset_field, None) or getattr(row, "fields", {}).get(self.reset_field)
            if response:
                found.append((plain_text(row.prompt), policy.encode_response(response)))
        if not found:
            raise DataError(
                f"dr-po: no row has a response in the field {self.reset_field!r} to start from; name it: --reset-field FIELD",
                field=self.reset_field,
            )
        return ResetBank.of(found, end=policy.tokenizer.eos_token_id, max_tokens=max_tokens)
