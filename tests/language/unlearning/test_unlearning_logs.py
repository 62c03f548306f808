"""Logs: ours and TOFU's, read back to the same numbers; logs that cannot be compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import RunError
from paperworks.language.policy import Policy
from paperworks.language.unlearning.logs import FILE_NAME, log_of, read_log, retain_only_set, write_log
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning

QUICK = UnlearningOptions(max_new_tokens=4)


def tofu_log(count: int = 3) -> dict[str, Any]:
    """A log as TOFU's evaluation writes it (indices are strings in JSON)."""
    each = [str(number) for number in range(count)]
    return {
        "avg_gt_loss": {i: 2.0 + 0.1 * int(i) for i in each},
        "gt_loss": {i: 20.0 + int(i) for i in each},
        "num_token_gt": dict.fromkeys(each, 10),
        "rouge1_recall": dict.fromkeys(each, 0.6),
        "rougeL_recall": dict.fromkeys(each, 0.5),
        "avg_paraphrased_loss": dict.fromkeys(each, 1.9),
        "average_perturb_loss": {i: [2.0, 2.5, 3.0, 2.5, 2.0] for i in each},
        "truth_ratio": dict.fromkeys(each, 0.606531),
        "generated_text": {i: ["[INST] Who? [/INST]", "A baker.", " A pilot baker."] for i in each},
    }


def as_lists(log: dict[str, Any]) -> dict[str, Any]:
    return {key: list(column.values()) for key, column in log.items()}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any, str], Path]:
    def to(content: Any, name: str = "eval_log_forget.json") -> Path:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / name

    return to


@pytest.fixture
def report(small_policy: Policy, sets: UnlearningSets) -> UnlearningReport:
    return evaluate_unlearning(small_policy, sets, QUICK)


@pytest.mark.parametrize("form", [lambda log: log, as_lists])
def test_tofus_log_gives_its_own_numbers(write: Any, form: Any) -> None:
    log = read_log(write(form(tofu_log())))
    outcome = log.report(log)
    assert outcome.forget.mean("probability") == pytest.approx(sum(math.exp(-x) for x in (2.0, 2.1, 2.2)) / 3)
    assert outcome.forget.mean("rouge") == 0.5
    assert outcome.forget.mean("truth_ratio") == pytest.approx(0.606531, abs=5e-7)
    assert outcome.values["forget_quality"] == 1.0
    assert outcome.forget.items[0].generated == "A baker."


def test_tofus_aggregated_log_gives_utility(write: Any) -> None:
    names = ("eval_log_forget", "eval_log", "eval_real_author_wo_options", "eval_real_world_wo_options")
    path = write({f"{name}.json": tofu_log() for name in names}, "eval_log_aggregated.json")
    log = read_log(path.parent)
    wrong = sum(math.exp(-loss) for loss in (2.0, 2.5, 3.0, 2.5, 2.0))
    true = [math.exp(-loss) for loss in (2.0, 2.1, 2.2)]
    parts = log.report().utility_parts
    assert parts["world_facts_probability"] == pytest.approx(sum(each / (each + wrong) for each in true) / 3)
    assert parts["retain_truth_ratio"] == pytest.approx(1 - 0.606531, abs=5e-7)
    assert len(parts) == 9


def test_our_log_gives_the_report_again(report: UnlearningReport, tmp_path: Path) -> None:
    write_log(report, tmp_path / FILE_NAME)
    again = read_log(tmp_path)
    assert again.model == report.model
    assert again.report().values == report.values


def test_our_log_holds_no_texts(report: UnlearningReport, tmp_path: Path) -> None:
    assert "baker" not in write_log(report, tmp_path / FILE_NAME).read_text()


def test_questions_are_matched_by_content(report: UnlearningReport) -> None:
    keys = [report.forget.items[i].key for i in (3, 0)]
    matched = retain_only_set(log_of(report), keys)
    assert matched.items == (report.forget.items[3], report.forget.items[0])


def test_a_log_of_other_questions_is_refused(
    small_policy: Policy, report: UnlearningReport, questions: Any, write: Any
) -> None:
    other = UnlearningSets(questions(4, 3))  # two of the four are in the log
    with pytest.raises(RunError, match="lacks 2 of the 4 questions here"):
        evaluate_unlearning(small_policy, other, QUICK, retain_log=log_of(report))
    with pytest.raises(RunError, match=r"has 3 questions, here are 4; give --limit 3 where"):
        evaluate_unlearning(small_policy, other, QUICK, retain_log=read_log(write(tofu_log())))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", "damaged, expected JSON"),
        ([1, 2], "not a log of an unlearning evaluation"),
        ({"a": 1}, "not a log of an unlearning evaluation"),
        ({**tofu_log(), "avg_gt_loss": {"0": 1.0}}, "avg_gt_loss has 1 questions"),
        ({**tofu_log(), "avg_paraphrased_loss": 3}, "neither a list nor a mapping"),
        ({**tofu_log(1), "average_perturb_loss": {"0": []}}, "question 1 has no perturbed answers"),
        ({**tofu_log(1), "avg_gt_loss": {"0": None}}, "damaged"),
        ({**tofu_log(1), "avg_gt_loss": {"0": float("nan")}}, "no finite number"),
        (tofu_log(0), "the forget set is empty"),
        ({k: v for k, v in tofu_log().items() if k != "avg_gt_loss"}, "avg_gt_loss missing"),
        ({"format": "paperworks unlearning log, version 9"}, "another version"),
        ({"format": "paperworks unlearning log, version 1", "model": "m"}, "a damaged log"),
        (
            {"format": "paperworks unlearning log, version 1", "model": "m", "sets": {"forget": {"averaging": "geometric",
             "items": [{"nll": None, "paraphrased_nll": 1.0, "perturbed_nll": [1.0]}]}}},
            "no finite number",
        ),
        ({"eval_log.json": tofu_log()}, "has no forget set"),
    ],
)  # fmt: skip
def test_unreadable_logs_cost_one_line(write: Any, content: Any, message: str) -> None:
    with pytest.raises(RunError) as error:
        retain_only_set(read_log(write(content)), ["", "", ""])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_where_there_is_no_log_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            RunError, match="paperworks evaluate unlearning --model RETAIN_ONLY --forget FILE --out DIR"
        ):
            read_log(place)


def test_of_several_logs_in_a_folder_one_must_be_named(report: UnlearningReport, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_log(report, tmp_path / "a" / FILE_NAME)
    assert read_log(tmp_path).model == report.model
    (tmp_path / "b").mkdir()
    write_log(report, tmp_path / "b" / FILE_NAME)
    with pytest.raises(RunError, match="has the logs of 2 models; name the retain-only one's folder"):
        read_log(tmp_path)
