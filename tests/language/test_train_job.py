"""A job and its run.yaml say the same; what several processes need; what a failed start leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.core.errors import DataError, ModelError, OptionError, RunError
from paperworks.core.options import load_yaml, to_yaml
from paperworks.core.runs import RunStore
from paperworks.language.objectives import objective_class
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.train_job import DataSource, TrainJob, job_from_config, train_job
from paperworks.language.training import TrainOptions

OBJECTIVES = ("dpo", "cdpo", "rdpo", "ipo", "slic", "simpo", "kto", "orpo", "rpo", "ln-dpo", "sft")


@pytest.fixture
def job(small_policy: Policy, pairs: Any, tmp_path: Path) -> TrainJob:
    """Two steps on rows in a file."""
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected} for row in pairs.rows[:10]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = TrainOptions(steps=2, batch_size=4, learning_rate=1e-3, save_every=1)
    return TrainJob(
        objective_class("dpo")(), str(small_policy.save(tmp_path / "small")), DataSource(str(data)), training
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_survives_its_run_yaml(name: str, tmp_path: Path) -> None:
    job = TrainJob(
        objective_class(name)(),
        "tiny",
        DataSource("rows.jsonl", mapping={"prompt": "question"}),
        lora=LoraOptions(rank=3),
    )
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(job.config()))
    assert job_from_config(load_yaml(path)) == job


@given(
    learning_rate=st.floats(1e-12, 1e3),
    seed=st.integers(0, 2**31),
    held_out=st.floats(0, 1000),
    model=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=30),
)
def test_numbers_and_names_survive_yaml_exactly(learning_rate: float, seed: int, held_out: float, model: str) -> None:
    training = TrainOptions(learning_rate=learning_rate, seed=seed)
    job = TrainJob(objective_class("dpo")(beta=learning_rate), model, DataSource(model), training, held_out=held_out)
    import yaml

    assert job_from_config(yaml.safe_load(to_yaml(job.config()))) == job


@pytest.mark.parametrize("missing", ["objective", "model", "data"])
def test_a_configuration_lacks_nothing_that_decides(missing: str) -> None:
    values = {"objective": "dpo", "model": "tiny", "data": "rows.jsonl"}
    del values[missing]
    with pytest.raises(OptionError, match=f"names no {missing}"):
        job_from_config(values)


def test_the_job_leaves_a_run_that_the_index_knows(job: TrainJob, tmp_path: Path) -> None:
    result, folder = train_job(job, tmp_path / "out")
    record = RunStore().get(folder)
    assert (record.verb, record.name, record.status) == ("train", "dpo", "finished")
    assert [line["step"] for line in record.metrics()] == [1, 2]
    assert record.results()["final"]["loss"] == result.final["loss"]
    assert record.results()["data"]["fingerprint"] == job.data.read(job.objective.schema).fingerprint


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "nowhere/at/all"}, ModelError),
        ({"data": DataSource("nowhere.jsonl")}, DataError),
        ({"training": TrainOptions(max_length=2)}, DataError),
    ],
)
def test_a_start_that_fails_leaves_no_run(
    change: dict[str, Any], error: type[Exception], job: TrainJob, tmp_path: Path
) -> None:
    with pytest.raises(error):
        train_job(dataclasses.replace(job, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists() and RunStore().list() == []
    train_job(job, tmp_path / "out")


def test_overwriting_with_a_model_that_does_not_load_keeps_the_old_run(job: TrainJob, tmp_path: Path) -> None:
    _, folder = train_job(job, tmp_path / "out")
    with pytest.raises(ModelError):
        train_job(dataclasses.replace(job, model="nowhere/at/all"), folder, overwrite=True)
    assert (folder / "model" / "model.safetensors").is_file()
    assert RunStore().get(folder).status == "finished"


def test_several_processes_need_one_folder(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="give --out DIR"):
        train_job(job)


def test_resuming_with_other_settings_names_them(job: TrainJob, tmp_path: Path) -> None:
    train_job(job, tmp_path / "out")
    other = dataclasses.replace(job, lora=LoraOptions(rank=2), training=dataclasses.replace(job.training, seed=9))
    with pytest.raises(RunError, match=r"training\.seed was 0, now 9.*lora\.rank was not given, now 2"):
        train_job(other, tmp_path / "out", resume=True)
