"""A language-model policy: a causal or encoder-decoder model with its tokenizer, adapters optional.

Says what the frozen start of a policy is, and how it scores responses. How text becomes tokens is in `text_model`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from paperworks.language import logprobs, models
from paperworks.language.text_model import LoraOptions, Precision, TextModel

__all__ = ["LoraOptions", "Policy", "Precision"]


class Policy(TextModel):
    """What acts: a causal or encoder-decoder language model and its tokenizer.

    `policy.reference()` is its frozen start: with LoRA the same weights with the adapters off, otherwise a frozen copy.
    """

    kind = "policy"
    temperature: float = 1.0  # of the distribution whose log-probabilities are meant; see `at_temperature`

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, name: str = "policy") -> None:
        super().__init__(model, tokenizer, name=name)

    @classmethod
    def _read(cls, name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        return models.load(name, dtype=dtype)

    @property
    def _task_type(self) -> str:
        return "SEQ_2_SEQ_LM" if self.is_encoder_decoder else "CAUSAL_LM"

    @functools.cached_property
    def method(self) -> logprobs.Method:
        """`packed` where the self-check shows that it gives the padded path's numbers, else `padded`."""
        return "packed" if self._packed_check[0] else "padded"

    @functools.cached_property
    def _packed_check(self) -> tuple[bool, str]:
        return logprobs.packed_agrees(self.model)

    def method_note(self) -> str:
        """One line for users on which path scores this model; empty on the fast path."""
        agrees, why = self._packed_check
        return "" if agrees else f"{self.name}: log-probabilities by the plain padded path ({why})"

    # ------------------------------------------------------------------------------------------------------ reference

    def reference(self) -> Policy:
        """The frozen start of this policy. Take it before training: without adapters it copies the weights now."""
        if self.has_adapters:
            frozen = copy.copy(self)
            frozen._adapters_off = True
            frozen.name = f"{self.name} (adapters off)"
            return frozen
        frozen = Policy(
            copy.deepcopy(self.model).eval().requires_grad_(False), self.tokenizer, name=f"{self.name} (frozen)"
        )
        if "_packed_check" in self.__dict__:
            frozen.__dict__["_packed_check"] = self._packed_check
        frozen.temperature = self.temperature
        return frozen

    def at_temperature(self, temperature: float) -> Policy:
        """The same model as the policy that samples at this temperature: logits divided by it, weights shared.

        What samples at a temperature other than 1 is another distribution; ratios and KL of its samples are right only
        for that one.
        """
        acting = copy.copy(self)
        acting.temperature = temperature
        return acting

    def start(self) -> Policy:
        """What the training about to begin starts from, without a copy: use it before the first step only.

        This policy as it is; with fresh adapters, which change nothing yet, the weights beneath them, so that the
        scores kept on disk serve every seed. (Adapters trained before are part of the start.)
        """
        return self.reference() if self._adapters_are_fresh() else self

    def _adapters_are_fresh(self) -> bool:
        second = [p for name, p in self.model.named_parameters() if "lora_B" in name]
        return bool(second) and not any(bool(p.detach().any()) for p in second)

    # --------------------------------------------------------------------------------------------------------- scores

    def scores(self, trees: Sequence[logprobs.Tree], *, keep_hidden: bool = False) -> logprobs.TokenLogps:
        """Log-probability of every response token, with gradient (see `logprobs`)."""
        return logprobs.token_logps(
            self.model, trees, method=self.method, keep_hidden=keep_hidden, temperature=self.temperature
        )

    def token_logps(self, trees: Sequence[logprobs.Tree], *, keep_hidden: bool = False) -> logprobs.TokenLogps:
        """The same without gradient, as this policy acts: adapters off for a LoRA reference, dropout off."""
        with torch.no_grad(), self.acting():
            return self.scores(trees, keep_hidden=keep_hidden)
