"""Forms that start jobs: made of the commands' own options, checked by the commands, nothing lost where something is wrong."""

from __future__ import annotations

import asyncio
import html
import json
import re

import pytest

from paperworks.core.errors import RunError
from paperworks.web.orders import Order, check

pytestmark = pytest.mark.usefixtures("known_options")


@pytest.fixture
def unchecked(monkeypatch):
    """Orders are taken without asking the command once more, which takes seconds."""

    async def taken(shared, wanted):
        return None

    monkeypatch.setattr("paperworks.web.orders.check", taken)


def command(page):
    """The command line that a form shows."""
    return html.unescape(re.search(r'id="command-line"[^>]*>([^<]*)<', page.text)[1])


def test_an_experiments_form_has_its_options_parts_and_arms(client):
    page = client.get("/papers/rdpo/run").text
    assert re.search(r'<select id="o-budget" name="budget">.*?small \(default\)', page, re.DOTALL)
    assert 'name="arms" value="cdpo"' in page and 'name="parts" value="B"' in page
    assert 'name="out"' not in page and 'name="record"' not in page


def test_a_methods_form_has_its_own_options_with_range_and_default(client):
    page = client.get("/train/rdpo").text
    assert re.search(r'name="flip_rate" value="" placeholder="0.1"', page)
    assert "[≥ 0 and &lt; 0.5]" in page
    assert 'type="file" name="upload-data"' in page


def test_a_paper_without_experiment_and_an_unknown_method_are_not_found_or_said(client):
    assert client.get("/papers/oreo/run").status_code == 422
    assert client.get("/papers/nothing/run").status_code == 404
    assert client.get("/train/rdpoo").status_code == 404


def test_a_run_is_queued_with_the_words_that_the_form_stands_for(client, post, shared, unchecked):
    answer = post("/papers/rdpo/run", budget="smoke", seeds="2", arms=["rdpo", "dpo"])
    (job,) = shared.queue.list()
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
    folder = shared.settings.runs / "rdpo-smoke"
    assert job.arguments == ("run", "rdpo", "--budget=smoke", "--seeds=2", "--arms=rdpo,dpo", f"--out={folder}")
    page = client.get(f"/jobs/{job.id}").text
    assert "paperworks run rdpo --budget=smoke --seeds=2 --arms=rdpo,dpo" in page and "next" in page


def test_what_is_wrong_is_said_in_the_form_which_keeps_what_was_typed(client, post, shared):
    page = post("/papers/rdpo/run", budget="smoke", seeds="0")
    assert page.status_code == 422
    assert "seeds=0 is out of range: it must be ≥ 1" in page.text
    assert 'name="seeds" inputmode="numeric" value="0"' in page.text
    assert shared.queue.list() == []


def test_the_command_itself_has_the_last_word(client, post, shared):
    page = post("/papers/prdc/run", budget="smoke", arms=["prdc", "td3-bcc"])
    assert page.status_code == 422
    assert "unknown arm" in page.text and "did you mean" in page.text
    assert shared.queue.list() == []


def test_showing_the_command_line_runs_nothing(client, post, shared):
    page = post("/papers/rdpo/run", budget="smoke", preview="1")
    assert command(page) == "paperworks run rdpo --budget=smoke"
    assert shared.queue.list() == []


def test_an_uploaded_file_is_kept_apart_and_named_by_what_is_in_it(client, csrf, shared, unchecked):
    rows = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    sent = {"csrf": csrf["x-csrf-token"], "model": "tiny", "data": "typed.jsonl"}
    answer = client.post("/train/rdpo", data=sent, files={"upload-data": ("../../my pairs.jsonl", rows)})
    assert answer.status_code == 303, answer.text
    (job,) = shared.queue.list()
    (path,) = [word.removeprefix("--data=") for word in job.arguments if word.startswith("--data=")]
    place = shared.folders.uploads / path.split("/")[-2] / "my-pairs.jsonl"
    assert path == str(place) and place.read_bytes() == rows


def test_a_file_that_is_no_data_is_said_in_the_form_which_keeps_the_rest(client, csrf, shared):
    sent = {"csrf": csrf["x-csrf-token"], "model": "my-model", "beta": "0.3"}
    page = client.post("/train/rdpo", data=sent, files={"upload-data": ("rows.exe", b"x")})
    assert page.status_code == 422 and "expected a data file" in page.text
    assert 'name="model" value="my-model"' in page.text and 'name="beta" inputmode="decimal" value="0.3"' in page.text


@pytest.mark.parametrize("name", ["evil.py", "page.html", "model.pkl", ".jsonl", "a.jsonl.exe"])
def test_only_data_is_taken_as_an_upload(client, csrf, name):
    answer = client.post("/api/uploads", files={"file": (name, b"x")}, headers=csrf)
    assert answer.status_code == 422 and "expected a data file" in answer.json()["detail"]


def test_an_upload_that_is_too_large_or_empty_is_not_kept(client, csrf, shared):
    many = client.post("/api/uploads", files={"file": ("a.csv", b"x" * 52_000_000)}, headers=csrf)
    none = client.post("/api/uploads", files={"file": ("a.csv", b"")}, headers=csrf)
    assert (many.status_code, none.status_code) == (413, 422)
    assert list(shared.folders.uploads.iterdir()) == []


def test_a_comparison_is_of_one_kind(client, post, shared, unchecked):
    page = post("/compare", names=["dpo", "td3-bc"], model="tiny", data="x/y")
    assert page.status_code == 422 and "choose one kind" in page.text
    page = post("/compare", model="tiny")
    assert page.status_code == 422 and "choose what to compare" in page.text
    assert post("/compare", names=["dpo", "rdpo"], model="tiny", data="org/pairs", seeds="2").status_code == 303
    (job,) = shared.queue.list()
    assert job.arguments[:3] == ("compare", "dpo", "rdpo")


def test_control_policies_have_a_form_of_their_own(client):
    language, control = client.get("/compare").text, client.get("/compare?kind=control").text
    assert 'name="names" value="rdpo"' in language and 'name="names" value="td3-bc"' not in language
    assert 'name="names" value="td3-bc"' in control and 'name="names" value="rdpo"' not in control


def test_files_elsewhere_are_out_of_reach_of_forms_and_programs(client, post, csrf):
    assert "not under the folders" in post("/train/rdpo", model="tiny", data="/etc/passwd").text
    wanted = {"verb": "train", "names": ["rdpo"], "options": {"model": "/etc", "data": "x"}}
    answer = client.post("/api/jobs", json=wanted, headers=csrf)
    assert answer.status_code == 422 and "not under the folders" in answer.json()["detail"]


def test_a_program_starts_a_job_and_reads_it(client, csrf, unchecked):
    wanted = {"verb": "run", "names": ["rdpo"], "options": {"budget": "smoke", "parts": ["A", "B"]}}
    answer = client.post("/api/jobs", json=wanted, headers=csrf)
    assert answer.status_code == 201
    job = client.get(f"/api/jobs/{answer.json()['id']}").json()
    assert job["status"] == "queued" and "--parts=A,B" in job["arguments"]
    assert "pid" not in job and "host" not in job
    assert client.post("/api/jobs", json=wanted, headers=csrf).status_code == 422  # its folder is taken
    assert client.post(f"/api/jobs/{job['id']}/cancel", headers=csrf).json()["status"] == "cancelled"
    assert client.delete(f"/api/jobs/{job['id']}", headers=csrf).status_code == 204
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404


def test_a_job_is_cancelled_and_resumed_by_buttons(client, post, shared, unchecked):
    job = post("/papers/rdpo/run", budget="smoke").headers["location"]
    post(f"{job}/cancel")
    assert "Resume" in client.get(job).text and shared.queue.list()[0].status == "cancelled"
    post(f"{job}/resume")
    assert shared.queue.list()[0].status == "queued"


def test_what_a_job_prints_is_shown_as_text(client, post, shared, unchecked):
    location = post("/papers/rdpo/run", budget="smoke").headers["location"]
    job_id = location.rpartition("/")[2]
    shared.queue.log(job_id).write_text("</pre><script>alert(1)</script>\n")
    bar = {"label": "<b>A</b>", "done": 1, "total": 2, "note": "<i>", "seconds": 1, "finished": False}
    shared.queue.progress(job_id).write_text(json.dumps({"bars": [bar], "said": []}))
    page = client.get(location).text
    assert "<script>alert" not in page and "<b>A</b>" not in page and "<i>" not in page


@pytest.mark.parametrize("words", [["--budget=huge"], ["--seed=1"]])
def test_a_check_says_what_the_command_says(shared, tmp_path, words):
    wanted = Order("run", "prdc", ("run", "prdc", *words), tmp_path / "out")
    with pytest.raises(RunError, match=r"run: .*'huge'|unknown option --seed .did you mean"):
        asyncio.run(check(shared, wanted))
