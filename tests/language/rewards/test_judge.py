"""A judge behind an endpoint: asked patiently, never twice, and never with its key left lying about."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.online.judges import load_judge
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.endpoint import KEYS
from paperworks.language.rewards.judge import JudgeOptions, PairJudge, ScoringJudge, judge_options

Answer = (
    str | int | tuple[int, dict[str, str]] | bytes | float
)  # text, status, status with headers, body, seconds to hang


class Stub(ThreadingHTTPServer):
    """Answers each request with the next of `script`, then with what `rule` makes of the question."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Answer] = []
        self.rule: Callable[[str], Answer] = lambda question: "7"
        self.questions: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            stub.questions.append(body)
            stub.keys.append(self.headers.get("Authorization"))
            stub.at_once += 1
            stub.most_at_once = max(stub.most_at_once, stub.at_once)
            scripted = [stub.script.pop(0)] if stub.script else []
        answer = scripted[0] if scripted else stub.rule(body["messages"][-1]["content"])
        with stub.lock:
            stub.at_once -= 1  # before the answer, on which the next question follows
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        status, headers, content = 200, dict[str, str](), b""
        if self.path != "/v1/chat/completions":
            status = 404
        elif isinstance(answer, float):
            time.sleep(answer)
        elif isinstance(answer, tuple):
            status, headers = answer
        elif isinstance(answer, int):
            status = answer
        elif isinstance(answer, bytes):
            content = answer
        else:
            usage = {"prompt_tokens": 100, "completion_tokens": 2}
            content = json.dumps({"choices": [{"message": {"content": answer}}], "usage": usage}).encode()
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the one who asked went away, as after a timeout

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def options(stub: Stub, **values: Any) -> JudgeOptions:
    return JudgeOptions(model="m", url=stub.url, **{"first_wait_seconds": 0.0, "timeout_seconds": 5.0, **values})


def test_scores_are_read_from_what_a_judge_says(stub: Stub) -> None:
    said = {"plain": "8", "of ten": "Score: 8/10", "words": "I rate it 3 and no more.", "out": "6.5 out of 10"}
    stub.rule = lambda question: next(text for name, text in said.items() if f">\n{name}\n<" in question)
    assert ScoringJudge(options(stub))(["p"] * 4, list(said)) == [8, 8, 3, 6.5]
    body = stub.questions[0]
    assert (
        body["model"] == "m" and body["temperature"] == 0 and "from 1 (useless) to 10" in body["messages"][0]["content"]
    )


def test_pairs_are_asked_in_both_orders(stub: Stub) -> None:
    stub.rule = lambda question: "A"  # a judge that likes whatever comes first
    judge = PairJudge(options(stub))
    assert judge(["p"], ["one"], ["two"]) == [0.5]
    stub.rule = lambda question: "B" if question.index("good") > question.index("bad") else "The better one is: A"
    assert judge(["p", "p"], ["good", "bad"], ["bad", "good"]) == [1, 0]
    stub.rule = lambda question: "Tie"
    assert judge(["q"], ["one"], ["two"]) == [0.5]
    assert judge([], [], []) == []


def test_a_judge_of_pairs_is_named_as_a_scoring_one(stub: Stub) -> None:
    stub.rule = lambda question: "A" if question.index("good") < question.index("bad") else "B"
    judge = load_judge(f"judge:m@{stub.url}")
    assert judge(["p", "p"], ["good", "bad"], ["bad", "good"]) == [1, 0]
    with pytest.raises(OptionError, match="asked both orders"):
        load_judge(f"judge:m@{stub.url}", symmetrise=False)
    with pytest.raises(OptionError, match="expected judge:MODEL@URL"):
        load_judge("judge:m")


def test_what_passes_is_asked_again(stub: Stub) -> None:
    stub.script = [429, 500, b"{not json", b'{"choices": []}', "no number", "11", "9"]
    judge = ScoringJudge(options(stub, retries=6))
    assert judge(["p"], ["r"]) == [9]
    assert judge.endpoint.usage.requests == 7 and judge.endpoint.usage.retries == 6


def test_a_wait_that_the_endpoint_asks_for_is_kept(stub: Stub) -> None:
    stub.script = [(429, {"Retry-After": "0.3"}), (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    began = time.monotonic()
    assert ScoringJudge(options(stub))(["p"], ["r"]) == [7]
    assert time.monotonic() - began >= 0.3


def test_what_does_not_pass_ends_in_one_line_and_answers_are_kept(stub: Stub) -> None:
    stub.rule = lambda question: 500 if "bad" in question else "5"
    judge = ScoringJudge(options(stub, retries=1, concurrency=1))
    with pytest.raises(RewardError) as caught:
        judge(["p"] * 3, ["one", "bad", "two"])
    line = str(caught.value)
    assert (
        line.startswith(f"judge:m@{stub.url}: no usable answer from {stub.url} after 2 tries (500 ")
        and "\n" not in line
    )
    asked = len(stub.questions)
    stub.rule = lambda question: "6"
    assert ScoringJudge(options(stub, concurrency=1))(["p"] * 3, ["one", "bad", "two"])[:2] == [5, 6]
    assert len(stub.questions) - asked == (1 if asked == 4 else 2)  # "two" may have been asked before the stop


def test_a_hanging_endpoint_is_named(stub: Stub) -> None:
    stub.rule = lambda question: 1.0
    with pytest.raises(RewardError, match=r"after 2 tries \(no answer within 0.1 s\)"):
        ScoringJudge(options(stub, timeout_seconds=0.1, retries=1))(["p"], ["r"])


def test_an_endpoint_that_is_not_there_is_named() -> None:
    judge = ScoringJudge(JudgeOptions(model="m", url="http://127.0.0.1:9/v1", retries=1, first_wait_seconds=0))
    with pytest.raises(RewardError, match="Connection refused"):
        judge(["p"], ["r"])


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refused the key .*set PAPERWORKS_API_KEY or OPENAI_API_KEY"),
        (404, "refused the request"),
        (302, "refused"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once(stub: Stub, status: int, message: str) -> None:
    stub.rule = lambda question: (status, {"Location": "http://127.0.0.1:9/elsewhere"})
    with pytest.raises(RewardError, match=message):
        ScoringJudge(options(stub))(["p"], ["r"])
    assert len(stub.questions) == 1


def test_nothing_is_asked_twice_not_even_by_another_run(stub: Stub, own_home: Path) -> None:
    first = ScoringJudge(options(stub))
    assert first(["p", "p", "q"], ["same", "same", "same"]) == [7, 7, 7] and len(stub.questions) == 2
    second = ScoringJudge(options(stub))
    assert second(["q", "p"], ["same", "same"]) == [7, 7] and len(stub.questions) == 2
    assert second.endpoint.usage.from_cache == 2 and second.endpoint.usage.requests == 0
    assert list(own_home.rglob("answers.sqlite"))
    for changed in ({"temperature": 0.5}, {"score_template": "{prompt}{response}?"}, {"system": "Be strict."}):
        ScoringJudge(options(stub, **changed))(["p"], ["same"])
    assert len(stub.questions) == 5
    ScoringJudge(options(stub, cache="none"))(["p"], ["same"])
    assert len(stub.questions) == 6


def test_a_damaged_cache_is_named(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"nonsense" * 500)
    with pytest.raises(RewardError, match=r"cache.sqlite: the cache .* move it away"):
        ScoringJudge(options(stub, cache=str(tmp_path / "cache.sqlite")))(["p"], ["r"])


def test_the_key_is_sent_and_written_nowhere(stub: Stub, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-general")
    judge = ScoringJudge(options(stub, retries=0))
    judge(["p"], ["r"])
    monkeypatch.setenv("PAPERWORKS_API_KEY", "sk-secret\n")
    judge(["p"], ["r2"])
    assert stub.keys == ["Bearer sk-general", "Bearer sk-secret"]
    stub.rule = lambda question: 401
    with pytest.raises(RewardError) as caught:
        judge(["p"], ["r3"])
    written = b"".join(path.read_bytes() for path in own_home.rglob("*") if path.is_file())
    assert b"sk-" not in written and "sk-" not in f"{caught.value}{judge.notes()}{judge.options}"


def test_at_most_so_many_at_once_and_a_minute(stub: Stub) -> None:
    stub.rule = lambda question: (time.sleep(0.02), "7")[1]
    ScoringJudge(options(stub, concurrency=2))(["p"] * 8, [str(n) for n in range(8)])
    assert stub.most_at_once == 2
    began = time.monotonic()
    ScoringJudge(options(stub, requests_per_minute=600))(["q"] * 4, [str(n) for n in range(4)])
    assert time.monotonic() - began >= 0.3  # four starts, 0.1 s apart


def test_tokens_and_cost_are_shown(stub: Stub) -> None:
    judge = ScoringJudge(options(stub, price_in=10, price_out=50))
    assert judge.notes() == []
    judge(["p", "q"], ["r", "r"])
    judge(["p"], ["r"])
    assert judge.notes() == [
        f"judge:m@{stub.url}: 2 requests (0 retries), 1 answers from the cache, 200 tokens in, 4 out, cost 0.0022"
    ]


def test_texts_are_put_into_the_template_as_they_are(stub: Stub) -> None:
    ScoringJudge(options(stub, score_template='{"a": 1} {prompt} | {response} | {other}'))(
        ["{response}"], ["{prompt} {}"]
    )
    assert stub.questions[0]["messages"][0]["content"] == '{"a": 1} {response} | {prompt} {} | {other}'


def test_judges_by_name_and_by_file(stub: Stub, tmp_path: Path) -> None:
    reward = load_reward(f"judge:m@{stub.url}")
    assert reward(["p"], ["r"]) == [7] and reward.name == f"judge:m@{stub.url}"
    (tmp_path / "judge.yaml").write_text(f"model: big\nurl: {stub.url}\nhigh: 5\nprice-in: 2.5\n")
    found = judge_options(str(tmp_path / "judge.yaml"))
    assert (found.model, found.high, found.price_in) == ("big", 5, 2.5)
    for text, message in (
        ("m", "expected judge:MODEL@URL"),
        ("m@localhost", "expected http://HOST/v1"),
        ("m@http://me:pass@host/v1", "expected no user"),
    ):
        with pytest.raises(OptionError, match=message):
            judge_options(text)
    with pytest.raises(OptionError, match="expected low < high"):
        JudgeOptions(model="m", url=stub.url, low=5, high=5)
    with pytest.raises(OptionError, match=r"score_template lacks \{response\}"):
        JudgeOptions(model="m", url=stub.url, score_template="{prompt}")
