"""From cells with known numbers to findings, the bottom line and the page: what is said is what the numbers are."""

import dataclasses
import json
import math
from typing import Any

import pytest

from paperworks.core.errors import RunError
from paperworks.language.comparison.conclusions import bottom_line, warnings
from paperworks.language.comparison.findings import Findings, find
from paperworks.language.comparison.grid import START
from paperworks.language.comparison.measures import PLAN, Measures, Plan, plan_values, read_cells, read_plan
from paperworks.language.comparison.report import GAINS, result_rows, terminal_table, write_report

PROMPTS = 40
CODE = {"rows": "r", "code": ""}
HOSTILE = "<script>alert(1)</script>"


def make_plan(*points: tuple[str, dict[str, Any]], swept: tuple[str, ...] = (), **changes: Any) -> Plan:
    choosing = tuple(index % 2 == 1 for index in range(PROMPTS)) if swept else (False,) * PROMPTS
    values: dict[str, Any] = {
        "job": {
            "model": "tiny", "data": {"path": "prefs.jsonl", "mapping": {}, "format": "auto"}, "training": {"steps": 4},
            "lora": None, "held_out": 0.1, "eval_data": None, "objective_file": None, "precision": "float32",
            "device": "auto", "chat_template": None, "gradient_checkpointing": False, "measure": {"max_new_tokens": 64},
        },
        "points": tuple(
            {"objective": name, "options": options, "swept": [option for option in swept if option in options]}
            for name, options in points
        ),
        "seeds": 3, "rewards": ("sentiment",), "samples": 1, "fingerprints": CODE,
        "rows": {"data": "prefs.jsonl", "fingerprint": "f", "rows": 100, "training_rows": 60, "held_out_rows": PROMPTS,
                 "prompts": PROMPTS, "warnings": []},
        "row_prompts": tuple(range(PROMPTS)), "choosing_rows": choosing, "choosing_prompts": choosing,
        "shown": {"0": "Once"}, "steps": 4, "notes": (),
    }  # fmt: skip
    return Plan(**{**values, **changes})


def make_cell(
    reward: float = 0.0, *, seed: int = 0, tokens: float = 10, kl: float = 1.0, accuracy: float = 0.5, **more: Any
) -> dict[str, Any]:
    """A cell whose prompts differ in reward (the same in all arms); odd prompts are the half that options are chosen on."""
    margins = [1.0 if index < accuracy * PROMPTS else -1.0 for index in range(PROMPTS)]
    own = {} if more.pop("is_start", False) else {"margin": margins, "margin_at_start": [0.0] * PROMPTS}
    return {
        "fingerprints": CODE,
        "diverged": "",
        "train_seconds": 60.0,
        "rewards": {"sentiment": [reward + 0.01 * (index % 7) + 0.001 * seed for index in range(PROMPTS)]},
        "log_ratio": [kl] * PROMPTS,
        "tokens": [tokens + index % 3 for index in range(PROMPTS)],
        "finished": [True] * PROMPTS,
        "texts": {"0": HOSTILE},
        "kept_rows": list(range(PROMPTS)),
        **dict.fromkeys(("accuracy_log_ratio", "accuracy_token_log_ratio", "accuracy_token_logp"), [0.5] * PROMPTS),
        "logp_chosen": [-20.0] * PROMPTS,
        **own,
        **more,
    }


def cells(**arms: Any) -> dict[tuple[str, int], Any]:
    """Three seeds of each arm; a value is a reward or the arguments of `make_cell`."""
    found = {}
    for arm, given in {START: {"is_start": True, "kl": 0.0}, **arms}.items():
        arguments = given if isinstance(given, dict) else {"reward": given}
        found |= {
            (arm.replace("__", " ").replace("_eq_", "="), seed): make_cell(seed=seed, **arguments) for seed in range(3)
        }
    return found


def findings_of(plan: Plan, **arms: Any) -> Findings:
    return find(Measures(plan, cells(**arms)))


def test_the_best_objective_is_named_and_the_others_are_told_apart_or_not():
    plan = make_plan(("dpo", {}), ("rdpo", {"flip_rate": 0.2}), ("ipo", {}))
    measured = cells(dpo=0.3, ipo=0.5, **{"rdpo flip_rate=0.2": 0.5})
    for seed in range(3):  # ipo is as good on the mean, with the signs of its differences mixed
        values = measured["ipo", seed]["rewards"]["sentiment"]
        measured["ipo", seed]["rewards"]["sentiment"] = [v - 0.01 + (-0.2, 0.2)[i % 2] for i, v in enumerate(values)]
    findings = find(Measures(plan, measured))
    assert findings.best is not None and findings.best.name == "rdpo flip_rate=0.2"
    best, worse, open_, cost = bottom_line(findings, plan)
    assert best.startswith("Best: rdpo (flip_rate=0.2), mean reward `sentiment` 0.530")
    assert "a gain of +0.500" in best and "It wins 100%" in best
    assert worse.startswith("Shown to be below it: dpo (default options) by 0.200 [0.200, 0.200]")
    assert open_.startswith("Not told apart from it: ipo (default options) by 0.010 [-0.0")
    assert "KL 1.00 nats a response" in cost and "1 min 00 s of training" in cost


def test_without_a_gain_no_objective_is_called_best():
    plan = make_plan(("dpo", {}))
    findings = findings_of(plan, dpo=-0.1)
    assert bottom_line(findings, plan)[0].startswith("No objective is shown to be better than the untrained model")


def test_win_rates_pair_prompts_and_seeds_and_ties_count_half():
    plan = make_plan(("dpo", {}), ("ipo", {}))
    pairs = findings_of(plan, dpo=0.0, ipo=0.2).pairs
    assert pairs["dpo"][START].win_rate.mean == 0.5
    assert (pairs["ipo"]["dpo"].win_rate.mean, pairs["dpo"]["ipo"].win_rate.mean) == (1.0, 0.0)


def test_arms_are_paired_on_the_seeds_that_both_have():
    plan, measured = make_plan(("dpo", {}), ("ipo", {})), cells(dpo=0.5, ipo=0.2)
    del measured["ipo", 0]
    for index in range(PROMPTS):
        measured["dpo", 0]["rewards"]["sentiment"][index] += 100
    findings = find(Measures(plan, measured))
    assert findings.pairs["dpo"]["ipo"].criterion.mean == pytest.approx(0.3)
    assert findings.missing == ("ipo seed 0",)
    assert any("1 trainings have no result" in line for line in warnings(findings, plan))


def test_swept_settings_are_chosen_on_one_half_and_reported_on_the_other():
    plan = make_plan(("dpo", {"beta": 0.1}), ("dpo", {"beta": 1.0}), swept=("beta",))
    measured = cells(**{"dpo beta=0.1": 0.2, "dpo beta=1": 0.3})
    for seed in range(3):
        rewards = measured["dpo beta=0.1", seed]["rewards"]["sentiment"]
        measured["dpo beta=0.1", seed]["rewards"]["sentiment"] = [
            v + (0.5 if plan.choosing_prompts[i] else 0) for i, v in enumerate(rewards)
        ]
    findings = find(Measures(plan, measured))
    (objective,) = findings.objectives
    assert objective.chosen is not None and objective.chosen.name == "dpo beta=0.1"
    assert objective.chosen.metrics["reward"].mean == pytest.approx(0.231, abs=0.002)
    assert objective.robustness["best"] == pytest.approx(0.331, abs=0.002)
    assert (objective.robustness["better_than_start"], findings.prompts) == (1.0, 20)
    assert any("dpo beta=0.1 (smallest)" in line for line in warnings(findings, plan))


def test_without_a_reward_held_out_accuracy_decides():
    plan = make_plan(("dpo", {}), ("ipo", {}), rewards=())
    findings = findings_of(plan, dpo={"accuracy": 0.8}, ipo={"accuracy": 0.6})
    assert findings.best is not None and findings.best.name == "dpo"
    assert findings.best.than_start.mean == pytest.approx(0.3)  # at the start every margin is 0: a tie
    assert findings.pairs["dpo"]["ipo"].win_rate is None
    assert findings.pairs["dpo"]["ipo"].accuracy.mean == pytest.approx(0.2)
    columns, rows = result_rows(findings, plan, GAINS)
    assert columns == ["objective", "held-out accuracy", "margin"]
    assert [row[0] for row in rows] == ["dpo (default options)", "ipo (default options)", "untrained"]


def test_length_is_held_against_a_reward_that_it_explains():
    plan, measured = make_plan(("dpo", {})), cells(dpo={"tokens": 20})
    for (arm, _), cell in measured.items():
        cell["rewards"]["sentiment"] = [
            0.1 * tokens + 0.0001 * (arm == "dpo") * (-1) ** i for i, tokens in enumerate(cell["tokens"])
        ]
    findings = find(Measures(plan, measured))
    assert findings.slope_on_length == pytest.approx(0.1, rel=1e-3)
    assert findings.best is not None
    assert findings.best.metrics["length_controlled"].mean == pytest.approx(findings.start["reward"].mean, abs=1e-3)
    said = " ".join(warnings(findings, plan))
    assert "longer than the untrained model's: dpo 1.91 times" in said
    assert "At equal length the gain in reward is not shown: dpo" in said


def test_large_kl_cut_answers_few_seeds_and_unequal_tuning_are_said():
    plan = make_plan(("dpo", {}), ("ipo", {"beta": 1.0}), ("ipo", {"beta": 2.0}), swept=("beta",))
    findings = findings_of(
        plan, dpo={"reward": 1, "kl": 60.0, "finished": [False] * PROMPTS}, **{"ipo beta=1": 0.1, "ipo beta=2": 0}
    )
    said = " ".join(warnings(findings, plan))
    for words in (
        "KL is large: dpo 60.0 nats",
        "Answers cut at 64 tokens: 100% of dpo",
        "3 seeds",
        "dpo 1, ipo 2",
        "20 prompts",
    ):
        assert words in said
    assert "One seed" in " ".join(warnings(findings, dataclasses.replace(plan, seeds=1)))


def test_diverged_and_failed_objectives_are_said_and_the_others_compared():
    plan, measured = make_plan(("dpo", {}), ("rdpo", {}), ("ipo", {})), cells(dpo=0.2)
    for seed in range(3):
        measured["rdpo", seed] = {
            "fingerprints": CODE,
            "diverged": "the loss became nan at step 3",
            "train_seconds": 1.0,
        }
    findings = find(Measures(plan, measured))
    assert [point.name for point in findings.chosen] == ["dpo"]
    said = warnings(findings, plan)
    assert said[0] == "rdpo: every training diverged."
    assert said[1] == "ipo: every training failed or is not finished."
    assert "3 trainings diverged (rdpo seed 0, rdpo seed 1, rdpo seed 2): the loss became nan at step 3" in said


def test_nothing_finished_is_said():
    plan = make_plan(("dpo", {}))
    findings = find(Measures(plan, {key: cell for key, cell in cells().items() if key[0] == START}))
    assert bottom_line(findings, plan) == ["No training of any objective finished, so nothing can be said about them."]
    assert findings.best is None


def write(folder, plan: Plan, measured: dict[tuple[str, int], Any]) -> None:
    (folder / PLAN).write_text(json.dumps(plan_values(plan)))
    for number, ((arm, seed), metrics) in enumerate(measured.items()):
        place = folder / "cells" / "A" / "_" / f"arm{number}"
        place.mkdir(parents=True)
        (place / f"{seed}.json").write_text(json.dumps({"arm": arm, "seed": seed, "metrics": metrics}))


def test_the_page_is_made_from_the_folder_alone_and_escapes_answers(tmp_path):
    plan = make_plan(
        ("dpo", {"beta": 0.1}), ("dpo", {"beta": 1.0}), ("ipo", {"beta": 0.1}), ("ipo", {"beta": 1.0}), swept=("beta",)
    )
    write(tmp_path, plan, cells(**{"dpo beta=0.1": 0.4, "dpo beta=1": 0.3, "ipo beta=0.1": 0.2, "ipo beta=1": 0.1}))
    page = write_report(tmp_path).read_text()
    assert HOSTILE not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    titles = (
        "Bottom line", "Before you rely on it", "Results", "Gain against distance", "Who wins against whom", "Sensitivity",
        "How much the settings matter", "Length", "Answers", "What was run", "Next",
    )  # fmt: skip
    assert [title for title in titles if f">{title}<" not in page] == []
    assert "paperworks train dpo --model tiny --data prefs.jsonl --steps 4 --beta 0.1 --select last" in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {
        "criterion.svg", "differences.svg", "frontier.svg", "wins.svg", "lengths.svg", "reward-by-beta.svg",
    }  # fmt: skip


@pytest.mark.parametrize("rewards", [(), ("sentiment",)])
def test_a_killed_run_has_a_page_of_what_is_finished(tmp_path, rewards):
    plan = make_plan(("dpo", {}), ("ipo", {}), rewards=rewards)
    write(tmp_path, plan, {key: cell for key, cell in cells(dpo=0.4).items() if key[1] == 0})
    assert "trainings have no result" in write_report(tmp_path).read_text()


def test_cells_of_other_rows_or_arms_are_not_counted(tmp_path):
    plan, measured = make_plan(("dpo", {})), cells(dpo=0.4, ipo=0.3)
    measured["dpo", 2]["fingerprints"] = {"rows": "other", "code": ""}
    write(tmp_path, plan, measured)
    assert sorted(read_cells(tmp_path, read_plan(tmp_path))) == [
        ("dpo", 0),
        ("dpo", 1),
        *((START, seed) for seed in range(3)),
    ]


def test_a_folder_without_plan_or_cells_is_refused(tmp_path):
    with pytest.raises(RunError):
        write_report(tmp_path)
    write(tmp_path, make_plan(("dpo", {})), {})
    with pytest.raises(RunError, match="no training is finished"):
        write_report(tmp_path)


def test_the_terminal_shows_the_table_and_the_bottom_line(capsys):
    plan = make_plan(("dpo", {}), rewards=("sentiment", "length"))
    measured = cells(dpo=0.4)
    for cell in measured.values():
        cell["rewards"]["length"] = cell["tokens"]
    findings = find(Measures(plan, measured))
    terminal_table(findings, plan)
    shown = capsys.readouterr().out
    assert "wins vs untrained" in shown and "Best: dpo (default options)" in shown and "note: 3 seeds" in shown
    assert findings.best is not None and math.isfinite(findings.best.metrics["reward length"].mean)
