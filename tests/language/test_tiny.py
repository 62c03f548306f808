"""The tiny models read any text, are fixed by their spec, learn what they are given, and are trained once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperworks.language import tiny
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.evaluation import perplexity
from paperworks.language.policy import Policy
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, ensure_tiny, fresh_policy, train_tiny

TOKENIZER = tiny.byte_level_tokenizer(["The film was dull.", "The plot was good."], 300)
SMALL = TinySpec(layers=1, width=32, heads=2, vocabulary=320, context=64, texts=64, epochs=2.0, batch_size=16)


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_tokenizer_reads_any_text(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids) == text


def test_the_vocabulary_is_no_larger_than_asked_and_has_its_ends() -> None:
    assert len(TOKENIZER) <= 300
    assert TOKENIZER.eos_token == "<end>" and TOKENIZER.pad_token == "<pad>"
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id


def test_fresh_weights_are_fixed_by_the_seed_and_leave_random_numbers_alone(tokenizer: Any) -> None:
    before = torch.get_rng_state()
    first, again = (fresh_policy(SMALL, tokenizer).content_hash() for _ in range(2))
    other = fresh_policy(dataclasses.replace(SMALL, seed=1), tokenizer).content_hash()
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_training_fits_the_texts() -> None:
    reviews = [(review.prompt, review.response) for review in generate_reviews(64, 0)]
    unseen = Dataset(tuple(Demonstration(r.prompt, r.response) for r in generate_reviews(20, 1)))
    policy = train_tiny(reviews, SMALL)
    start = fresh_policy(SMALL, policy.tokenizer)  # type: ignore[arg-type]
    assert perplexity(policy, unseen).interval.mean < 0.7 * perplexity(start, unseen).interval.mean


def test_a_tiny_model_is_trained_once_and_then_found(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_tiny(SMALL)
    trained = Policy.load(folder, device="cpu").content_hash()

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(tiny, "train_tiny", refuse)
    assert ensure_tiny(SMALL) == folder
    assert Policy.load(folder, device="cpu").content_hash() == trained
    with pytest.raises(AssertionError, match="trained again"):
        ensure_tiny(dataclasses.replace(SMALL, seed=1))
