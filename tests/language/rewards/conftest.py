"""Tiny backbones of reward models, as folders on disk: decoders and encoders made from configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from paperworks.language.testbeds.reviews import generate_reviews

VOCABULARY = 300
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}

DECODERS: dict[str, Callable[[int], Any]] = {
    "llama": lambda v: transformers.LlamaConfig(
        vocab_size=v, num_key_value_heads=2, max_position_embeddings=256, **SMALL
    ),
    "gpt2": lambda v: transformers.GPT2Config(vocab_size=v, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "bloom": lambda v: transformers.BloomConfig(vocab_size=v, hidden_size=32, n_layer=2, n_head=4),  # padded path
}
ENCODERS: dict[str, tuple[str, Callable[[], torch.nn.Module]]] = {
    "bert": (
        "bert",
        lambda: transformers.BertForMaskedLM(
            transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=128, **SMALL)
        ),
    ),
    "distilbert": (
        "bert",
        lambda: transformers.DistilBertForMaskedLM(
            transformers.DistilBertConfig(
                vocab_size=VOCABULARY, max_position_embeddings=128, dim=32, n_layers=2, n_heads=4, hidden_dim=48
            )
        ),
    ),
    "roberta": (
        "roberta",
        lambda: transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(
                vocab_size=VOCABULARY, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1, **SMALL
            )
        ),
    ),
}
BACKBONES = [*DECODERS, *ENCODERS]


def pair_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that joins two texts as BERT does, with token types, or as RoBERTa does."""
    is_bert = kind == "bert"
    start, end, pad, unknown = ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if is_bert else ("<s>", "</s>", "<pad>", "<unk>")
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [pad, start, end, unknown] if is_bert else [start, pad, end, unknown]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([p + " " + r for p, r in generate_reviews(300, 0)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1" if is_bert else f"{start} $A {end} {end} $B {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=start,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        model_input_names=["input_ids", "attention_mask"] + ["token_type_ids"] * is_bert,
    )


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """`backbone(name)` is the folder of a language model, made on first use, that a reward model may start from."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            if name in DECODERS:
                AutoModelForCausalLM.from_config(DECODERS[name](len(tokenizer))).save_pretrained(made[name])
                tokenizer.save_pretrained(made[name])
            else:
                kind, make = ENCODERS[name]
                make().save_pretrained(made[name])
                pair_tokenizer(kind).save_pretrained(made[name])
        return made[name]

    return folder
