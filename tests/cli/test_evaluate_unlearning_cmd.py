"""`paperworks evaluate unlearning`: table, logs, report; mistakes cost one line and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.cli import evaluate_unlearning_cmd
from paperworks.core.errors import PaperworksError
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)


def rows(count: int, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Who is person {first + number}?",
            "answer": " A baker.",
            "paraphrased_answer": " One who bakes.",
            "perturbed_answer": [" A pilot.", f" A judge number {number}."],
            **more,
        }
        for number in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three models that differ in their random weights."""
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models")
    specs = {
        name: TinySpec(layers=1, width=32, heads=2, context=96, seed=seed)
        for name, seed in (("a", 1), ("b", 2), ("c", 3))
    }
    saved = [fresh_policy(spec, tokenizer).save(folder / name) for name, spec in specs.items()]
    return saved[0], saved[1], saved[2]


@pytest.fixture
def forget(tmp_path: Path) -> Path:
    return write(tmp_path / "forget.jsonl", rows(22))


@pytest.fixture
def retain(tmp_path: Path) -> Path:
    return write(tmp_path / "retain.jsonl", rows(4, 100))


def evaluate(*words: object) -> int:
    arguments = ["--device", "cpu", "--max-new-tokens", "3", "--quiet", *map(str, words)]
    return evaluate_unlearning_cmd.run(evaluate_unlearning_cmd.parse(arguments))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The JSON object that a run prints."""

    def run(*words: object) -> Any:
        assert evaluate(*words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


def refused(*words: object) -> str:
    """The one line of a run that must end with exit code 2."""
    with pytest.raises(PaperworksError) as error:
        evaluate(*words)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_retain_only_run_is_what_forget_quality_is_measured_against(
    printed: Any, models: tuple[Path, Path, Path], forget: Path, retain: Path, tmp_path: Path
) -> None:
    first = printed("--model", models[1], "--forget", forget, "--retain", retain, "--out", tmp_path / "only")
    assert first["models"][0]["forget_quality"] is None
    assert "no forget quality without a retain-only model's log; make one" in first["notes"][0]
    words = ("--forget", forget, "--retain", retain, "--retain-log", tmp_path / "only")
    found = printed("--model", models[0], *words)
    assert 0 < found["models"][0]["forget_quality"]["p"] < 1
    assert found["retain_only"]["model"] == str(models[1])
    same = printed("--model", models[1], *words)
    assert same["models"][0]["forget_quality"]["p"] == 1.0


def test_the_retain_only_model_itself_gives_the_same_as_its_log(
    printed: Any, models: tuple[Path, Path, Path], forget: Path, tmp_path: Path
) -> None:
    printed("--model", models[1], "--forget", forget, "--out", tmp_path / "only")
    by_log = printed(
        "--model", models[0], "--forget", forget, "--retain-log", tmp_path / "only" / "unlearning-log.json"
    )
    by_model = printed("--model", models[0], "--forget", forget, "--retain-model", models[1])
    assert by_model["models"] == by_log["models"]


def test_the_folder_holds_the_evidence(
    models: tuple[Path, Path, Path], forget: Path, retain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--model", *models[:2], "--forget", forget, "--retain", retain, "--retain-model", models[2])
    assert evaluate(*words, "--out", out) == 0
    text = capsys.readouterr().out
    assert "forget quality (p)" in text
    assert "(retain-only)" in text
    results = json.loads((out / "results.json").read_text())
    assert [each["model"] for each in results["models"]] == [str(model) for model in models[:2]]
    logs = sorted(path.parent.name for path in out.glob("*/unlearning-log.json"))
    assert len(logs) == 3
    assert "retain-only" in logs
    items = [json.loads(line) for line in (out / "retain-only" / "items.jsonl").read_text().splitlines()]
    assert len(items) == 26
    assert {"set", "question", "generated", "log_s", "rouge", "nll"} <= set(items[0])
    report = (out / "report.html").read_text()
    assert "Who is person 0?" in report
    assert "<svg" in report
    assert (out / "figures" / "plane.svg").is_file()


def test_a_run_is_repeated_from_its_configuration(
    printed: Any, models: tuple[Path, Path, Path], forget: Path, tmp_path: Path
) -> None:
    first = printed("--model", models[0], "--forget", forget, "--limit", 5, "--no-rouge", "--out", tmp_path / "out")
    again = printed("--config", tmp_path / "out" / "run.yaml")
    assert again == first
    assert first["models"][0]["sets"]["forget"]["items"] == 5
    assert "rouge" not in first["models"][0]["sets"]["forget"]


def test_columns_may_have_other_names(printed: Any, models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    named = [{"q": row.pop("question"), "a": row.pop("answer"), **row} for row in rows(3)]
    path = write(tmp_path / "named.jsonl", named)
    found = printed("--model", models[0], "--forget", path, "--map", "prompt=q", "--map", "answer=a")
    assert found["models"][0]["sets"]["forget"]["items"] == 3


# ------------------------------------------------------------------------------------------------------------- bad input


def test_without_model_or_forget_set_it_says_what_to_give(models: tuple[Path, Path, Path], forget: Path) -> None:
    assert "--model" in refused("--forget", forget)
    assert "--forget FILE" in refused("--model", models[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows(1, perturbed_answer=[]), "forget.jsonl:1: field 'perturbed_answer': missing"),
        ([{"question": "Who?", "answer": " A baker."}], "field 'perturbed_answer': missing"),
        (rows(1, perturbed_answer=[" A baker."]), "the perturbed answer ' A baker.' equals the true one"),
        ([{"question": "Who?"}], "field 'answer'"),
        ([], "0 rows; expected at least one"),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    models: tuple[Path, Path, Path], tmp_path: Path, content: list[dict[str, Any]], message: str
) -> None:
    assert message in refused("--model", models[0], "--forget", write(tmp_path / "forget.jsonl", content))


def test_forget_quality_that_was_asked_for_needs_a_retain_only_model(
    models: tuple[Path, Path, Path], forget: Path
) -> None:
    said = refused("--model", models[0], "--forget", forget, "--require-forget-quality")
    assert "paperworks evaluate unlearning --model RETAIN_ONLY --forget FILE --out DIR" in said


def test_a_log_that_does_not_fit_is_refused_before_a_model_is_loaded(forget: Path, tmp_path: Path) -> None:
    column = {"0": 1.0}
    log = {"avg_gt_loss": column, "avg_paraphrased_loss": column, "average_perturb_loss": {"0": [1.0]}}
    (tmp_path / "eval_log_forget.json").write_text(json.dumps(log))
    words = ("--model", "there-is-no-such-model", "--forget", forget, "--retain-log")
    assert "it has 1 questions, here are 22" in refused(*words, tmp_path / "eval_log_forget.json")
    (tmp_path / "broken.json").write_text("{")
    assert "damaged" in refused(*words, tmp_path / "broken.json")
    assert "no such file or folder" in refused(*words, tmp_path / "nowhere")


def test_a_model_named_twice_is_refused(models: tuple[Path, Path, Path], forget: Path) -> None:
    assert "named twice" in refused("--model", models[0], models[0], "--forget", forget)
