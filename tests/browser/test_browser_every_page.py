"""Every page, by day and night, at a desk and on a phone: no barrier, nothing cut off, no word in the console."""

import re

import pytest
from axe import barriers
from serving import Server
from visiting import DESK, PHONE

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

PAGES = {
    "list": "/",
    "search": "/?q=noisy+labels&runs=here",
    "nothing-found": "/?q=zzzyx",
    "paper": "/papers/rdpo",
    "paper-run-here": "/papers/prdc",
    "figures": "/papers/rdpo/figures",
    "run-form": "/papers/prdc/run",
    "train-form": "/train/dpo",
    "compare-form": "/compare",
    "compare-control-form": "/compare?kind=control",
    "runs": "/runs",
    "run": "/runs/{run}",
    "run-again": "/runs/{run}/again",
    "run-delete": "/runs/{run}/delete",
    "two-runs": "/runs/compare?run={run}&run={other}",
    "job": "/jobs/{job}",
    "job-failed": "/jobs/{failed}",
    "job-queued": "/jobs/{queued}",
    "follow": "/follow",
    "unsubscribe": "/follow/unsubscribe?token=none",
    "api": "/api",
    "login": "/login",
}
REFUSED = {"no-such-paper": ("/papers/none", 404), "confirm-nothing": ("/follow/confirm?token=none", 404),
           "no-two-runs": ("/runs/compare", 422)}  # fmt: skip
LOOKS = {"desk-light": (DESK, "light"), "desk-dark": (DESK, "dark"), "phone-light": (PHONE, "light")}


@pytest.fixture(scope="module")
def server(tmp_path_factory, kept_cache):
    """A server that sends mails, with runs and jobs in every state that stays."""
    mails = {
        "PAPERWORKS_SMTP_HOST": "127.0.0.1",
        "PAPERWORKS_SMTP_PORT": "9",
        "PAPERWORKS_SMTP_FROM": "papers@example.org",
    }
    started = Server(tmp_path_factory.mktemp("server"), kept_cache, mails)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def places(server):
    """What addresses of pages are made with."""
    jobs = [server.start_job("prdc", budget="smoke"), server.start_job("c-morl", budget="smoke")]
    for job in jobs:
        server.wait(job, "finished")
    cancelled = server.start_job("prdc", budget="small", seeds="1")
    server.ask(f"/api/jobs/{cancelled}/cancel", {})
    server.wait(cancelled, "cancelled")
    runs = {run["name"]: run["id"] for run in server.ask("/api/runs")["runs"] if run["status"] == "finished"}
    return {"run": runs["prdc"], "other": runs["c-morl"], "job": jobs[0], "failed": cancelled}


@pytest.fixture
def queued(server, places):
    """A job that waits, behind one that goes on."""
    ahead = server.start_job("prdc", budget="full", seeds="1")
    behind = server.start_job("c-morl", budget="small")
    yield behind
    for job in (behind, ahead):
        server.ask(f"/api/jobs/{job}/cancel", {})
        server.wait(job, "cancelled")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", [*PAGES, *REFUSED])
def test_it_is_whole_and_without_barriers(visit, places, name, look, request):
    if "{queued}" in PAGES.get(name, ""):
        places = {**places, "queued": request.getfixturevalue("queued")}
    size, scheme = LOOKS[look]
    window = visit(size=size, scheme=scheme)
    path, status = REFUSED.get(name) or (PAGES[name].format(**places), 200)
    page = window.open(path, status)
    for closed in page.locator("main details:not([open]) > summary").all():
        if closed.is_visible():
            closed.click()
    window.snap("whole")
    assert window.width_hidden() <= 0
    assert barriers(page) == []
    assert page.locator("h1").count() == 1
    assert re.search(r"\S", page.title())
