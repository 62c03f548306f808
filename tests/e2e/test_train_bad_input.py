"""Bad input to `paperworks train`: one line that says what, where and what to do; exit code 2; nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = {"prompt": "The film was", "chosen": " good.", "rejected": " bad."}


def file_of(path: Path, *lines: Any) -> Path:
    """A .jsonl file whose first line is a good row."""
    texts = [json.dumps(GOOD), *(line if isinstance(line, str) else json.dumps(line) for line in lines)]
    path.write_text("\n".join(texts) + "\n")
    return path


@pytest.fixture
def no_run(tmp_path: Path):
    """After the test: no run folder was left."""
    yield
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- the rows


@pytest.mark.usefixtures("no_run")
def test_a_missing_file_is_named(train: Any, tmp_path: Path) -> None:
    line = train(data=tmp_path / "nowhere.jsonl").refused()
    assert "nowhere.jsonl" in line and "no such file" in line


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ('{"prompt": "a", "chosen": ', "not JSON"),
        ("[1, 2]", "expected a JSON object"),
        ({"prompt": "a", "chosen": "b"}, "field 'rejected': missing"),
        ({**GOOD, "rejected": None}, "field 'rejected': empty"),
        ({**GOOD, "chosen": 7}, "field 'chosen'"),
        ({**GOOD, "weight": "heavy"}, "field 'weight'"),
        ({**GOOD, "chosen": GOOD["rejected"]}, "chosen equals rejected"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(bad: Any, expected: str, train: Any, tmp_path: Path) -> None:
    line = train(data=file_of(tmp_path / "bad.jsonl", bad)).refused()
    assert "bad.jsonl:2:" in line and expected in line


@pytest.mark.usefixtures("no_run")
def test_bytes_that_are_not_utf8_are_named_by_line(train: Any, tmp_path: Path) -> None:
    path = file_of(tmp_path / "latin.jsonl")
    path.write_bytes(path.read_bytes() + b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}\n')
    line = train(data=path).refused()
    assert "latin.jsonl:2:" in line and "UTF-8" in line


@pytest.mark.usefixtures("no_run")
def test_no_row_left_is_an_error(train: Any, tmp_path: Path) -> None:
    path = tmp_path / "all-bad.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n' * 3)
    assert "0 rows left, all 3 skipped" in train("dpo", "--bad-rows", "skip", data=path).refused()
    path.write_text("")
    assert "0 rows" in train(data=path).refused()


@pytest.mark.usefixtures("no_run")
def test_too_few_prompts_to_hold_any_out(train: Any, tmp_path: Path) -> None:
    line = train(data=file_of(tmp_path / "one.jsonl")).refused()
    assert "same prompt" in line


def test_a_prompt_longer_than_the_context_is_named(train: Any, tmp_path: Path) -> None:
    path = file_of(tmp_path / "long.jsonl", {**GOOD, "prompt": "good " * 400}, {**GOOD, "prompt": "It was"})
    line = train(data=path).refused()
    assert "long.jsonl:2: field 'prompt': the prompt has" in line
    assert "256" in line and "--long-prompts cut or skip" in line
    assert train("dpo", "--long-prompts", "skip", data=path).code == 0


# ---------------------------------------------------------------------------------------------------------- the options


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize(
    ("objective", "options", "expected"),
    [
        ("rdop", (), "did you mean 'rdpo'?"),
        ("dpo", ("--betta", "0.1"), "unknown option --betta (did you mean '--beta'?)"),
        ("dpo", ("--flip-rate", "0.1"), "unknown option --flip-rate"),
        ("rdpo", ("--flip-rate", "0.5"), "flip_rate"),
        ("dpo", ("--beta", "0"), "beta"),
        ("dpo", ("--beta", "-1"), "beta"),
        ("dpo", ("--beta", "nan"), "beta"),
        ("dpo", ("--beta", "much"), "--beta"),
        ("dpo", ("--batch-size", "0"), "batch_size"),
        ("dpo", ("--batch-size", "2.5"), "--batch-size"),
        ("dpo", ("--schedule", "cosin"), "'cosin'"),
        ("dpo", ("--held-out", "-1"), "cannot hold out -1"),
        ("dpo", ("--held-out", "nan"), "held_out: expected a number"),
        ("dpo", ("--limit", "0"), "limit"),
        ("dpo", ("--format", "chatt"), "did you mean 'chat'?"),
        ("dpo", ("--map", "promt=question"), "did you mean 'prompt'?"),
        ("dpo", ("--precision", "float23"), "float32"),
        ("dpo", ("--device", "cupboard"), "cupboard"),
        ("dpo", ("--lora-rank", "4"), "--lora-rank goes with --lora"),
        ("dpo", ("--lora", "--lora-rank", "0"), "rank"),
        ("dpo", ("--lora", "--lora-dropout", "1"), "dropout"),
        ("dpo", ("--config", "nowhere.yaml"), "nowhere.yaml: no such file"),
        ("dpo", ("--config",), "--config"),
        ("dpo", ("--eval-data", "nowhere.jsonl"), "nowhere.jsonl"),
        ("dpo", ("--objective-file", "nowhere.py"), "nowhere.py"),
        ("dpo", ("--chat-template", "nowhere.jinja"), "nowhere.jinja"),
    ],
)
def test_a_wrong_option_is_named(objective: str, options: tuple[str, ...], expected: str, train: Any) -> None:
    assert expected in train(objective, *options).refused()


def test_what_is_not_given_is_asked_for(command: Any, small_model: Path, preferences: Path) -> None:
    assert "name an objective" in command("train").refused()
    assert "--model" in command("train", "dpo", "--data", preferences).refused()
    assert "--data" in command("train", "dpo", "--model", small_model).refused()


def test_a_configuration_with_a_wrong_name_is_refused(train: Any, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("training: {batchsize: 3}\n")
    assert "did you mean 'batch_size'?" in train("dpo", "--config", config).refused()
    config.write_text("precison: bfloat16\n")
    assert "did you mean 'precision'?" in train("dpo", "--config", config).refused()
    config.write_text("training: 3\n")
    assert "training" in train("dpo", "--config", config).refused()
    config.write_text("training: {seed: [1\n")
    assert "my.yaml:" in train("dpo", "--config", config).refused()


# ------------------------------------------------------------------------------------------------------------ the model


def test_a_tokenizer_without_a_pad_token_serves(train: Any, small_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = shutil.copytree(small_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(model)
    assert AutoTokenizer.from_pretrained(model).pad_token is None
    assert train(model=model).code == 0


@pytest.fixture
def without_template(small_model: Path, tmp_path: Path) -> Path:
    from transformers import AutoTokenizer

    model = shutil.copytree(small_model, tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert not tokenizer.chat_template
    return model


def test_messages_need_a_chat_template(without_template: Path, train: Any, tmp_path: Path) -> None:
    chats = [
        {
            "prompt": [{"role": "user", "content": f"Say {word}"}],
            "chosen": [{"role": "assistant", "content": word}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for word in ("one", "two", "three", "four")
    ]
    data = tmp_path / "chat.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in chats))
    line = train(model=without_template, data=data).refused()
    assert "chat.jsonl:" in line and "no chat template" in line and "--chat-template FILE" in line
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}")
    assert train("dpo", "--chat-template", template, model=without_template, data=data).code == 0


def cut_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def cut_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x10")


def bad_config(model: Path) -> None:
    (model / "config.json").write_text("{ not json")


def unknown_architecture(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "abacus"}')


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def only_pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()


def bad_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0"')


def other_shapes(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights, cut_header, bad_config, unknown_architecture, no_config, no_weights, only_pickled_weights, no_tokenizer,
        bad_tokenizer, other_shapes,
    ],
)  # fmt: skip
def test_a_damaged_model_folder_is_named(
    damage: Callable[[Path], None], train: Any, small_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(small_model, tmp_path / "model")
    damage(model)
    line = train(model=model).refused()
    assert str(model) in line and "damaged or incomplete" in line


@pytest.mark.usefixtures("no_run")
def test_a_model_that_is_not_there_is_said_to_be_so(train: Any, tmp_path: Path) -> None:
    assert "no model called 'tinny'" in train(model="tinny").refused()
    assert "no model folder at" in train(model=tmp_path / "nowhere").refused()
    (tmp_path / "weights.gguf").write_text("x")
    assert "is a file" in train(model=tmp_path / "weights.gguf").refused()


# ------------------------------------------------------------------------------------------------------- the out folder


def test_a_folder_with_something_in_it_is_left_alone(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "--overwrite" in train().refused()
    assert "not a run's folder" in train("dpo", "--overwrite").refused()
    assert (out / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_finished_run_is_replaced_only_with_overwrite(train: Any, tmp_path: Path) -> None:
    assert train().code == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    line = train("dpo", "--seed", 1).refused()
    assert "--resume" in line and "--overwrite" in line
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert train("dpo", "--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "out" / "results.json").read_bytes() != before


def test_out_may_not_be_a_file(train: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    assert "is a file" in train().refused()
    assert "under" in train("dpo", "--out", tmp_path / "out" / "under").refused()
