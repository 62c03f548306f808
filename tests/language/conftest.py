"""Small models of every shape that the language wing must cope with, made here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from paperworks.language.data import Dataset, Preference
from paperworks.language.policy import Policy
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
WIDTH = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer([p + r for p, r in generate_reviews(300, 0)], 400)


def _causal(config: Any, **more: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


MODELS: dict[str, Callable[[int], torch.nn.Module]] = {
    "llama-gqa": lambda v: _causal(LlamaConfig(vocab_size=v, num_key_value_heads=2, tie_word_embeddings=True, **WIDTH)),
    "mistral": lambda v: _causal(MistralConfig(vocab_size=v, num_key_value_heads=2, sliding_window=None, **WIDTH)),
    "qwen2": lambda v: _causal(Qwen2Config(vocab_size=v, num_key_value_heads=4, **WIDTH)),
    "gpt2": lambda v: _causal(
        GPT2Config(
            vocab_size=v,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        )
    ),
}


@pytest.fixture(scope="session", params=sorted(MODELS))
def any_decoder(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Policy:
    return Policy(MODELS[request.param](len(tokenizer)), tokenizer, name=request.param)


@pytest.fixture(scope="session")
def encoder_decoder(tokenizer: PreTrainedTokenizerFast) -> Policy:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        dropout_rate=0.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Policy(T5ForConditionalGeneration(config).eval(), tokenizer, name="t5")


@pytest.fixture
def small_policy(tokenizer: PreTrainedTokenizerFast) -> Policy:
    """A fresh small policy: free to train."""
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)


@pytest.fixture(scope="session")
def pairs() -> Dataset[Preference]:
    """Forty preference rows whose chosen responses come from other reviews than the rejected ones."""
    good, bad = generate_reviews(40, 1), generate_reviews(40, 2)
    rows = [Preference(prompt=g.prompt, chosen=g.response, rejected=b.response + " No.") for g, b in zip(good, bad)]
    return Dataset(tuple(rows))
