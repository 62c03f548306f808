"""A critic with a transformer of its own: the value of every state of an answer, apart from the policy that writes it.

It begins as a reward model, whose score of what is there so far is a first guess of the value (arXiv 2009.01325), or as a
language model with a head that says 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.core.errors import ModelError
from paperworks.language import logprobs
from paperworks.language.logprobs import Tree
from paperworks.language.policy import LoraOptions
from paperworks.language.rewards.model import RewardModel
from paperworks.language.rewards.model_forward import head_linears, last_linear
from paperworks.language.values.head import ValueHead, ValueHeadOptions

if TYPE_CHECKING:
    from paperworks.language.policy import Policy


class Critic(nn.Module):
    """A value head on the states of `model`, both of which train; with adapters on the model, those and the head."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model, self._read = model.model, model
        self.head = ValueHead(int(model.base.config.hidden_size), ValueHeadOptions(kind="mean", dropout=0.0))
        self.head.start_at(0.0)
        score = last_linear(model.base)
        if not model.fresh_modules:
            with torch.no_grad():
                self.head.last.weight.copy_(score.weight)
                if score.bias is not None:
                    self.head.last.bias.copy_(score.bias)
        for linear in head_linears(model.base):
            linear.requires_grad_(False)  # the value head has taken its place

    @classmethod
    def load(cls, name: str, policy: Policy, *, seed: int = 0) -> Critic:
        """The critic that begins as the model of that name, for the answers of `policy`; with adapters where it has some.

        Raises ModelError for a model of another vocabulary, of several members, or that is no decoder.
        """
        model = RewardModel.load(name, device=str(policy.device), seed=seed)
        if not model.is_decoder or model.method != "packed" or model.members > 1:
            raise ModelError(f"critic {name}: expected a single decoder that takes packed rows; give another model")
        if model.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise ModelError(f"critic {name}: another vocabulary than {policy.name}'s; give a model of the same family")
        if policy.has_adapters and not model.has_adapters:
            model = model.with_lora(LoraOptions(), seed=seed)
        model.model.eval()
        return cls(model)

    def states(self, trees: Sequence[Tree]) -> Float[Tensor, "tokens width"]:
        """The state before every response token, in the trees' order; with gradient."""
        base, device = self._read.base, self._read.device
        layout = logprobs.lay_out(trees, device=device, padding_allowed=logprobs.padding_worth_a_call(base, device))
        return logprobs.packed_hidden(base, layout)[layout.predictors]

    def at_positions(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
        """The value of each state."""
        return self.head.at_positions(states)
