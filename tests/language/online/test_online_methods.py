"""Methods: who writes, how answers become rows, and that each of them takes a step."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives.policy_gradient import Penalty, Reinforce
from paperworks.language.objectives.rto import RTO
from paperworks.language.objectives.xpo import XPO
from paperworks.language.online.collecting import Draw, Models, collect
from paperworks.language.online.judges import RewardJudge
from paperworks.language.online.methods import METHODS, against_mixture, explored, online_method
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.online.rounds import Context
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards.reward import CheckedReward

SEED = (0, "rows", 0)
NOTHING = CheckedReward("nothing", lambda prompts, responses: [0.0] * len(responses))


def drawn(name: str, objective: Any = None, **options: Any) -> list[tuple[str, int, float]]:
    method = online_method(name)
    given = OnlineOptions(**{**method.defaults, **options})
    found = method.draws(objective if objective is not None else method.objective(), given)
    return [(draw.writer, draw.count, draw.share) for draw in found]


def test_who_writes() -> None:
    assert drawn("grpo", samples=4) == [("policy", 4, 0.0)]
    assert drawn("ipo-md", SimpleNamespace(mix=0.25)) == [("mixture", 2, 0.25)]
    assert drawn("nash-md", SimpleNamespace(mix=0.25)) == [("policy", 1, 0.0), ("mixture", 1, 0.25)]
    assert drawn("xpo", samples=4) == [("policy", 2, 0.0), ("reference", 2, 0.0)]


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"unknown online method 'grppo'.*grpo"):
        online_method("grppo")


def test_nash_md_is_worth_the_chance_to_beat_the_mixture(make_rollouts: Callable[..., Rollouts]) -> None:
    """Advantages are p - 1/2 - tau h, of the policy's own answers alone; the baseline is the other prompt's."""
    rollouts = make_rollouts([[1, 2], [3], [4], [5]], [0, 0, 1, 1], [2.0, 1.0, 0.0, 0.0])
    rollouts = rollouts.replace(reference=rollouts.logps - 0.1)
    objective = METHODS["nash-md"].objective(tau=0.5, baseline="none")  # type: ignore[call-arg]
    batch = against_mixture(rollouts, Context(objective, Penalty(0.0), RewardJudge(NOTHING), SEED))
    assert [item.responses["response"] for item in batch.items.items] == [((1, 2),), ((4,),)]
    first, second = (item.token_numbers["advantage"]["response"] for item in batch.items.items)
    wins = 1 / (1 + torch.tensor(-1.0).exp())
    torch.testing.assert_close(first, (wins - 0.5 - 0.5 * 0.2).expand(2))
    torch.testing.assert_close(second, torch.tensor([-0.05]))


def test_xpo_pairs_an_answer_of_its_own_with_one_of_the_fixed_sampler(make_rollouts: Callable[..., Rollouts]) -> None:
    rollouts = make_rollouts(
        [[1], [2], [3], [4]],
        [0, 0, 0, 0],
        [0.0, 0.0, 1e3, 1e3],
        from_reference=torch.tensor([False, False, True, True]),
    )
    batch = explored(rollouts, Context(XPO(), Penalty(0.0), RewardJudge(NOTHING), SEED))
    found = [(item.responses["chosen"], item.responses["rejected"]) for item in batch.items.items]
    assert found == [(((3,),), ((1,),)), (((4,),), ((2,),))]
    assert [item.numbers["explored"] for item in batch.items.items] == [1.0, 1.0]


def test_reinforce_pays_the_kl_of_the_whole_answer(four: Rollouts) -> None:
    rollouts = four.replace(reference=four.logps - 0.5)
    credit = Reinforce(baseline="none").credit(rollouts, Penalty(0.1))["advantage"]
    totals = four.rewards - 0.1 * 0.5 * four.counts
    torch.testing.assert_close(credit, totals[four.response])


# ---------------------------------------------------------------------------------------------------- collecting, learning


def collected(policy: Policy, prompts: Any, draws: list[Draw], **more: Any) -> Rollouts:
    models = Models(policy, more.pop("reference", None) or policy.reference())
    return collect(models, prompts, draws, OnlineOptions(max_new_tokens=4), seed=0, iteration=0, **more)


def test_log_probabilities_are_the_policys_whoever_writes(small_policy: Policy, prompt_rows: Any) -> None:
    from paperworks.language.online.collecting import token_scores, trees_of

    torch.manual_seed(1)
    other = small_policy.reference()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    draws = [Draw("policy", 1), Draw("reference", 1), Draw("mixture", 1, 0.5)]
    rollouts = collected(small_policy, prompt_rows.rows[:3], draws, reference=other)
    assert rollouts.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert rollouts.from_reference.tolist() == [False, True, False] * 3
    assert rollouts.own.tolist() == [True, False, False] * 3
    torch.testing.assert_close(rollouts.logps, token_scores(small_policy, trees_of(rollouts))[0], atol=1e-4, rtol=0)
    assert rollouts.reference is not None
    torch.testing.assert_close(rollouts.reference, token_scores(other, trees_of(rollouts))[0], atol=1e-4, rtol=0)


def test_answers_go_on_from_a_prefix(small_policy: Policy, prompt_rows: Any) -> None:
    start = tuple(small_policy.encode_response("not")[:-1])
    rollouts = collected(small_policy, prompt_rows.rows[:2], [Draw("policy", 2)], prefixes=[start, ()])
    prompt = small_policy.encode_prompt(prompt_rows[0].prompt)
    assert rollouts.prompt_ids[0] == (*prompt, *start)
    assert rollouts.texts[0] == "not" + small_policy.decode(rollouts.ids[0])
    assert rollouts.texts[2] == small_policy.decode(rollouts.ids[2])


@pytest.mark.parametrize(
    ("rule", "wanted"), [("none", [5.0, 5.0]), ("score", [5.0, -2.0]), ("penalty", [5.0, 3.0])]
)  # fmt: skip
def test_answers_without_an_end(rule: Any, wanted: list[float], make_rollouts: Callable[..., Rollouts]) -> None:
    from paperworks.language.online.collecting import rewards_of

    rollouts = make_rollouts([[1], [2]], [0, 0], finished=torch.tensor([True, False]))
    five = CheckedReward("five", lambda prompts, responses: [5.0] * len(responses))
    options = OnlineOptions(missing_end=rule, missing_end_reward=-2.0)
    assert rewards_of(five, rollouts, options).tolist() == wanted


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_takes_its_steps(name: str, small_policy: Policy, learn: Callable[..., Any]) -> None:
    before = small_policy.content_hash()
    more: dict[str, Any] = {}
    if name == "rto":
        more = {"objective": RTO(dpo_model="given"), "others": {"dpo": small_policy.reference()}}
    result = learn(small_policy, name, **more)
    assert result.iterations == 2 and small_policy.content_hash() != before
    assert result.sampled_tokens > 0 and result.trained_tokens > 0
    assert {"loss", "grad_norm", "length", "finished"} <= set(result.final)
    assert ("kl_weight" in result.final) == METHODS[name].penalises


def test_rto_asks_for_its_model(small_policy: Policy, learn: Callable[..., Any]) -> None:
    with pytest.raises(OptionError, match=r"dpo_model.*a model trained by DPO"):
        learn(small_policy, "rto")
    with pytest.raises(OptionError, match=r"rto: .*not given: dpo"):
        learn(small_policy, "rto", objective=RTO(dpo_model="given"))


def test_rto_without_token_rewards_is_ppo(small_policy: Policy, learn: Callable[..., Any]) -> None:
    start = {key: value.clone() for key, value in small_policy.model.state_dict().items()}
    found = []
    for name, objective in (("rto", METHODS["rto"].objective(beta1=0.0)), ("ppo", METHODS["ppo"].objective())):
        small_policy.model.load_state_dict(start)
        learn(small_policy, name, objective=objective, kl_coef=0.01)
        found.append({key: value.clone() for key, value in small_policy.model.state_dict().items()})
    assert all(torch.equal(found[0][key], found[1][key]) for key in start)


def test_dr_po_begins_with_logged_tokens(small_policy: Policy, pair_rows: Any, learn: Callable[..., Any]) -> None:
    result = learn(small_policy, "dr-po", prompts=pair_rows)
    assert result.final["reset_share"] == 1 and result.final["reset_length"] >= 1


def test_dr_po_without_resets_is_ppo(small_policy: Policy, pair_rows: Any, learn: Callable[..., Any]) -> None:
    start = {key: value.clone() for key, value in small_policy.model.state_dict().items()}
    found = []
    for name, objective in (
        ("dr-po", METHODS["dr-po"].objective(reset_share=0.0)),
        ("ppo", METHODS["ppo"].objective()),
    ):
        small_policy.model.load_state_dict(start)
        learn(small_policy, name, objective=objective, prompts=pair_rows)
        found.append({key: value.clone() for key, value in small_policy.model.state_dict().items()})
    assert all(torch.equal(found[0][key], found[1][key]) for key in start)


@pytest.mark.parametrize("name", ["grpo", "ppo", "xpo", "ipo-md"])
def test_adapters_learn_over_one_copy_of_the_weights(
    name: str, small_policy: Policy, learn: Callable[..., Any]
) -> None:
    policy = small_policy.with_lora(LoraOptions(rank=2))
    with torch.no_grad():
        frozen = {key: value.clone() for key, value in policy.base.state_dict().items() if "lora" not in key}
    result = learn(policy, name)
    assert result.first["kl"] == pytest.approx(0, abs=1e-4)
    assert result.final["kl_k3"] > 0 or name == "ipo-md"
    assert all(torch.equal(policy.base.state_dict()[key], value) for key, value in frozen.items())
