"""report.html of a training run: made from the folder alone, whole by itself, and nothing in it is taken for markup."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperworks.core.errors import PaperworksError
from paperworks.language.train_report import write_report

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def folder(
    path: Path,
    *,
    name: str = "dpo",
    config: Mapping[str, Any] | None = None,
    steps: Mapping[str, float] | None = None,
    **more: Any,
) -> Path:
    """A run folder as training leaves it, every text of it `name` where that makes sense.

    `steps` are the measures of each of two steps, `config` joins run.yaml, what is left joins results.json.
    """
    entry = {"loss": 0.6, "accuracy": 0.7, "margin": 0.1}
    results = {
        "objective": name, "options": {"beta": 0.1, "text": name},
        "data": {"source": name, "schema": name, "warnings": [name]},
        "training_rows": 9, "held_out_rows": 2, "steps": 2, "best_step": 2, "seconds": 1.5,
        "held_out": {"step": 2, **entry}, "history": [{"step": 0, **entry, "loss": 0.7}, {"step": 2, **entry}],
        "warnings": [name], "notes": [name], "held_out_values": {"margin": [0.2, -0.1]}, **more,
    }  # fmt: skip
    path.mkdir(exist_ok=True)
    (path / "results.json").write_text(json.dumps(results))
    (path / "run.json").write_text(json.dumps({"wall_s": 2, "versions": {"torch": name}, "hardware": {"cpu": name}}))
    (path / "run.yaml").write_text(
        yaml.safe_dump(
            {"model": name, "lora": {"targets": name}, "training": {"seed": 3, "note": name}, **(config or {})}
        )
    )
    (path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, **(steps or entry), "grad_norm": 1.0}) + "\n" for n in (1, 2))
    )
    return path


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.seen.append((tag, dict(attributes)))


def test_a_name_full_of_markup_stays_a_name(tmp_path: Path) -> None:
    plain = Tags(write_report(folder(tmp_path / "plain")).read_text())
    text = write_report(folder(tmp_path / "hostile", name=HOSTILE)).read_text()
    hostile = Tags(text)
    assert [tag for tag, _ in hostile.seen] == [tag for tag, _ in plain.seen]
    assert not [
        tag for tag, attributes in hostile.seen if tag == "img" or any(name.startswith("on") for name in attributes)
    ]
    assert "&lt;script&gt;alert(" in text


def test_the_report_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path)).read_text()
    for tag, attributes in Tags(text).seen:
        assert tag not in ("link", "iframe", "object"), tag
        assert not re.match(r"(https?:)?//", attributes.get("src") or ""), attributes


def test_before_and_after_and_every_figure(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path)).read_text()
    assert "0.7000" in text and "0.6000" in text and "2 held-out rows; weights of step 2 of 2" in text
    assert drawn(tmp_path) == {"loss", "accuracy", "margin", "grad_norm", "margins"}


def drawn(path: Path) -> set[str]:
    return {figure.stem for figure in (path / "figures").iterdir()}


def test_a_warning_is_said_once(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, warnings=["collapse: it is"], notes=["warning: collapse: it is", "a note"]))
    assert text.read_text().count("collapse: it is") == 1 and "a note" in text.read_text()


def test_a_saved_model_that_is_the_untrained_one_is_called_that(tmp_path: Path) -> None:
    said = "saved is the untrained"
    assert said not in write_report(folder(tmp_path)).read_text()
    text = write_report(folder(tmp_path, best_step=0, held_out={"step": 0, "loss": 0.7})).read_text()
    assert said in text
    header = re.findall(r"<th[^>]*>([^<]*)</th>", text)
    assert header[:4] == ["measured", "before", "kept", "last"]


UNLEARNING = {"unlearning": {"eval_limit": 30, "keep_floor": 0.9, "retain": "keep.jsonl"}}
FORGETTING = {"loss": 1.0, "forget": 0.9, "kl": 0.1, "forget_nll": 90.0, "forget_nll_per_token": 3.0,
              "retain_nll_per_token": 1.0, "kl_per_token": 0.1, "adaptive_weight": 0.5}  # fmt: skip


def evaluation(step: int, utility: float, log10_p: float | None) -> dict[str, Any]:
    return {"step": step, "utility": utility, "log10_forget_quality": log10_p, "forget_nll": 3.0, "retain_rouge": 0.4}


def test_unlearning_shows_both_sides_and_why_it_stopped(tmp_path: Path) -> None:
    why = "model utility 0.1 fell below 0.5 of the 0.6 before training"
    history = [evaluation(0, 0.6, -20.0), evaluation(1, 0.5, -3.0), evaluation(2, 0.1, -9.0)]
    more = {"history": history, "held_out": history[1], "best_step": 1, "held_out_rows": 0, "held_out_values": {}}
    run = folder(
        tmp_path, config=UNLEARNING, steps=FORGETTING, stopped=why, notes=[f"stopped at step 2: {why}"], **more
    )
    text = write_report(run).read_text()
    assert "Stopped at step 2" in text and text.count(why) == 1
    assert "at most 30 questions of each set; weights of step 1 of 2" in text and "model utility" in text
    expected = {"plane", "utility", "forget-quality", "forget-loss", "retain-measures"}
    assert drawn(run) == expected | {"loss", "terms", "nll", "kl", "adaptive-weight", "grad_norm"}


def test_a_forget_quality_that_is_no_number_leaves_the_plane_out(tmp_path: Path) -> None:
    history = [evaluation(0, 0.6, None), evaluation(2, 0.5, None)]
    run = folder(tmp_path, config=UNLEARNING, steps=FORGETTING, history=history, held_out=history[1])
    write_report(run)
    assert "plane" not in drawn(run) and "utility" in drawn(run)


def test_unlearning_without_questions_says_how_to_measure(tmp_path: Path) -> None:
    run = folder(tmp_path, config=UNLEARNING, steps=FORGETTING, history=[], held_out={}, held_out_values={})
    assert "--eval-forget FILE" in write_report(run).read_text()


VALUE = {"mean_reward": 0.25, "kind": "attention", "mse": 0.01, "constant_mse": 0.02, "kept_epoch": 1, "epochs": 2,
         "prompts": 14, "held_out_prompts": 4, "mse_by_epoch": [0.02, 0.01]}  # fmt: skip


def test_scored_answers_show_the_value_and_keep_own_answers_apart(tmp_path: Path) -> None:
    preparation = {
        "reward": {"formula": "R = safety", "range": [0.0, 1.0]}, "value": VALUE, "rows": 40, "kept": 10,
        "positive_share": 0.25, "advantage_percentiles": {"5": -0.5, "95": 0.75},
    }  # fmt: skip
    line = {"loss": 1.0, "logp": -3.0, "reward": 0.3, "advantage": 0.1, "ratio": 1.0, "clipped": 0.0}
    history = [{"step": n, **line, "validation_reward": 0.8, "tokens": 7.0, "unfinished": 0.0} for n in (0, 2)]
    run = folder(
        tmp_path, config={"validation": {"reward": "sentiment"}}, steps=line, preparation=preparation,
        data={"source": "scored.jsonl", "schema": "scored", "warnings": []},
        history=history, held_out=history[1], held_out_values={"reward": [0.3]},
    )  # fmt: skip
    text = write_report(run).read_text()
    for said in ("R = safety", "10 of 40", "25.0%", "0.7500", "attention, epoch 1 of 2", "own answers: reward"):
        assert said in text, said
    assert not re.search(r"<td[^>]*>(advantage|reward)</td>", text)  # of the rows: no training changes them
    assert {"value-fit", "validation-reward", "validation-length", "reward", "advantage", "ratio"} <= drawn(run)


def test_degrees_show_the_ladders_and_what_guessing_gives(tmp_path: Path) -> None:
    built = {"responses": 10, "with_ladder": 8, "share": 0.8, "phrases": 6.25, "dropped_versions": 1,
             "words_by_degree": [30.0, 20.0, 12.5, 6.0]}  # fmt: skip
    line = {"loss": 1.0, "alignment": 0.9, "degree": 0.1, "degree_accuracy": 0.4, "degree_correlation": 0.7}
    run = folder(tmp_path, steps=line, preparation={"degrees": {"built": built, "rows_with_own_degrees": 3}})
    text = write_report(run).read_text()
    for said in ("8 of 10 (80.0%)", "12.5", "right in 25% of cases"):
        assert said in text, said
    assert {"terms", "degree-accuracy", "degree-correlation"} <= drawn(run)


def test_a_reward_model_shows_rewards_of_both_sides(tmp_path: Path) -> None:
    values = {"margin": [0.5, -0.5], "reward_chosen": [1.0, 0.0], "reward_rejected": [0.5, 0.5]}
    run = folder(tmp_path, held_out_values=values, steps={"loss": 0.6, "reward_chosen": 1.0, "reward_rejected": 0.0})
    write_report(run)
    assert {"reward", "rewards", "margins"} <= drawn(run)


def test_a_measure_of_ones_own_has_a_figure(tmp_path: Path) -> None:
    run = folder(tmp_path, steps={"loss": 0.6, "../my measure": 2.0})
    write_report(run)
    assert "measure--my-measure" in drawn(run)


def test_facts_that_no_section_knows_are_shown(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, preparation={"flip_rate": {"estimated": 0.125}})).read_text()
    assert "flip rate: estimated" in text and "0.125" in text


def test_without_held_out_rows_it_says_so(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, history=[], held_out={}, held_out_values={})).read_text()
    assert "No rows were held out" in text and not (tmp_path / "figures" / "margins.svg").exists()


def test_a_measure_that_was_not_a_number_is_a_dash(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, held_out={"step": 2, "loss": 0.6, "accuracy": None})).read_text()
    assert "–" in text


def test_the_last_line_of_metrics_may_be_half(tmp_path: Path) -> None:
    with (folder(tmp_path) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert write_report(tmp_path).is_file()


@pytest.mark.parametrize("name", ["results.json", "run.json", "run.yaml"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{ [")])
def test_a_damaged_folder_is_named(name: str, damage: Any, tmp_path: Path) -> None:
    damage(folder(tmp_path) / name)
    with pytest.raises(PaperworksError, match=re.escape(str(tmp_path / name))):
        write_report(tmp_path)
