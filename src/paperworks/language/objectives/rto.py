"""PPO with a reward for every token, read from a model that was trained on preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.objective import require
from paperworks.language.objectives.policy_gradient import PPO, Penalty
from paperworks.language.sources.token_rewards import Granularity, TokenRewardOptions, token_terms

if TYPE_CHECKING:
    from paperworks.language.online.rollouts import Rollouts


@dataclass(frozen=True)
class RTO(PPO):
    """Reinforced token optimisation (Zhong et al. 2024, arXiv 2404.18922, Eq. 4.7).

    r_h = clamp(beta1 log[pi_dpo / pi_ref]) - KL penalty + beta3 R on the last token; pi_dpo is `dpo_model`, trained by DPO
    from the same start, which is pi_ref. beta1 = 0 is PPO. The weight of the KL penalty is the run's kl_coef (the paper's
    beta2).
    """

    name: ClassVar[str] = "rto"

    dpo_model: str = option("", "the model trained by DPO: a folder, an adapter or a Hub id")
    beta1: float = option(0.05, "weight of the DPO model's log-ratio", low=0)
    token_clip: float | None = option(
        0.05, "a token's weighted log-ratio is held within +-this; none: as it is", above=0
    )
    beta3: float = option(1.0, "weight of the answer's reward", low=0)
    granularity: Granularity = option("token", "rewards on each token, at delimiters (Semi-RTO), or at the end (DDPO)")
    delimiters: tuple[int, ...] = option((), "token ids that end a stretch, with granularity=delimiter")
    shaping_only: bool = option(False, "take the token rewards off again at the last token (our reading of RS-PPO)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.token_options  # noqa: B018 - raises for what does not go together

    @property
    def token_options(self) -> TokenRewardOptions:
        """The same for the function that computes the rewards. Raises OptionError."""
        return TokenRewardOptions(
            beta1=self.beta1, token_clip=self.token_clip, beta3=self.beta3, granularity=self.granularity,
            delimiters=self.delimiters, shaping_only=self.shaping_only,
        )  # fmt: skip

    def other_models(self) -> dict[str, str]:
        """The models that score the answers beside policy and reference. Raises OptionError where none is named."""
        if self.beta1 == 0:
            return {}
        require(
            bool(self.dpo_model),
            "dpo_model",
            self.dpo_model,
            "a model trained by DPO",
            "train one: paperworks train dpo",
        )
        return {"dpo": self.dpo_model}

    def rewards_by_token(self, rollouts: Rollouts, penalty: Penalty) -> Float[Tensor, " tokens"]:
        plain = super().rewards_by_token(rollouts.replace(rewards=self.beta3 * rollouts.rewards), penalty)
        if self.beta1 == 0:
            return plain
        assert rollouts.reference is not None
        ids = torch.tensor([token for answer in rollouts.ids for token in answer], dtype=torch.long)
        terms, _ = token_terms(
            rollouts.extra["dpo"], rollouts.reference, rollouts.response, self.token_options, token_ids=ids
        )
        return plain + terms
