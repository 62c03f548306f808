"""The options of commands as JSON: `--describe` of each, and all of them in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paperworks.cli import describe as module
from paperworks.cli import train_acting, train_control, train_fronts, train_hybrid
from paperworks.cli.describe import describe, describe_all
from paperworks.cli.describe import main as describe_main
from paperworks.cli.main import main
from paperworks.core.errors import OptionError
from paperworks.language.objectives import objective_names
from paperworks.language.online.methods import METHODS


def flags(command: str) -> set[str]:
    return {option["flag"] for group in describe(command.split())["groups"] for option in group["options"]}


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("run", "--budget"),
        ("compare", "--sweep"),
        ("compare td3-bc", "--best-return"),
        ("train", "--data"),
        ("train rdpo", "--flip-rate"),
        ("train ppo", "--prompts"),
        ("train td3-bc", "--collect"),
        ("train sac", "--env"),
        ("train hnpg", "--horizon"),
        ("train c-morl", "--reference-point"),
    ],
)
def test_a_command_describes_its_own_options(command: str, own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--describe"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == describe(command.split())
    assert own in flags(command) and "--dry-run" in flags(command) and "--describe" not in flags(command)


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return describe_all()


def test_every_method_is_described(everything: dict[str, Any]) -> None:
    control = (
        *train_control.ALGORITHMS, *train_control.DISCRETE_ALGORITHMS, *train_control.SAFE_ALGORITHMS,
        *train_acting.ALGORITHMS, *train_hybrid.METHODS, *train_fronts.SEARCHES,
    )  # fmt: skip
    assert set(everything["methods"]) == {*objective_names(), *METHODS, *control}
    commands = {"run", "compare", "compare td3-bc", *(f"train {name}" for name in everything["methods"])}
    assert set(everything["commands"]) == commands
    assert not [name for name, each in everything["commands"].items() if "problem" in each]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rdpo", {"family": "rows", "trains": "policy", "schema": "preference"}),
        ("kto", {"family": "rows", "trains": "policy", "schema": "feedback"}),
        ("npo", {"family": "rows", "trains": "policy", "schema": "forget"}),
        ("ppo", {"family": "answers", "trains": "policy", "schema": "prompt"}),
        ("td3-bc", {"family": "log", "trains": "policy"}),
        ("hnpg", {"family": "environment", "trains": "policy"}),
        ("c-morl", {"family": "front", "trains": "front"}),
    ],
)
def test_methods_are_grouped_by_what_they_learn_from(
    everything: dict[str, Any], name: str, expected: dict[str, str]
) -> None:
    assert everything["methods"][name] == expected


def test_files_are_told_from_text(everything: dict[str, Any]) -> None:
    kinds = {
        option["flag"]: option["kind"]
        for name in ("train npo", "train ppo", "compare")
        for group in everything["commands"][name]["groups"]
        for option in group["options"]
    }
    files = ("--data", "--out", "--config", "--objective-file", "--forget", "--retain", "--prompts", "--eval-data",
             "--eval-prompts", "--chat-template", "--validation-prompts")  # fmt: skip
    assert {kinds[flag] for flag in files} == {"path"}


def test_a_command_that_needs_an_extra_is_a_problem_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OptionError("environments need gymnasium; install paperworks[control]")

    monkeypatch.setattr(train_fronts, "parse", refuse)
    assert describe(["train", "c-morl"]) == {"problem": "environments need gymnasium; install paperworks[control]"}


def test_the_module_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "describe_all", lambda: {"commands": {}, "methods": {}})
    assert describe_main([str(tmp_path / "options.json")]) == 0
    assert json.loads((tmp_path / "options.json").read_text()) == {"commands": {}, "methods": {}}
    assert describe_main([]) == 2 and "the file to write" in capsys.readouterr().err
    assert describe_main([str(tmp_path / "missing" / "options.json")]) == 2
