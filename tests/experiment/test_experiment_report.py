"""Report, summary and record show every arm, seed and claim; what would be no evidence is not recorded."""

import dataclasses
import io
import json
from xml.etree import ElementTree

import pytest
import toy_experiment as toy

from paperworks.core import plots
from paperworks.core.errors import RunError
from paperworks.experiment import Arm, Claim, run_experiment
from paperworks.experiment.report import record, terminal_summary, write_report


def run(folder, experiment=toy.EXPERIMENT, **options):
    return run_experiment(experiment, folder=folder, workers=1, **options)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run(tmp_path_factory.mktemp("toy"))


def figures_of(results):
    return [(plots.lines({"curve": plots.Curve([0, 1], results.cells[0].metrics["curve"])}, "x", "y"), "My own figure")]


def test_report_shows_arms_claims_published_figures_and_circumstances(results):
    path = write_report(results)
    html = " ".join(path.read_text(encoding="utf-8").split())
    for expected in (
        "rDPO (the paper&#39;s method)",
        "DPO, clean labels (control)",
        "22.040 [",
        "DPO wins when it is hard",
        "✗ reversed",
        "Expected: not shown.",
        "✓ holds",
        "Everything is smaller.",
        "a large model",
        "Table 2",
        "paperworks run toy --budget small --seeds 10",
        "5 seeds",
    ):
        assert expected in html
    assert html.count("<svg") == 3  # the score in both settings, and the paired differences
    for figure in (path.parent / "figures").iterdir():
        ElementTree.parse(figure)


def test_figures_are_of_settings_where_something_is_claimed(tmp_path):
    claims = tuple(claim for claim in toy.EXPERIMENT.claims if claim.where == toy.EXPERIMENT.claims[0].where)
    results = run(tmp_path, dataclasses.replace(toy.EXPERIMENT, claims=claims), seeds=1)
    assert write_report(results).read_text(encoding="utf-8").count("<svg") == 2  # that setting's, and the differences


def test_smoke_draws_one_setting(tmp_path):
    results = run(tmp_path, budget="smoke")
    assert write_report(results).read_text(encoding="utf-8").count("<svg") == 2


def test_best_of_the_competitors_is_bold_and_controls_do_not_compete(results):
    html = " ".join(write_report(results).read_text(encoding="utf-8").split())
    assert '<td class="right bold">22.040' in html
    assert '<td class="right bold">23.060' not in html


def test_a_parts_own_figures_join(tmp_path):
    experiment = toy.with_part(figures=figures_of)
    html = write_report(run(tmp_path, experiment, seeds=2)).read_text(encoding="utf-8")
    assert "My own figure" in html
    assert "2 seeds (too few to show anything)" in html


def figures_that_fail(results):
    raise KeyError("clean")


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_report(tmp_path):
    html = write_report(run(tmp_path, toy.with_part(figures=figures_that_fail), seeds=1)).read_text(encoding="utf-8")
    assert "A figure of part A could not be drawn: KeyError" in html


def test_hostile_names_are_escaped(tmp_path):
    name = "<script>alert('x')</script>"
    arms = (Arm(name, name, options={"level": 2.0}), dataclasses.replace(toy.ARMS[1], label=name + "b"))
    part = dataclasses.replace(toy.PART, arms=arms, title=name, settings=(name,))
    experiment = dataclasses.replace(
        toy.EXPERIMENT, title=name, parts=(part,), claims=(Claim("score", name, "dpo", name),), differences=name
    )
    html = write_report(run(tmp_path, experiment, seeds=2)).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_smoke_failures_and_mixed_code_are_said(tmp_path):
    experiment = toy.with_option("raise", True)
    results = run(tmp_path, experiment, budget="smoke", seeds=2)
    mixed = dataclasses.replace(
        results, cells=(dataclasses.replace(results.cells[0], code="other"), *results.cells[1:])
    )
    html = write_report(mixed).read_text(encoding="utf-8")
    assert "numbers are no evidence" in html
    assert "part A easy rdpo, seed 1 failed and is missing below: prefs.jsonl:3: expected rows" in html
    assert "different versions of the program" in html


def test_an_experiment_without_any_cell_still_reports(tmp_path):
    results = dataclasses.replace(run(tmp_path, seeds=1), cells=())
    assert write_report(results).exists()
    terminal_summary(results, stream=io.StringIO())


def test_terminal_summary_prints_tables_and_verdicts(results):
    out = io.StringIO()
    terminal_summary(results, stream=out)
    text = out.getvalue()
    assert "A. toy, easy" in text
    assert "score (nats) ↑" in text
    assert "✓ holds     rDPO has higher score than DPO at easy  rDPO − DPO: +1.020" in text
    assert "5 of 5 seeds" in text


def test_record_holds_every_seed_and_verdict(results, tmp_path):
    record(results, tmp_path / "toy.json")
    content = json.loads((tmp_path / "toy.json").read_text())
    assert (content["slug"], content["budget"], content["seeds"]) == ("toy", "small", {"A": [0, 1, 2, 3, 4]})
    easy = content["parts"][0]["settings"][0]
    assert [arm["name"] for arm in easy["arms"]] == ["rdpo", "dpo", "clean"]
    score = easy["arms"][1]["metrics"]["score"]
    assert score["values"] == pytest.approx([1 + 10.01 * seed for seed in range(5)])
    assert score["low"] < score["mean"] < score["high"]
    assert [claim["verdict"] for claim in content["claims"]] == ["holds", "reversed"]
    assert content["claims"][1]["text"] == "DPO wins when it is hard"
    assert content["claims"][1]["interval"]["high"] < 0
    assert content["versions"]["python"]
    assert content["hardware"]["cores"] >= 1


def test_what_is_no_evidence_is_not_recorded(tmp_path):
    path = tmp_path / "toy.json"
    with pytest.raises(RunError, match="the smoke budget is no evidence"):
        record(run(tmp_path / "a", budget="smoke"), path)
    with pytest.raises(RunError, match="part A easy rdpo has 2 of 5 seeds"):
        record(run(tmp_path / "a", seeds=2), path)
    with pytest.raises(RunError, match="part A easy rdpo has 0 of 5 seeds"):
        record(run(tmp_path / "a", arms=["dpo"]), path)
    with pytest.raises(RunError, match="seed 1 failed"):
        record(run(tmp_path / "a", toy.with_option("raise", True)), path)
    assert not path.exists()
