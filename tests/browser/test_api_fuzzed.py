"""The API under what nobody means to send: whatever comes, no address fails, and every answer is as it is described.

Requests are made from the API's own description and go to a server on loopback. Jobs are taken in, none is started.
"""

import asyncio
import random
import socket
import threading
import time

import pytest

schemathesis = pytest.importorskip("schemathesis")
import uvicorn  # noqa: E402
from following import smtp_server  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis.checks import Failure, FailureGroup  # noqa: E402

from paperworks.core.jobs import JobQueue  # noqa: E402
from paperworks.core.runs import RunStore  # noqa: E402
from paperworks.web import app as application  # noqa: E402
from paperworks.web.security import CSRF_COOKIE, CSRF_HEADER  # noqa: E402
from paperworks.web.settings import WebSettings  # noqa: E402

pytestmark = pytest.mark.browser
TOKEN = "a-token-that-is-long-enough-for-any-browser"
EXAMPLES = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
IN_ORDER = {
    "POST /api/jobs": {"verb": "run", "names": ["prdc"], "options": {"budget": "smoke"}},
    "POST /api/subscriptions": {"email": "ada@example.org"},
}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def home(tmp_path_factory, kept_cache):
    """A home with a run that has finished and a job that was cancelled; their ids, and a paper and a method."""
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "home").mkdir()
    (folder / "home" / "cache").symlink_to(kept_cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERWORKS_HOME", str(folder / "home"))
        with RunStore().start("run", "prdc", folder / "runs" / "one", {"slug": "prdc"}) as run:
            run.finish({"loss": 0.5})
        (folder / "runs" / "one" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        job = JobQueue().submit(["run", "prdc", "--budget=smoke"], "run", "prdc", folder / "runs" / "two")
        JobQueue().cancel(job.id)
    known = {"run_id": run.record.id, "job_id": job.id, "slug": "rdpo", "name": "dpo"}
    return folder, known


@pytest.fixture(autouse=True)
def own_home(home, monkeypatch):
    """The server is a thread of this process: it has its home as long as there are tests."""
    monkeypatch.setenv("PAPERWORKS_HOME", str(home[0] / "home"))


@pytest.fixture(scope="module")
def address(home):
    """A server that sends mails and starts no job; the commands' own check of options, which takes seconds, is left out."""
    with (
        pytest.MonkeyPatch.context() as patch,
        smtp_server() as postbox,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        patch.setenv("PAPERWORKS_HOME", str(home[0] / "home"))
        for name, value in {"HOST": "127.0.0.1", "PORT": str(postbox.port), "FROM": "papers@example.org"}.items():
            patch.setenv(f"PAPERWORKS_SMTP_{name}", value)
        patch.setattr("paperworks.web.orders.check", lambda shared, wanted: asyncio.sleep(0))
        patch.setattr(application, "SECONDS_BEFORE_DRAWING", 1e6)
        port = listening.getsockname()[1]
        app = application.create_app(WebSettings(runs=home[0] / "runs", port=port, works_queue=False))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture(scope="module")
def api(address, home):
    """The description that requests are made from; half of them name a run, a job, a paper, a method that are there.

    Some jobs and subscriptions are in order too: by chance alone none ever is.
    """
    described = schemathesis.openapi.from_url(f"{address}/api/openapi.json")
    described = described.exclude(path_regex="/events$")  # ends with its job, and none starts here; see test_streams.py

    @described.hook
    def map_path_parameters(context, parameters):
        draw = random.Random(repr(parameters))  # the same request is the same again
        given = parameters or {}
        return {name: home[1][name] if name in home[1] and draw.random() < 0.5 else given[name] for name in given}

    @described.hook
    def map_body(context, body):
        is_in_order = random.Random(repr(body)).random() < 0.3
        return IN_ORDER.get(context.operation.label, body) if is_in_order else body

    return described


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_call_fails_and_every_answer_is_as_described(api, mode):
    answered = set()

    def ask(case):
        answer = case.call_and_validate(checks=CHECKS, headers={CSRF_HEADER: TOKEN}, cookies={CSRF_COOKIE: TOKEN})
        answered.add((case.operation.label, answer.status_code))

    assert complaints(api, mode, 20, ask) == {}
    assert 403 not in {status for _, status in answered}  # what was asked for was looked at
    if mode is schemathesis.GenerationMode.POSITIVE:
        assert {200, 201} <= {status for _, status in answered}  # not refusals alone


def test_no_change_is_taken_without_its_token(api):
    def ask(case):
        assert case.call_and_validate(checks=CHECKS).status_code in (403, 422)

    assert complaints(api.exclude(method="GET"), schemathesis.GenerationMode.POSITIVE, 5, ask) == {}


def complaints(api, mode, examples, ask):
    """What came of asking each call so many times: by call, the first thing that was wrong."""
    found = {}
    operations = [result.ok() for result in api.get_all_operations()]
    for operation in sorted(operations, key=turn):
        asked = settings(EXAMPLES, max_examples=examples)(given(operation.as_strategy(generation_mode=mode))(ask))
        try:
            asked()
        except Unsatisfiable:  # a call that takes nothing cannot be given anything wrong
            continue
        except (AssertionError, FailureGroup, Failure) as failure:
            found[operation.label] = str(failure)
    return found


def turn(operation):
    """Reading comes first, so that no stream follows a job that waits for ever; what is there is cancelled and goes last."""
    methods = ("get", "post", "delete")
    return methods.index(operation.method.lower()), operation.path.endswith("/cancel"), operation.path
