"""`paperworks train`: how words become a job, before any model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paperworks.cli.main import main
from paperworks.cli.train_cmd import job_values, parse
from paperworks.core.errors import OptionError, RunError
from paperworks.language.train_job import TrainJob, job_from_config

WORDS = ["--model", "tiny", "--data", "rows.jsonl"]


def job(*words: object) -> TrainJob:
    return job_from_config(job_values(parse([str(word) for word in words])))


def test_words_become_a_job() -> None:
    made = job("rdpo", *WORDS, "--flip-rate", 0.2, "--batch-size", 32, "--learning-rate", "3e-6", "--held-out", 0.2)
    assert made.objective.name == "rdpo" and made.objective.flip_rate == 0.2
    assert (made.model, made.data.path, made.held_out, made.lora) == ("tiny", "rows.jsonl", 0.2, None)
    assert (made.training.batch_size, made.training.learning_rate) == (32, 3e-6)


def test_lora_is_off_until_asked_for() -> None:
    made = job("dpo", *WORDS, "--lora", "--lora-targets", "q_proj,v_proj").lora
    assert made is not None and (made.rank, made.alpha, made.targets) == (16, 32.0, "q_proj,v_proj")
    with pytest.raises(OptionError, match="--lora-alpha goes with --lora"):
        job("dpo", *WORDS, "--lora-alpha", 8)


def test_columns_are_mapped_one_by_one() -> None:
    made = job("dpo", *WORDS, "--map", "prompt=question", "--map", "chosen=best.text")
    assert made.data.mapping == {"prompt": "question", "chosen": "best.text"}


def test_an_objective_offers_its_own_options_alone() -> None:
    assert parse(["rdpo", *WORDS, "--flip-rate", "0.1"]).flip_rate == 0.1
    with pytest.raises(OptionError, match="unknown option --flip-rate"):
        parse(["ipo", *WORDS, "--flip-rate", "0.1"])


@pytest.mark.parametrize("words", [["--help"], ["dpo", "--help"], ["rpo", "-h"]])
def test_help_lists_what_there_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 0
    shown = capsys.readouterr().out
    assert "--model" in shown and "--resume" in shown
    assert ("ln-dpo" in shown) if words == ["--help"] else ("--beta" in shown or "--eta" in shown)


def test_without_an_objective_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *WORDS]) == 2
    line = capsys.readouterr().err
    assert all(name in line for name in ("dpo", "kto", "ln-dpo", "sft"))


@pytest.mark.parametrize("option", ["--config", "--out", "--objective-file"])
def test_an_option_without_its_value_is_one_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dpo", *WORDS, option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line and "expected one argument" in line


def test_resume_and_overwrite_exclude_each_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path / "run.yaml", {"objective": "dpo", "model": "tiny", "data": "rows.jsonl"})
    assert main(["train", "dpo", "--out", str(tmp_path), "--resume", "--overwrite"]) == 2
    assert "not allowed with" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- configuration


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    values = {
        "objective": "rdpo", "options": {"beta": 0.5, "flip_rate": 0.3}, "model": "tiny",
        "data": {"path": "a.jsonl", "limit": 9}, "training": {"batch_size": 8, "seed": 4}, "lora": {"rank": 4}, "held_out": 3,
    }  # fmt: skip
    return write(tmp_path / "run.yaml", values)


def test_a_configuration_is_a_whole_job(config: Path) -> None:
    made = job("--config", config)
    assert made == job("rdpo", "--config", config)
    assert (made.objective.beta, made.objective.flip_rate) == (0.5, 0.3)
    assert (made.data.path, made.data.limit, made.training.batch_size, made.held_out) == ("a.jsonl", 9, 8, 3.0)
    assert made.lora is not None and made.lora.rank == 4


def test_the_command_line_stands_above_the_configuration(config: Path) -> None:
    made = job("--config", config, "--beta", 0.2, "--seed", 7, "--data", "b.jsonl", "--lora-rank", 2)
    assert (made.objective.beta, made.objective.flip_rate) == (0.2, 0.3)
    assert (made.training.seed, made.training.batch_size) == (7, 8)
    assert (made.data.path, made.data.limit) == ("b.jsonl", 9)
    assert made.lora is not None and made.lora.rank == 2


def test_another_objective_leaves_the_options_of_the_first(config: Path) -> None:
    made = job("dpo", "--config", config)
    assert made.objective.name == "dpo" and made.objective.beta != 0.5
    assert made.training.batch_size == 8


def test_a_data_source_may_be_just_a_path(tmp_path: Path) -> None:
    made = job("--config", write(tmp_path / "short.yaml", {"objective": "sft", "model": "tiny", "data": "rows.csv"}))
    assert made.data.path == "rows.csv"


@pytest.mark.parametrize("section", ["options", "training", "lora"])
def test_a_section_of_the_wrong_kind_is_named(section: str, tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.yaml", {"objective": "dpo", section: 3})
    with pytest.raises(OptionError, match=rf"wrong.yaml: {section}: expected names and values below it, found 3"):
        parse(["--config", str(path)])


def test_resume_takes_the_options_of_the_folder(config: Path) -> None:
    made = job("--resume", "--out", config.parent)
    assert made == job("rdpo", "--config", config)
    assert job("rdpo", "--resume", "--out", config.parent) == made


def test_resume_of_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to resume there"):
        parse(["dpo", "--resume", "--out", str(tmp_path)])
