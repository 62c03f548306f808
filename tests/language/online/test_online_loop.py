"""The online loop: it learns, resumes to the same bits, keeps hold of the reference, and says what went wrong."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError, OptionError, RewardError, RunError
from paperworks.language import logprobs
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import PromptRow, Where
from paperworks.language.online.kept_samples import SAMPLES
from paperworks.language.online.loop import OnlineResult
from paperworks.language.online.methods import METHODS
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import CheckedReward, Reward

Learn = Callable[..., OnlineResult]


def reward_of(function: Callable[[str], float]) -> Reward:
    return CheckedReward("given", lambda prompts, responses: [function(text) for text in responses])


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.model.named_parameters()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


# --------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ["rloo", "grpo", "ppo"])
def test_a_simple_reward_rises(name: str, small_policy: Policy, learn: Learn) -> None:
    """The share of vowels, from 0.19: far above what its noise (0.02 a mean) would show."""
    quick = {
        "iterations": 10,
        "prompts_per_iteration": 6,
        "samples": 8,
        "updates": 1,
        "max_new_tokens": 6,
        "kl_coef": 0.0,
    }
    result = learn(small_policy, name, **quick, learning_rate=2e-2)
    assert result.final["reward"] > result.first["reward"] + 0.12
    assert result.final["kl"] > 0.1


def test_a_heavier_penalty_stays_closer(small_policy: Policy, learn: Learn) -> None:
    free = learn(copy.deepcopy(small_policy), "rloo", iterations=5, kl_coef=0.0)
    held = learn(copy.deepcopy(small_policy), "rloo", iterations=5, kl_coef=1.0)
    assert held.final["kl_k3"] < 0.7 * free.final["kl_k3"]


def test_the_first_iteration_is_on_policy(small_policy: Policy, learn: Learn) -> None:
    result = learn(small_policy, "ppo", iterations=1, updates=1)
    assert result.first["kl"] == pytest.approx(0, abs=1e-4) and result.first["clipped"] == 0


@pytest.mark.parametrize(("name", "temperature"), [("rloo", 0.5), ("ppo", 0.5), ("online-dpo", 1.0)])
def test_likelihood_methods_train_the_policy_at_its_temperature(
    name: str, temperature: float, small_policy: Policy, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[float] = set()
    own = logprobs.token_logps

    def spied(*given: Any, **more: Any) -> Any:
        if "temperature" in more:  # else the self-check of the packed path
            seen.add(more["temperature"])
        return own(*given, **more)

    monkeypatch.setattr(logprobs, "token_logps", spied)
    result = learn(small_policy, name, iterations=1, updates=1, temperature=0.5)
    assert seen == {temperature} and result.first["kl"] == pytest.approx(0, abs=1e-4)
    assert any("temperature=0.5" in note for note in result.notes) and small_policy.temperature == 1


def test_micro_batches_change_nothing(small_policy: Policy, learn: Learn) -> None:
    other = copy.deepcopy(small_policy)
    whole = learn(small_policy, "grpo", iterations=1, micro_batch=3)
    cut = learn(other, "grpo", iterations=1, micro_batch=1)
    assert whole.first["grad_norm"] == pytest.approx(cut.first["grad_norm"], rel=1e-4)
    assert whole.first["loss"] == pytest.approx(cut.first["loss"], abs=1e-6)


def test_the_gold_reward_is_measured_and_never_learnt_from(small_policy: Policy, learn: Learn) -> None:
    other = copy.deepcopy(small_policy)
    result = learn(small_policy, "rloo", gold=reward_of(lambda text: -7.0))
    learn(other, "rloo")
    assert result.final["gold_reward"] == -7.0 and same(weights(small_policy), weights(other))


def test_a_judge_stands_in_for_a_reward(small_policy: Policy, learn: Learn) -> None:
    class Longer:
        name = "longer"

        def __call__(self, prompts: Any, firsts: Any, seconds: Any) -> list[float]:
            return [float(len(a) > len(b)) for a, b in zip(firsts, seconds, strict=True)]

    result = learn(small_policy, "online-dpo", reward=None, judge=Longer(), samples=3)
    assert "reward" not in result.final and result.final["rows"] == 9  # three pairs a prompt


def test_the_penalty_s_weight_follows_its_target(small_policy: Policy, learn: Learn) -> None:
    """KL is about 0 in the first iteration, below any target: the weight falls by the bound, 0.2 * 12/100."""
    control = {"kl_control": "adaptive", "kl_target": 5.0, "kl_horizon": 100, "kl_coef": 0.1}
    result = learn(small_policy, "rloo", **control)
    assert result.first["kl_weight"] == 0.1
    assert result.final["kl_weight"] == pytest.approx(0.1 * (1 - 0.2 * 12 / 100))


# ------------------------------------------------------------------------------------------------------------- resumption


class Killed(Exception):
    pass


def killed_after(iterations: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def kill(iteration: int, total: int, values: Mapping[str, float]) -> None:
        if iteration == iterations:
            raise Killed

    return kill


@pytest.mark.parametrize("name", ["ppo", "xpo"])
def test_a_killed_run_goes_on_to_the_same_bits(name: str, small_policy: Policy, learn: Learn, tmp_path: Path) -> None:
    """Killed at the end of the third iteration, before a checkpoint: goes on from the second one's."""
    whole, killed, resumed = (copy.deepcopy(small_policy) for _ in range(3))
    options = {"iterations": 4, "save_every": 2, "minibatches": 2}
    complete = learn(whole, name, folder=tmp_path / "whole", **options)
    with pytest.raises(Killed):
        learn(killed, name, folder=tmp_path / "killed", on_iteration=killed_after(3), **options)
    seen: list[int] = []
    result = learn(
        resumed, name, folder=tmp_path / "killed", resume=True, on_iteration=lambda at, *_: seen.append(at), **options
    )
    assert seen == [3, 4]
    assert same(weights(whole), weights(resumed))
    timed = ("seconds", "seconds_sampling", "seconds_scoring", "seconds_updating")
    for one, two in ((complete.final, result.final), (complete.first, result.first)):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in two.items() if k not in timed}
    assert (tmp_path / "whole" / SAMPLES).read_bytes() == (tmp_path / "killed" / SAMPLES).read_bytes()


def test_other_prompts_are_another_run(
    small_policy: Policy, learn: Learn, prompt_rows: Dataset[Any], tmp_path: Path
) -> None:
    learn(small_policy, "rloo", folder=tmp_path)
    with pytest.raises(RunError, match="the prompts are not those that the run began with"):
        learn(small_policy, "rloo", folder=tmp_path, resume=True, prompts=prompt_rows.with_rows(prompt_rows.rows[:4]))


def test_samples_can_be_read(small_policy: Policy, learn: Learn, tmp_path: Path) -> None:
    learn(small_policy, "rloo", folder=tmp_path, samples_shown=3)
    lines = [json.loads(line) for line in (tmp_path / SAMPLES).read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 1, 1, 2, 2, 2]
    assert set(lines[0]) == {"iteration", "prompt", "answer", "finished", "reward", "kl"}


# --------------------------------------------------------------------------------------------- the hold on the reference


def test_too_much_kl_brings_back_the_weights_before(small_policy: Policy, learn: Learn) -> None:
    """The update of an iteration is judged by the answers of the next: those weights are given up."""
    kept: list[dict[str, torch.Tensor]] = [weights(small_policy)]
    result = learn(
        small_policy, "rloo", iterations=9, kl_stop=0.05, kl_coef=0.0, learning_rate=2e-2,
        on_iteration=lambda *_: kept.append(weights(small_policy)),
    )  # fmt: skip
    assert "above kl_stop=0.05" in result.stopped
    assert 1 <= result.iterations == len(kept) - 1 < 9
    assert result.best_step == result.iterations - 1
    assert same(weights(small_policy), kept[-2]) and not same(kept[-1], kept[-2])


def test_a_stop_is_the_same_after_a_kill(small_policy: Policy, learn: Learn, tmp_path: Path) -> None:
    options = {"iterations": 9, "kl_stop": 0.05, "kl_coef": 0.0, "learning_rate": 2e-2, "save_every": 1}
    whole, killed, resumed, again = (copy.deepcopy(small_policy) for _ in range(4))
    complete = learn(whole, "rloo", folder=tmp_path / "whole", **options)
    with pytest.raises(RewardError):  # killed where it would have stopped, after the last checkpoint
        calls = iter(range(complete.iterations))

        def until_then(prompts: list[str], responses: list[str]) -> list[float]:
            if next(calls, None) is None:
                raise RewardError("killed")
            return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in responses]

        learn(killed, "rloo", folder=tmp_path / "killed", reward=CheckedReward("vowels", until_then), **options)
    for policy in (resumed, again):  # a run that has stopped is taken up as it stopped
        result = learn(policy, "rloo", folder=tmp_path / "killed", resume=True, **options)
        assert same(weights(policy), weights(whole))
        assert (result.stopped, result.iterations, result.best_step) == (
            complete.stopped, complete.iterations, complete.best_step,
        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- faults and warnings


def test_equal_rewards_are_counted_and_said(small_policy: Policy, learn: Learn) -> None:
    result = learn(small_policy, "grpo", reward=reward_of(lambda text: 1.0))
    assert result.final["silent_groups"] == 1 and result.final["reward_std"] == 0
    assert any(line.startswith("no signal: all samples of every prompt") for line in result.warnings)


def test_prompts_without_a_pair_are_counted(small_policy: Policy, learn: Learn) -> None:
    before = weights(small_policy)
    result = learn(small_policy, "online-dpo", reward=reward_of(lambda text: 1.0))
    assert result.left_out == {"no_pair": 6} and result.final["rows"] == 0
    assert same(before, weights(small_policy))  # nothing to learn from: no step


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_stops_the_run(value: float, small_policy: Policy, learn: Learn) -> None:
    before = weights(small_policy)
    with pytest.raises(RewardError, match="given"):
        learn(small_policy, "rloo", reward=reward_of(lambda text: value))
    assert same(before, weights(small_policy))


def test_a_policy_that_says_one_thing_is_called_collapsed(small_policy: Policy, learn: Learn) -> None:
    token = small_policy.encode_response(" film")[0]
    with torch.no_grad():  # one token is far the likeliest whatever came before
        head = small_policy.base.get_output_embeddings().weight
        head[token] = 20 * head[token] / head[token].norm()
        small_policy.base.get_decoder().norm.weight.zero_()
        small_policy.base.get_decoder().norm.register_forward_hook(
            lambda module, inputs, output: output + head[token].detach()
        )
    result = learn(small_policy, "rloo", iterations=1, max_new_tokens=2)
    (line,) = result.warnings
    assert line.startswith("collapsed answers: 100% are ' film") and line.endswith("(first at iteration 1)")


def test_answers_that_the_limit_cuts(small_policy: Policy, learn: Learn) -> None:
    five, rule = reward_of(lambda text: 5.0), {"missing_end": "score", "missing_end_reward": -3.0}
    values = learn(small_policy, "rloo", iterations=1, reward=five, **rule).first
    assert values["finished"] < 1
    assert values["reward"] == pytest.approx(5 * values["finished"] - 3 * (1 - values["finished"]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grpo", {"samples": 1}, "samples=1: grpo learns from how answers to the same prompt differ"),
        ("grpo", {"kl_control": "adaptive", "kl_target": 3.0}, "kl_control=adaptive: grpo holds to the reference"),
        ("grpo", {"reward": None}, "what are answers worth. Give --reward R"),
        ("online-dpo", {"reward": None}, "--reward R, or --judge J"),
        ("grpo", {"reward": None, "judge": object()}, "needs a number for each answer, not a judge"),
    ],
)
def test_what_cannot_be_learnt_from(
    name: str, options: dict[str, Any], message: str, small_policy: Policy, learn: Learn
) -> None:
    with pytest.raises(OptionError, match=message):
        learn(small_policy, name, **options)


def test_a_prompt_without_room_is_named_before_anything_is_sampled(small_policy: Policy, learn: Learn) -> None:
    rows = (PromptRow(prompt="short"), PromptRow(prompt="so long " * 300, where=Where("prompts.jsonl", 2)))
    with pytest.raises(DataError, match=r"prompts.jsonl:2: field 'prompt': the prompt has \d+ tokens"):
        learn(small_policy, "rloo", prompts=Dataset(rows), reward=reward_of(lambda text: 1 / 0))


def test_options_that_change_nothing_are_said(small_policy: Policy, learn: Learn) -> None:
    assert any("kl_coef=0.3 changes nothing" in line for line in learn(small_policy, "grpo", kl_coef=0.3).notes)
    assert not any("kl_coef" in line for line in learn(small_policy, "rloo", kl_coef=0.3).notes)


def test_methods_that_compare_answers_say_how_many_they_need() -> None:
    compare = {name for name, method in METHODS.items() if method.least_samples > 1}
    assert {"rloo", "grpo", "online-dpo", "online-ipo", "ipo-md", "xpo", "copg"} <= compare
    assert not {"reinforce", "ppo", "best-of-n-distill"} & compare
