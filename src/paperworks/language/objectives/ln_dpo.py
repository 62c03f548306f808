"""DPO on averages over tokens, so that a response's length does not scale its implicit reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import ResponseLogps, note_unless


@dataclass(frozen=True)
class LNDPO(DPO):
    """Length-normalised DPO ("The Hitchhiker's Guide to Human Alignment with *PO" 2024, arXiv 2407.15229).

    loss = -log sigmoid(m), m = beta * [log-ratio of chosen / |chosen| - log-ratio of rejected / |rejected|], each
    response divided by its own token count (to the power `length_exponent`; 0 is DPO). TRL calls it `sigmoid_norm`.
    """

    name: ClassVar[str] = "ln-dpo"

    beta: float = option(5.0, "reward per nat of mean token log-ratio: 1 to 10, not DPO's scale", above=0)
    length_exponent: float = option(
        1.0, "log-ratios are divided by tokens to this power; 0 is DPO, 1 is LN-DPO", low=0, high=2
    )

    def option_notes(self) -> list[str]:
        if self.length_exponent < 0.5:
            return super().option_notes()
        return note_unless(
            0.5 <= self.beta <= 50,
            "beta",
            self.beta,
            "LN-DPO's beta lives on another scale than DPO's, because it multiplies a mean over tokens",
            "1 to 10 here plays the role of 0.01 to 0.1 in dpo at 100 tokens",
        )

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.beta * response.log_ratio / response.tokens**self.length_exponent
