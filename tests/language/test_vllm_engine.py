"""Sampling by vLLM in this process; here a stand-in for the package, which answers with the policy itself."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import OptionError, RunError
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import PromptRow
from paperworks.language.online.loop import train_online
from paperworks.language.online.methods import METHODS
from paperworks.language.online.options import OnlineOptions
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards import load_reward
from paperworks.language.sampling import sample
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.train_options import TrainOptions
from paperworks.language.vllm_engine import VllmEngine


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=64), tokenizer)
    return str(policy.save(tmp_path_factory.mktemp("model")))


@pytest.fixture
def policy(model: str) -> Policy:
    return Policy.load(model, device="cpu", lora=LoraOptions(rank=2))


@dataclass
class Request:
    name: str
    number: int
    path: str


class Params:
    def __init__(self, **given: Any) -> None:
        self.given = given


class Engine:
    """What vllm.LLM does with these calls; `seen` are the adapters that it was asked with."""

    made: list[Engine] = []  # noqa: RUF012

    def __init__(self, **given: Any) -> None:
        if given["model"].endswith("broken"):
            raise RuntimeError("no GPU here\nand more")
        self.given, self.seen, self.params = given, list[Any](), list[Any]()
        self.base = Policy.load(given["model"], device="cpu")
        Engine.made.append(self)

    def generate(
        self, prompts: Sequence[Any], params: Sequence[Params], lora_request: Request | None, use_tqdm: bool
    ) -> list[Any]:
        self.seen.append(lora_request)
        self.params += [each.given for each in params]
        writer = self.base if lora_request is None else Policy.load(lora_request.path, device="cpu")
        out = []
        for prompt, each in zip(prompts, params, strict=True):
            asked = {"n": each.given["n"], "max_new_tokens": each.given["max_tokens"], "seed": each.given["seed"]}
            (found,) = sample(writer, ["x"], prompt_ids=[prompt["prompt_token_ids"]], **asked)
            outputs = [
                types.SimpleNamespace(token_ids=answer.ids, finish_reason="stop" if answer.finished else "length")
                for answer in found.samples
            ]
            out.append(types.SimpleNamespace(outputs=outputs))
        return out


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    package, lora, request = (
        types.ModuleType("vllm"),
        types.ModuleType("vllm.lora"),
        types.ModuleType("vllm.lora.request"),
    )
    package.LLM, package.SamplingParams, request.LoRARequest = Engine, Params, Request  # type: ignore[attr-defined]
    for name, module in (("vllm", package), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Engine, "made", [])
    return Engine


def test_the_adapter_of_the_moment_writes_and_the_base_is_the_reference(
    vllm: type[Engine], model: str, policy: Policy, tmp_path: Path
) -> None:
    engine = VllmEngine(model, tmp_path, rank=2)
    engine.synchronise(policy)
    engine.synchronise(policy)
    prompts = ["The film was", "I thought"]
    ids = [policy.encode_prompt(prompt) for prompt in prompts]
    found = engine.sample(policy, prompts, ids, n=3, max_new_tokens=5, temperature=0.7, top_k=4)
    engine.sample(policy, prompts, ids, n=1, max_new_tokens=5, adapted=False)
    (made,) = vllm.made
    assert [None if each is None else each.number for each in made.seen] == [2, None]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter-2"]
    assert made.given["enable_lora"] and made.given["max_lora_rank"] == 8
    first = made.params[0]
    assert (first["temperature"], first["top_k"], first["max_tokens"]) == (0.7, 4, 5) and made.params[2]["top_k"] == -1
    assert made.params[0]["seed"] != made.params[1]["seed"]
    assert [len(each.samples) for each in found] == [3, 3]
    assert all(answer.text == policy.decode(answer.ids) for each in found for answer in each.samples)


def test_a_run_is_on_policy_with_it(vllm: type[Engine], model: str, policy: Policy, tmp_path: Path) -> None:
    rows = Dataset(tuple(PromptRow(prompt=prompt) for prompt in ("The film was", "I thought")))
    online = OnlineOptions(iterations=2, prompts_per_iteration=2, samples=2, max_new_tokens=4)
    result = train_online(
        policy, METHODS["rloo"], METHODS["rloo"].objective(), rows, online, TrainOptions(learning_rate=1e-2),
        reward=load_reward("length"), server=VllmEngine(model, tmp_path, rank=2),
    )  # fmt: skip
    assert result.first["clipped"] == 0 and result.first["kl"] == pytest.approx(0, abs=1e-4)
    assert [each.number for each in vllm.made[0].seen] == [1, 2]


def test_what_cannot_be_is_one_line(
    vllm: type[Engine], model: str, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="adapters alone"):
        VllmEngine(model, tmp_path, rank=2).synchronise(Policy.load(model, device="cpu"))
    (tmp_path / "broken").mkdir()
    with pytest.raises(RunError, match=r"the engine does not start .no GPU here."):
        VllmEngine(str(tmp_path / "broken"), tmp_path, rank=2)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(OptionError, match=r"install paperworks.vllm., or give --vllm-url"):
        VllmEngine(model, tmp_path, rank=2)
