"""The runs' pages: what they show of good and damaged folders, and what they refuse to show, delete and repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from paperworks.core.runs import Run, RunStore
from paperworks.web.rooms import Rooms
from paperworks.web.security import REPORT_POLICY
from paperworks.web.settings import WebSettings

CLAIM = {"part": "A", "text": "ours is better", "verdict": "holds", "evidence": "+1 [+0.5, +1.5]"}
REPORT = "<!doctype html><title>a report</title>"
Start = Callable[..., Run]
Post = Callable[..., Any]


@pytest.fixture
def start(settings: WebSettings) -> Start:
    """Starts a run in the server's folder of runs."""

    def begin(folder: str = "one", verb: str = "run", name: str = "prdc", /, **config: Any) -> Run:
        return RunStore().start(verb, name, settings.runs / folder, config or {"slug": name, "budget": "small"})

    return begin


@pytest.fixture
def drawn(shared: Rooms, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The curves that were asked for; drawing itself is tested with the report's figures."""
    asked: list[list[Any]] = []

    async def draw(curves: list[Any]) -> list[str]:
        asked.append(curves)
        return [f"<svg><text>{number}</text></svg>" for number, _ in enumerate(curves)]

    monkeypatch.setattr(shared.drawings, "of_curves", draw)
    return asked


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options are not checked by the command itself, which takes seconds."""

    async def check(*given: object) -> None:
        return None

    monkeypatch.setattr("paperworks.web.orders.check", check)


def finished(run: Run, **results: Any) -> str:
    run.finish({"budget": "small", "claims": [CLAIM], **results})
    return run.id


# The list.
def test_an_empty_list_says_how_to_begin(client: TestClient) -> None:
    page = client.get("/runs")
    assert page.status_code == 200 and "Nothing was run here yet" in page.text


def test_the_list_shows_state_paper_and_verdict(client: TestClient, start: Start) -> None:
    run_id = finished(start())
    page = client.get("/runs")
    assert f'href="/runs/{run_id}"' in page.text and 'href="/papers/prdc"' in page.text
    assert "1 of 1 claims hold" in page.text and page.headers["cache-control"] == "no-store"


def test_filters_combine_and_count_what_they_would_find(client: TestClient, start: Start) -> None:
    finished(start("one"))
    finished(start("two", "train", "dpo"))
    finished(start("three", "train", "rdpo"))
    page = client.get("/runs?verb=train&name=dpo").text
    assert "1 of 3 runs" in page and "rdpo (1)" in page and "prdc (1)" not in page


def test_older_runs_are_a_link_away(client: TestClient, start: Start) -> None:
    oldest = finished(start("first"))
    for number in range(50):
        finished(start(f"later-{number}"))
    assert oldest not in client.get("/runs").text
    assert 'href="/runs?page=2"' in client.get("/runs").text and oldest in client.get("/runs?page=2").text


def test_jobs_that_wait_stand_above_the_runs(client: TestClient, shared: Rooms, tmp_path: Path) -> None:
    job = shared.queue.submit(["run", "prdc"], "run", "prdc", tmp_path / "later")
    assert f'href="/jobs/{job.id}"' in client.get("/runs").text


@pytest.mark.parametrize("query", ["page=0", "page=-3", "page=9999999", "page=x", "status=%00", "name=%ED%A0%80"])
def test_an_address_typed_by_hand_does_not_fail(client: TestClient, start: Start, query: str) -> None:
    finished(start())
    assert client.get(f"/runs?{query}").status_code == 200


def test_html_in_names_and_texts_is_text(client: TestClient, start: Start, drawn: list[list[Any]]) -> None:
    evil = "<script>alert(1)</script>"
    run = start("evil", "train", evil, name=evil)
    for step in range(2):
        run.log(step=step, **{evil: step})
    run_id = finished(run, claims=[{**CLAIM, "text": evil, "verdict": evil}])
    for path in ("/runs", f"/runs/{run_id}", f"/runs/{run_id}/delete", f"/runs/{run_id}/again"):
        page = client.get(path).text
        assert evil not in page and "&lt;script&gt;" in page, path


# One run.
def test_a_run_is_found_by_the_beginning_of_its_id_and_by_nothing_else(client: TestClient, start: Start) -> None:
    run = start()
    run_id = finished(run)
    assert client.get(f"/runs/{run_id[:5]}").status_code == 200
    for word in ("one", "...", "*", "%00", "f" * 40, "%"):
        assert client.get(f"/runs/{word}").status_code == 404, word


def test_a_run_shows_settings_claims_and_curves(client: TestClient, start: Start, drawn: list[list[Any]]) -> None:
    run = start("lessons", "train", "dpo", objective="dpo", training={"learning_rate": 0.5, "seed": None})
    for step in range(1200):
        run.log(step=step, gradient=1.0, train_loss=1.0 / (step + 1), note="words", is_odd=True)
    run.log(step=1200, last_return=3.5)
    page = client.get(f"/runs/{finished(run)}").text
    assert "training.learning_rate" in page and "training.seed" not in page and "ours is better" in page
    first, second = drawn[0]
    assert (first["y"], second["y"]) == ("train_loss", "gradient")
    steps, values = first["series"]["this run"]
    assert len(steps) == len(values) <= 500 and (steps[0], steps[-1]) == (0.0, 1199.0)
    assert "<dt>last_return</dt><dd>3.5</dd>" in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{"), ("run.json", b"[]"), ("results.json", b"[1]"), ("run.yaml", b"a: [\n"), ("run.yaml", b"a: &a [*a]"),
        ("run.yaml", b'a: "\\ud800"'), ("metrics.jsonl", b'{"step": 1, "loss": NaN, "a": "\\ud800"}\nhalf'),
        ("results.json", b'{"claims": [{"verdict": [], "text": "\\ud800", "evidence": {}}]}'),
        ("metrics.jsonl", b"[" * 100_000), ("results.json", b'{"wall": 1e999, "many": ' + b"9" * 5000 + b"}"),
    ],
)  # fmt: skip
def test_damage_hides_nothing_else(
    client: TestClient, start: Start, drawn: list[list[Any]], name: str, content: bytes
) -> None:
    run = start()
    run_id = finished(run)
    (run.folder / name).write_bytes(content)
    page = client.get(f"/runs/{run_id}")
    assert page.status_code == 200 and str(run.folder) in page.text
    for path in (
        "/runs",
        f"/runs/compare?run={run_id}&run={run_id}",
        f"/api/runs/{run_id}",
        f"/api/runs/{run_id}/metrics",
    ):
        assert client.get(path).status_code < 500, path


def test_aliases_that_stand_for_more_than_a_memory_holds_are_cut(client: TestClient, start: Start) -> None:
    run = start()
    run_id = finished(run)
    for first, more in (("[1, 2]", "[{0}, {0}]"), ("{{x: 1}}", "{{{{<<: [{0}, {0}]}}}}")):
        lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} {more.format(f'*a{n - 1}')}" for n in range(1, 60))]
        (run.folder / "run.yaml").write_text("\n".join(lines).replace("{{", "{").replace("}}", "}"))
        page = client.get(f"/runs/{run_id}")
        assert page.status_code == 200 and len(page.text) < 1_000_000


def test_a_folder_that_is_gone_is_said(client: TestClient, start: Start) -> None:
    run = start()
    run_id = finished(run)
    run.folder.rename(run.folder.with_name("elsewhere"))
    assert "is gone" in client.get(f"/runs/{run_id}").text


def test_a_run_leads_to_its_job(client: TestClient, shared: Rooms, start: Start) -> None:
    run = start()
    job = shared.queue.submit(["run", "prdc", "--budget=small"], "run", "prdc", run.folder)
    page = client.get(f"/runs/{run.id}").text
    assert f'href="/jobs/{job.id}"' in page and "paperworks run prdc --budget=small" in page


# Its report.
def test_the_report_is_sent_in_a_sandbox(client: TestClient, start: Start) -> None:
    run = start()
    (run.folder / "report.html").write_text(REPORT)
    run_id = finished(run)
    sent = client.get(f"/runs/{run_id}/report")
    assert sent.text == REPORT and sent.headers["content-security-policy"] == REPORT_POLICY
    assert "content-disposition" not in sent.headers
    kept = client.get(f"/runs/{run_id}/report?download=1")
    assert kept.headers["content-disposition"] == f'attachment; filename="paperworks-prdc-{run_id}.html"'
    assert 'sandbox=""' in client.get(f"/runs/{run_id}").text


@pytest.mark.parametrize("target", ["secret.html", "missing.html", "..", "report.html"])
def test_a_report_that_leads_out_of_the_folder_is_refused_and_not_written(
    client: TestClient, start: Start, tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret.html").write_text("secret")
    os.utime(tmp_path / "secret.html", (0, 0))  # older than any cell: it must not be made anew through the link either
    run = start()
    run_id = finished(run)
    cell = run.folder / "cells/A/B/C/0.json"
    cell.parent.mkdir(parents=True)
    cell.write_text("{}")
    (run.folder / "report.html").symlink_to(run.folder / target if target == "report.html" else tmp_path / target)
    sent = client.get(f"/runs/{run_id}/report")
    assert sent.status_code in (404, 422) and "secret" not in sent.text
    assert (tmp_path / "secret.html").read_text() == "secret" and not (tmp_path / "missing.html").exists()
    assert client.get(f"/runs/{run_id}").status_code == 200


def test_no_other_file_of_the_folder_can_be_had(client: TestClient, start: Start) -> None:
    run_id = finished(start())
    for path in ("run.json", "report/../run.json", "report/%2e%2e/run.json", "report%2f..%2frun.json"):
        assert client.get(f"/runs/{run_id}/{path}").status_code == 404, path


def test_a_report_that_cannot_be_made_is_explained(client: TestClient, start: Start) -> None:
    run_id = finished(start("words", "collect", "Pendulum-v1"))
    page = client.get(f"/runs/{run_id}/report")
    assert page.status_code == 422 and "makes no report of the verb" in page.text and "Traceback" not in page.text


# Two of them.
def test_two_runs_stand_side_by_side(client: TestClient, start: Start, drawn: list[list[Any]]) -> None:
    ids = []
    for number, verdict in enumerate(("holds", "not shown")):
        run = start(f"r{number}", "train", "dpo", objective="dpo", training={"seed": number, "batch_size": 8})
        for step in range(3):
            run.log(step=step, loss=step + number, **{f"only_{number}": 1.0})
        ids.append(finished(run, claims=[{**CLAIM, "verdict": verdict}]))
    page = client.get(f"/runs/compare?run={ids[0]}&run={ids[1]}").text
    assert [list(curve["series"]) for curve in drawn[0]] == [[f"{ids[0]} dpo", f"{ids[1]} dpo"]]
    assert "A. ours is better</th><td>holds</td><td>not shown</td>" in page
    assert "training.seed</th><td>0</td><td>1</td>" in page and "loss</th><td>2</td><td>3</td><td>+1</td>" in page
    assert "training.batch_size</th><td>8</td></tr>" in page  # among those that are the same


def test_a_wrong_choice_to_compare_is_explained(client: TestClient, start: Start) -> None:
    run_id = finished(start())
    for query in ("", f"?run={run_id}", f"?run={run_id}&run={run_id[:4]}", f"?run={run_id}&run=1&run=2"):
        page = client.get(f"/runs/compare{query}")
        assert page.status_code == 422 and "choose two different runs" in page.text, query
    assert client.get(f"/runs/compare?run={run_id}&run=none").status_code == 404


def test_a_run_chosen_before_waits_for_the_other(client: TestClient, start: Start) -> None:
    first, second = finished(start("one")), finished(start("two"))
    page = client.get(f"/runs?other={first}").text
    assert (
        f'type="hidden" name="run" value="{first}"' in page
        and f'type="checkbox" name="run" value="{first}"' not in page
    )
    assert f'type="checkbox" name="run" value="{second}"' in page


# Deleting.
def test_deleting_asks_and_needs_the_browsers_token(client: TestClient, start: Start, post: Post) -> None:
    run = start()
    run_id = finished(run)
    page = client.get(f"/runs/{run_id}/delete").text
    assert str(run.folder) in page and "files" in page
    assert client.post(f"/runs/{run_id}/delete").status_code == 403 and run.folder.is_dir()
    answer = post(f"/runs/{run_id}/delete")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert not run.folder.exists() and client.get(f"/runs/{run_id}").status_code == 404


def test_files_are_kept_where_that_is_asked_for(client: TestClient, start: Start, post: Post) -> None:
    run = start()
    run_id = finished(run)
    post(f"/runs/{run_id}/delete", keep_files="1")
    assert (run.folder / "run.json").is_file() and not RunStore().list()


def test_a_run_that_goes_on_is_not_deleted(client: TestClient, start: Start, post: Post, csrf: dict[str, str]) -> None:
    run = start()
    assert "still going on" in client.get(f"/runs/{run.id}/delete").text
    assert post(f"/runs/{run.id}/delete").status_code == 422
    assert client.delete(f"/api/runs/{run.id}", headers=csrf).status_code == 422
    assert run.folder.is_dir() and RunStore().list()


def test_a_run_whose_job_waits_is_not_deleted(client: TestClient, shared: Rooms, start: Start, post: Post) -> None:
    run = start()
    run_id = finished(run)
    shared.queue.submit(["run", "prdc"], "run", "prdc", run.folder)
    assert post(f"/runs/{run_id}/delete").status_code == 422 and run.folder.is_dir()


def test_a_link_in_place_of_the_folder_removes_nothing(
    client: TestClient, start: Start, post: Post, tmp_path: Path
) -> None:
    run = start()
    run_id = finished(run)
    run.folder.rename(tmp_path / "moved")
    run.folder.symlink_to(tmp_path / "moved")
    assert post(f"/runs/{run_id}/delete").status_code == 422
    assert (tmp_path / "moved" / "run.json").is_file()


# Again.
@pytest.mark.usefixtures("unchecked")
def test_a_run_is_queued_again_into_the_next_folder(
    client: TestClient, start: Start, post: Post, shared: Rooms, settings: WebSettings
) -> None:
    run = start()
    run_id = finished(run)
    line = f"paperworks run --config={run.folder / 'run.yaml'} --out={settings.runs / 'one-2'}"
    assert line in client.get(f"/runs/{run_id}/again").text
    assert client.post(f"/runs/{run_id}/again").status_code == 403
    for folder in ("one-2", "one-3"):
        answer = post(f"/runs/{run_id}/again")
        job = shared.queue.get(answer.headers["location"].removeprefix("/jobs/"))
        assert answer.status_code == 303 and job.folder == settings.runs / folder
    assert job.arguments == ("run", f"--config={run.folder / 'run.yaml'}", f"--out={settings.runs / 'one-3'}")


def test_a_run_outside_the_servers_folders_is_not_repeated(
    client: TestClient, post: Post, shared: Rooms, tmp_path: Path, start: Start
) -> None:
    elsewhere = RunStore().start("run", "prdc", tmp_path / "elsewhere", {"slug": "prdc"})
    linked = start("linked")
    (linked.folder / "run.yaml").unlink()
    (linked.folder / "run.yaml").symlink_to(elsewhere.folder / "run.yaml")
    for run in (elsewhere, linked):
        finished(run)
        assert "not under the folders of this server" in client.get(f"/runs/{run.id}/again").text
        assert post(f"/runs/{run.id}/again").status_code == 422
    assert not shared.queue.list()


def test_a_verb_without_a_form_says_what_to_type(client: TestClient, start: Start) -> None:
    run_id = finished(start("logs", "collect", "Pendulum-v1"))
    page = client.get(f"/runs/{run_id}/again")
    assert page.status_code == 422 and "type: paperworks collect --config" in page.text


# For programs.
def test_programs_list_read_and_delete_runs(client: TestClient, start: Start, csrf: dict[str, str]) -> None:
    run = start()
    run.log(step=1, loss=0.5)
    run_id = finished(run, score=2)
    listed = client.get("/api/runs?verb=run&limit=1").json()
    assert listed["total"] == 1 and listed["runs"][0]["claims"] == {"holds": 1, "not shown": 0, "reversed": 0}
    whole = client.get(f"/api/runs/{run_id}").json()
    assert whole["settings"]["slug"] == "prdc" and whole["results"] == {"score": 2.0} and not whole["problems"]
    assert client.get(f"/api/runs/{run_id}/metrics").json() == {"total": 1, "lines": [{"step": 1, "loss": 0.5}]}
    assert client.delete(f"/api/runs/{run_id}").status_code == 403
    assert client.delete(f"/api/runs/{run_id}?keep_files=true", headers=csrf).status_code == 204
    assert client.get(f"/api/runs/{run_id}").status_code == 404 and run.folder.is_dir()


@pytest.mark.usefixtures("unchecked")
def test_programs_queue_a_run_again(client: TestClient, start: Start, csrf: dict[str, str]) -> None:
    answer = client.post(f"/api/runs/{finished(start())}/again", headers=csrf)
    assert answer.status_code == 201 and answer.json()["status"] == "queued"


@pytest.mark.parametrize(
    "path",
    ["/api/runs?limit=501", "/api/runs?offset=-1", f"/api/runs?offset={10**40}", "/api/runs?status=odd",
     "/api/runs/%00", "/api/runs/x"],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 422


def test_the_description_names_every_refusal(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    for path in ("/api/runs/{run_id}", "/api/runs/{run_id}/again"):
        for call in described[path].values():
            assert {"403", "404", "422"} <= set(call["responses"]), json.dumps(call["responses"])
