"""An objective of your own: DPO that looks away from pairs it already ranks well (the focal loss's idea).

paperworks train focal-dpo --objective-file examples/my_objective.py --gamma 2 --model tiny --data pairs.jsonl
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from paperworks.core.options import option
from paperworks.language.objectives import DPO, PairLogps


@dataclass(frozen=True)
class FocalDPO(DPO):
    """DPO whose pairs weigh (1 - sigmoid(margin))^gamma: 0 is DPO, more looks harder at pairs still ranked wrong."""

    name: ClassVar[str] = "focal-dpo"
    gamma: float = option(2.0, "how much less well-ranked pairs count", low=0)

    def loss(self, batch: PairLogps) -> torch.Tensor:
        margin = self.margin(batch)
        return torch.sigmoid(-margin.detach()) ** self.gamma * super().loss(batch)
