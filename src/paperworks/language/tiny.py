"""Tiny language models trained here: `--model tiny` and the models of small experiments.

A byte-level BPE tokenizer and a Llama of a few layers, trained on generated reviews in under a minute and cached. They
read any text; they have learnt only reviews.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from paperworks.core.files import cache_dir, file_lock
from paperworks.core.options import to_mapping
from paperworks.core.seeding import derive_seed
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.objectives.sft import SFT
from paperworks.language.policy import Policy
from paperworks.language.training import TrainOptions, train

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class TinySpec:
    """Size and training of a tiny model."""

    layers: int = 4
    width: int = 160
    heads: int = 4
    vocabulary: int = 1024
    context: int = 512
    texts: int = 6000
    epochs: float = 2.0
    batch_size: int = 64
    learning_rate: float = 3e-3
    seed: int = 0


def byte_level_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens learnt from `texts`; it encodes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def fresh_policy(spec: TinySpec, tokenizer: PreTrainedTokenizerFast, *, name: str = "tiny") -> Policy:
    """A policy of the spec's size with random weights, fixed by the spec's seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=int(spec.width * 8 / 3 / 16) * 16,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(spec.seed, "weights"))
        model = LlamaForCausalLM(config)
    tokenizer.model_max_length = spec.context
    return Policy(model.eval(), tokenizer, name=name)


def train_tiny(
    reviews: Sequence[tuple[str, str]],
    spec: TinySpec,
    *,
    name: str = "tiny",
    on_step: Callable[[int, int, object], None] | None = None,
) -> Policy:
    """A tiny policy fitted to (prompt, response) texts by maximum likelihood of the responses and the prompts alike."""
    tokenizer = byte_level_tokenizer([prompt + response for prompt, response in reviews], spec.vocabulary)
    policy = fresh_policy(spec, tokenizer, name=name)
    rows = [Demonstration(prompt=prompt, response=response) for prompt, response in reviews]
    options = TrainOptions(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        micro_batch=spec.batch_size,
        learning_rate=spec.learning_rate,
        warmup=0.05,
        seed=spec.seed,
        select="last",
    )
    train(policy, SFT(), Dataset(tuple(rows)), options, on_step=on_step)
    return policy


def ensure_tiny(spec: TinySpec = TinySpec()) -> Path:
    """Folder of the tiny model of this spec, trained on first use and cached."""
    key = hashlib.sha256(repr(to_mapping(spec)).encode()).hexdigest()[:10]
    folder = cache_dir("models") / f"tiny-{key}"
    with file_lock(cache_dir("models") / f"tiny-{key}.lock"):
        if not (folder / "config.json").is_file():
            from paperworks.core.progress import Progress
            from paperworks.language.testbeds.reviews import generate_reviews

            with Progress() as shown:
                bar = shown.bar("training the tiny model (once)", 1.0)
                policy = train_tiny(
                    generate_reviews(spec.texts, spec.seed, clauses=(1, 4)),
                    spec,
                    on_step=lambda done, total, _: bar.update(done / total),
                )
                bar.finish()
            policy.save(folder)
    return folder
