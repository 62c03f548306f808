"""What is known of a paper here: usable by the presence of its module, and the summary of its recorded results."""

import datetime
import json

import pytest

from paperworks.catalog import evidence
from paperworks.catalog.evidence import Evidence, Recorded, Verdict, is_usable, read_recorded, results_folder, runs_here
from paperworks.core.runs import RunStore
from paperworks.experiment.definition import Arm, Claim, Experiment, Metric, Part
from paperworks.experiment.report import record
from paperworks.experiment.results import CellResult, Results

CLAIM = {
    "text": "A beats B",
    "verdict": "holds",
    "evidence": "+0.2",
    "interval": {"mean": 0.2, "low": 0.1, "high": 0.3},
}
RECORD = {"budget": "small", "date": "2026-02-03", "seeds": {"A": [0, 1, 2]}, "claims": [CLAIM]}


def test_paper_is_usable_when_its_module_is_there_and_it_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "ln_dpo.py").write_text("raise SystemError('imported')")
    monkeypatch.setattr(evidence, "PACKAGE", tmp_path)
    assert is_usable("ln-dpo")
    assert not is_usable("rdpo")


def test_a_package_without_papers_has_nothing_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "PACKAGE", tmp_path)
    assert not is_usable("rdpo")


def test_results_stand_beside_src_in_a_checkout_and_inside_the_package_elsewhere(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "paperworks"
    monkeypatch.setattr(evidence, "PACKAGE", installed)
    assert results_folder() == installed / "_results"
    monkeypatch.setattr(evidence, "PACKAGE", tmp_path / "src" / "paperworks")
    (tmp_path / "pyproject.toml").touch()
    assert results_folder() == tmp_path / "results"


def test_what_an_experiment_records_is_what_is_read(tmp_path):
    """The contract with experiment/report.py: one claim that holds by 1, one reversed, one with nothing between."""
    part = Part(
        name="A",
        title="Toy",
        arms=(Arm("high"), Arm("low"), Arm("same")),
        seeds={"smoke": 1, "small": 5, "full": 5},
        cell=lambda *_: {},
        metrics=(Metric("score"),),
    )
    claims = (
        Claim("score", better="high", than="low"),
        Claim("score", better="low", than="high"),
        Claim("score", better="low", than="same", text="Low beats same."),
    )
    value = {"high": 2.0, "low": 1.0, "same": 1.0}
    cells = tuple(CellResult("A", "", arm, seed, {"score": value[arm]}, 0.1) for arm in value for seed in range(5))
    experiment = Experiment(slug="toy", title="Toy", parts=(part,), claims=claims)
    record(Results(experiment, "small", tmp_path, cells), tmp_path / "toy.json")

    recorded = read_recorded(tmp_path / "toy.json")
    assert (recorded.budget, recorded.seeds, recorded.problem) == ("small", 5, "")
    assert recorded.date == datetime.date.today().isoformat()
    assert recorded.counts == {"holds": 1, "reversed": 1, "not shown": 1}
    assert [(claim.mean, claim.low, claim.high) for claim in recorded.claims] == [(1, 1, 1), (-1, -1, -1), (0, 0, 0)]
    assert recorded.claims[2].text == "Low beats same."
    assert "5 of 5 seeds" in recorded.claims[0].evidence


def test_claim_without_an_interval_is_read(tmp_path):
    path = tmp_path / "toy.json"
    nothing = {"mean": None, "low": None, "high": None}
    path.write_text(json.dumps({**RECORD, "claims": [{**CLAIM, "interval": nothing}]}))
    assert read_recorded(path).claims == (Verdict("A beats B", "holds", "+0.2"),)


def test_no_record_is_none(tmp_path):
    assert read_recorded(tmp_path / "rdpo.json") is None


DAMAGED = [b"", b"{", b"\xff", b"[]", b"3", b"{}", b'{"date": "x", "budget": "y", "claims": 3}', b"[" * 100_000]
UNKNOWN_VERDICT = json.dumps({**RECORD, "claims": [{**CLAIM, "verdict": "maybe"}]}).encode()


@pytest.mark.parametrize("content", [*DAMAGED, UNKNOWN_VERDICT])
def test_damaged_record_says_so_and_how_to_mend_it(tmp_path, content):
    path = tmp_path / "rdpo.json"
    path.write_bytes(content)
    assert read_recorded(path).problem == f"{path} is damaged; `paperworks run rdpo --record` writes it anew"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (Evidence(), "no"),
        (Evidence(recorded=Recorded("2026-02-03", "small")), "recorded"),
        (Evidence(run_here="2026-02-03"), "run here"),
        (Evidence(Recorded("2026-02-03", "small"), "2026-02-03"), "recorded, run here"),
    ],
)
def test_evidence_reads_as_a_status(known, text):
    assert str(known) == text


def test_last_finished_run_of_each_paper_is_found_in_the_run_store(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "home"))
    store = RunStore()
    for verb, name, status in [
        ("run", "rdpo", "finished"),
        ("run", "rdpo", "finished"),
        ("run", "rpo", "failed"),
        ("train", "ln-dpo", "finished"),
    ]:
        with store.start(verb, name, tmp_path / f"{verb}-{name}-{status}", {}, overwrite=True) as run:
            run.end(status)
    assert runs_here() == {"rdpo": store.list(name="rdpo")[0].ended[:10]}


def test_without_a_run_store_nothing_ran_and_none_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path))
    assert runs_here() == {}
    assert list(tmp_path.iterdir()) == []


def test_run_store_that_cannot_be_read_counts_as_nothing_ran(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path))
    (tmp_path / "runs.sqlite").write_bytes(b"damaged")
    assert runs_here() == {}
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "runs.sqlite"))
    assert runs_here() == {}
