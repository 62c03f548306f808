"""What `paperworks train` saves is an ordinary model: plain transformers and PEFT load it and give the same scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

LORA = ("--lora", "--lora-rank", 2)


@pytest.fixture(scope="session")
def small_t5(review_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random encoder-decoder model."""
    torch.manual_seed(0)
    tokenizer = review_tokenizer
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, decoder_start_token_id=0,
        dropout_rate=0.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "t5"
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain_score(model: Any, prompt: list[int], response: list[int]) -> float:
    """Log-probability of the response, computed without any of our code."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            logits = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([response])).logits[0]
        else:
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum().item()


def our_score(folder: Path, prompt: str, response: str) -> float:
    from paperworks.language.items import score
    from paperworks.language.logprobs import Tree
    from paperworks.language.policy import Policy

    policy = Policy.load(folder)
    tree = Tree(tuple(policy.encode_prompt(prompt)), (tuple(policy.encode_response(response)),))
    return score(policy, [tree])[0].item()


def trained_pair(
    outcome: Any, tmp_path: Path, base: Path, auto: Any, row: dict[str, Any]
) -> tuple[float, float, float]:
    """The scores of a row's chosen response: plain library on the saved folder, ours on it, and the base model's."""
    assert outcome.code == 0, outcome.err
    saved = tmp_path / "out" / "model"
    tokenizer = AutoTokenizer.from_pretrained(saved)
    end = [tokenizer.eos_token_id]
    is_seq2seq = json.loads((base / "config.json").read_text())["model_type"] == "t5"
    prompt = tokenizer(row["prompt"]).input_ids + (end if is_seq2seq else [])
    response = tokenizer(row["chosen"], add_special_tokens=False).input_ids + end
    plain = plain_score(auto.from_pretrained(saved).eval(), prompt, response)
    return (
        plain,
        our_score(tmp_path / "out", row["prompt"], row["chosen"]),
        our_score(base, row["prompt"], row["chosen"]),
    )


@pytest.mark.parametrize("objective", ["dpo", "sft"])
@pytest.mark.parametrize(("lora", "auto"), [((), AutoModelForCausalLM), (LORA, AutoPeftModelForCausalLM)])
def test_a_decoder_loads_with_plain_libraries(
    objective: str, lora: Any, auto: Any, train: Any, small_model: Path, rows: Any, tmp_path: Path
) -> None:
    outcome = train(objective, *lora, "--learning-rate", 0.01, "--select", "last")
    plain, ours, before = trained_pair(outcome, tmp_path, small_model, auto, rows[0])
    assert plain == pytest.approx(ours, abs=1e-4)
    assert abs(plain - before) > 0.1


@pytest.mark.parametrize("objective", ["dpo", "sft"])
@pytest.mark.parametrize(("lora", "auto"), [((), AutoModelForSeq2SeqLM), (LORA, AutoPeftModelForSeq2SeqLM)])
def test_an_encoder_decoder_trains_and_loads_with_plain_libraries(
    objective: str, lora: Any, auto: Any, train: Any, small_t5: Path, rows: Any, tmp_path: Path
) -> None:
    outcome = train(objective, *lora, "--learning-rate", 0.01, "--select", "last", model=small_t5)
    plain, ours, before = trained_pair(outcome, tmp_path, small_t5, auto, rows[0])
    assert plain == pytest.approx(ours, abs=1e-4)
    assert abs(plain - before) > 0.1


def test_nothing_saved_is_pickled(train: Any, tmp_path: Path) -> None:
    assert train("dpo", *LORA).code == 0
    endings = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".jsonl", ".yaml", ".md", ".html", ".svg", ".jinja"}


def test_a_saved_adapter_trains_on(train: Any, tmp_path: Path) -> None:
    assert train("sft", *LORA).code == 0
    first = tmp_path / "out" / "model"
    outcome = train("dpo", "--out", tmp_path / "second", model=tmp_path / "out")
    assert outcome.code == 0, outcome.err
    before, after = (
        load_file(folder / "adapter_model.safetensors") for folder in (first, tmp_path / "second" / "model")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (
        "carries adapters already" in train("dpo", *LORA, "--out", tmp_path / "third", model=tmp_path / "out").refused()
    )


@pytest.mark.parametrize(("lora", "library"), [((), "transformers"), (LORA, "peft")])
def test_the_model_card_is_one_that_the_hub_reads(lora: Any, library: str, train: Any, tmp_path: Path) -> None:
    assert train("rdpo", "--flip-rate", 0.25, *lora).code == 0
    card = ModelCard.load(tmp_path / "out" / "model" / "README.md")
    assert card.data.library_name == library
    assert card.data.pipeline_tag == "text-generation"
    assert {"paperworks", "rdpo"} <= set(card.data.tags)
    assert "flip_rate: 0.25" in card.text and "| accuracy |" in card.text
    assert str(tmp_path) not in card.content


def test_the_card_of_an_encoder_decoder_loads_it_as_one(train: Any, small_t5: Path, tmp_path: Path) -> None:
    assert train("dpo", *LORA, model=small_t5).code == 0
    card = ModelCard.load(tmp_path / "out" / "model" / "README.md")
    assert "AutoPeftModelForSeq2SeqLM.from_pretrained" in card.text
