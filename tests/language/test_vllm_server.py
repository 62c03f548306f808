"""Sampling by a server that speaks vLLM's HTTP protocol; here a stub, which answers with the policy itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import OptionError, RunError
from paperworks.language.data import Dataset, PromptRow
from paperworks.language.data.dataset import Report
from paperworks.language.online.loop import train_online
from paperworks.language.online.methods import METHODS
from paperworks.language.online.options import OnlineOptions
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards import load_reward
from paperworks.language.sampling import sample
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.train_options import TrainOptions
from paperworks.language.vllm_server import VllmServer


class Stub:
    """What a vLLM server does with these requests: `requests` are those it got, `failures` HTTP codes to give first."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.requests: list[tuple[str, Any]] = []
        self.adapters: dict[str, Policy] = {}
        self.failures: list[int] = []
        self.with_ids = True
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({"data": [{"id": "the-base"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub._lock:
                    stub.requests.append((self.path, body))
                    if stub.failures:
                        self.send_error(stub.failures.pop(0))
                        return
                    self.answer(stub.reply(self.path, body))

            def answer(self, value: Any) -> None:
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, path: str, body: Any) -> Any:
        if path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = Policy.load(body["lora_path"], device="cpu")
            return "Success: LoRA adapter added."
        if path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return "Success: LoRA adapter removed."
        writer = self.policy.reference() if body["model"] == "the-base" else self.adapters[body["model"]]
        found = sample(writer, ["x"], prompt_ids=[body["prompt"]], n=body["n"], max_new_tokens=body["max_tokens"])[0]
        return {
            "choices": [
                {
                    "index": index,
                    "finish_reason": "stop" if each.finished else "length",
                    **({"token_ids": list(each.ids)} if self.with_ids else {}),
                }
                for index, each in enumerate(found.samples)
            ]
        }


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=64), tokenizer)
    return str(policy.save(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def policy(model: str) -> Policy:
    return Policy.load(model, device="cpu", lora=LoraOptions(rank=2))


@pytest.fixture
def stub(policy: Policy) -> Iterator[Stub]:
    found = Stub(policy)
    yield found
    found.server.shutdown()
    found.server.server_close()


def server_of(stub: Stub, folder: Path) -> VllmServer:
    return VllmServer(stub.url + "/v1", folder, first_wait=0.0, timeout_seconds=20)


def test_prompts_go_as_token_ids_and_answers_come_back(stub: Stub, policy: Policy, tmp_path: Path):
    server = server_of(stub, tmp_path)
    server.synchronise(policy)
    ids = [policy.encode_prompt(prompt) for prompt in ("The film was", "I thought")]
    found = server.sample(policy, ["The film was", "I thought"], ids, n=3, max_new_tokens=5)
    assert [len(each.samples) for each in found] == [3, 3]
    for each in found:
        for answer in each.samples:
            assert answer.text == policy.decode(answer.ids) and len(answer.ids) <= 6
    asked = [body for path, body in stub.requests if path == "/v1/completions"]
    assert [body["prompt"] for body in asked] == ids or [body["prompt"] for body in asked] == ids[::-1]
    assert len({body["seed"] for body in asked}) == 2 and all(body["top_k"] == -1 for body in asked)


def test_one_adapter_is_loaded_at_a_time_and_the_base_is_the_reference(stub: Stub, policy: Policy, tmp_path: Path):
    server = server_of(stub, tmp_path)
    for _ in range(3):
        server.synchronise(policy)
    assert len(stub.adapters) == 1 and len(list(tmp_path.iterdir())) == 1
    server.sample(policy, ["a"], [[5]], n=1, max_new_tokens=2, adapted=False)
    assert stub.requests[-1][1]["model"] == "the-base"


def test_a_busy_server_is_asked_again_and_a_dead_one_named(stub: Stub, policy: Policy, tmp_path: Path):
    server = server_of(stub, tmp_path)
    stub.failures = [503, 429]
    assert server.sample(policy, ["a"], [[5]], n=1, max_new_tokens=2)
    stub.failures = [400]
    with pytest.raises(RunError, match=r"vLLM server http://127.*/v1/completions: HTTP 400.*--resume"):
        server.sample(policy, ["a"], [[5]], n=1, max_new_tokens=2)
    stub.with_ids = False
    with pytest.raises(RunError, match="without token_ids"):
        server.sample(policy, ["a"], [[5]], n=1, max_new_tokens=2)
    with pytest.raises(RunError, match=r"vLLM server http://127\.0\.0\.1:1/v1/models"):
        VllmServer("http://127.0.0.1:1", tmp_path, first_wait=0.0)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://user:secret@host", "http://host?key=1"])
def test_another_form_of_address_is_refused(url: str, tmp_path: Path):
    with pytest.raises(OptionError, match="expected http://HOST:PORT"):
        VllmServer(url, tmp_path)


def test_full_weights_cannot_be_brought_there(stub: Stub, model: str, tmp_path: Path):
    with pytest.raises(OptionError, match="--lora"):
        server_of(stub, tmp_path).synchronise(Policy.load(model, device="cpu"))


def test_a_run_samples_there_with_the_weights_of_each_iteration(stub: Stub, policy: Policy, tmp_path: Path):
    rows = Dataset(tuple(PromptRow(prompt) for prompt in ("The film was", "I thought")), Report())
    result = train_online(
        policy, METHODS["rloo"], METHODS["rloo"].objective(), rows,
        OnlineOptions(iterations=2, prompts_per_iteration=2, samples=2, max_new_tokens=4),
        TrainOptions(learning_rate=1e-3), reward=load_reward("length"), server=server_of(stub, tmp_path),
    )  # fmt: skip
    assert result.iterations == 2 and result.sampled_tokens > 0
    assert [path for path, _ in stub.requests].count("/v1/load_lora_adapter") == 2
    assert abs(result.first["kl"]) < 1e-4
