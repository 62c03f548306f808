"""The model card: front matter that the Hub parses, what was done in words, nothing of the maker's disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from paperworks.language.model_card import write_card
from paperworks.language.objectives import objective_class
from paperworks.language.policy import LoraOptions
from paperworks.language.train_job import DataSource, TrainJob
from paperworks.language.training import TrainOptions, TrainResult


def result(**held_out: float) -> TrainResult:
    return TrainResult(
        steps=7, first={}, final={}, held_out=held_out, history=[], best_step=5, seconds=1.0, warnings=[], notes=[],
        training_rows=9, held_out_rows=2, held_out_values={},
    )  # fmt: skip


def card(
    folder: Path, *, config: str = "config.json", values: Any = None, model: str = "owner/name", **more: Any
) -> ModelCard:
    (folder / config).write_text(json.dumps(values or {}))
    job = TrainJob(objective_class("dpo")(beta=0.25), model, DataSource("/mnt/me/secret/rows.jsonl"), **more)
    write_card(folder, job, result(step=5, loss=0.5, accuracy=0.75), "0123456789abcdef" * 4)
    return ModelCard.load(folder / "README.md")


def test_the_front_matter_and_the_words(tmp_path: Path) -> None:
    made = card(tmp_path, training=TrainOptions(seed=11))
    assert made.data.to_dict() == {
        "library_name": "transformers", "base_model": "owner/name", "pipeline_tag": "text-generation",
        "tags": ["paperworks", "dpo"],
    }  # fmt: skip
    for words in (
        "7 optimiser steps",
        "step 5",
        "beta: 0.25",
        "seed: 11",
        "rows.jsonl",
        "0123456789abcdef",
        "| accuracy | 0.7500 |",
    ):
        assert words in made.text
    assert "| step |" not in made.text and "/mnt/me" not in made.content


def test_a_local_base_model_is_not_claimed_to_be_on_the_hub(tmp_path: Path) -> None:
    base = tmp_path / "my" / "base"
    base.mkdir(parents=True)
    made = card(tmp_path, model=str(base))
    assert made.data.base_model is None
    assert "# base trained with dpo" in made.text and str(tmp_path) not in made.content


@pytest.mark.parametrize(
    ("config", "values", "library", "loader"),
    [
        ("config.json", {}, "transformers", "AutoModelForCausalLM"),
        ("config.json", {"is_encoder_decoder": True}, "transformers", "AutoModelForSeq2SeqLM"),
        ("adapter_config.json", {"task_type": "CAUSAL_LM"}, "peft", "AutoPeftModelForCausalLM"),
        ("adapter_config.json", {"task_type": "SEQ_2_SEQ_LM"}, "peft", "AutoPeftModelForSeq2SeqLM"),
    ],
)
def test_how_to_load_it(config: str, values: Any, library: str, loader: str, tmp_path: Path) -> None:
    made = card(tmp_path, config=config, values=values, lora=LoraOptions())
    assert made.data.library_name == library
    assert f"from {library} import {loader}\nmodel = {loader}.from_pretrained(FOLDER)" in made.text


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    job = TrainJob(objective_class("sft")(), "tiny", DataSource("rows.jsonl"))
    write_card(tmp_path, job, result(), "f" * 64)
    assert "No rows were held out." in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("model", ["own/na: me", "own/'quoted'", "own/#hash", "own/-dash", "own/ünïcode", 'own/"two"'])
def test_names_that_yaml_finds_hard_survive(model: str, tmp_path: Path) -> None:
    write_card(tmp_path, TrainJob(objective_class("dpo")(), model, DataSource("a: b.jsonl")), result(), "f" * 64)
    import yaml

    front = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front)["base_model"] == model
