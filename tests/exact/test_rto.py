"""Token rewards of reinforced token optimisation against closed forms (arXiv 2404.18922), in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import DPO, PairLogps, ResponseLogps
from paperworks.language.sources.token_rewards import TokenRewardOptions, rto_rewards, token_terms


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


RATIO, POLICY, ONE = tensor(0.4, -2, 0.1), tensor(0.1, 0.2, -0.1), torch.zeros(3, dtype=torch.long)
NOTHING = torch.zeros(3, dtype=torch.float64)


def random_rollouts() -> dict[str, Tensor]:
    """Twelve responses of 1 to 9 tokens with log-probabilities under the three models."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 10, (12,), generator=generator)
    tokens = int(counts.sum())
    dpo, reference, policy = -5 * torch.rand(3, tokens, generator=generator, dtype=torch.float64)
    return {
        "dpo": dpo,
        "reference": reference,
        "policy": policy,
        "rewards": torch.randn(12, generator=generator, dtype=torch.float64),
        "response": torch.arange(12).repeat_interleave(counts),
    }


def by_response(values: Tensor, response: Tensor) -> Tensor:
    return values.new_zeros(int(response.max()) + 1).index_add(0, response, values)


def test_worked_rewards() -> None:
    terms, clamped = token_terms(RATIO, NOTHING, ONE)
    assert terms.tolist() == pytest.approx([0.02, -0.05, 0.005], abs=1e-12)
    assert clamped.tolist() == [False, True, False]
    found = rto_rewards(RATIO, NOTHING, POLICY, tensor(1.2), ONE)
    assert found.values.tolist() == pytest.approx([0.019, -0.052, 1.206], abs=1e-12)


def test_beta1_0_or_a_dpo_model_that_learned_nothing_is_ppo() -> None:
    expected = [-0.001, -0.002, 1.2 + 0.001]
    off = rto_rewards(RATIO, NOTHING, POLICY, tensor(1.2), ONE, TokenRewardOptions(beta1=0.0))
    same = rto_rewards(NOTHING, NOTHING, POLICY, tensor(1.2), ONE)
    assert off.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(off.values, same.values)
    assert "all are 0" in same.notes()[0]


def test_terms_telescope_without_clamping() -> None:
    drawn = random_rollouts()
    whole = 0.05 * by_response(drawn["dpo"] - drawn["reference"], drawn["response"])
    last = torch.ones_like(drawn["response"], dtype=torch.bool)
    last[:-1] = drawn["response"][1:] != drawn["response"][:-1]
    terms, clamped = token_terms(
        drawn["dpo"], drawn["reference"], drawn["response"], TokenRewardOptions(token_clip=None)
    )
    assert torch.allclose(by_response(terms, drawn["response"]), whole, atol=1e-12) and not clamped.any()
    sequence, _ = token_terms(
        drawn["dpo"], drawn["reference"], drawn["response"], TokenRewardOptions(token_clip=None, granularity="sequence")
    )
    assert torch.allclose(sequence[last], whole, atol=1e-12) and not sequence[~last].any()


@pytest.mark.parametrize("clip", [None, 0.05])
def test_pure_shaping_moves_reward_and_adds_none(clip: float | None) -> None:
    drawn = random_rollouts()
    shaped = rto_rewards(**drawn, options=TokenRewardOptions(token_clip=clip, shaping_only=True))
    kl = 0.01 * by_response(drawn["policy"] - drawn["reference"], drawn["response"])
    assert torch.allclose(by_response(shaped.values, drawn["response"]), drawn["rewards"] - kl, atol=1e-12)
    assert shaped.terms.abs().sum() > 0


def test_every_token_a_delimiter_is_rto_and_none_is_the_whole_response() -> None:
    drawn = random_rollouts()
    ids = torch.arange(len(drawn["response"]))
    scores = (drawn["dpo"], drawn["reference"], drawn["response"])
    plain, _ = token_terms(*scores)
    everywhere = TokenRewardOptions(granularity="delimiter", delimiters=tuple(ids.tolist()))
    assert torch.equal(token_terms(*scores, everywhere, token_ids=ids)[0], plain)
    nowhere = TokenRewardOptions(granularity="delimiter", delimiters=(10_000,))
    whole = TokenRewardOptions(granularity="sequence")
    assert torch.equal(token_terms(*scores, nowhere, token_ids=ids)[0], token_terms(*scores, whole)[0])


def test_a_stretch_is_paid_at_its_delimiter_and_never_crosses_responses() -> None:
    response, ids = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([5, 9, 5, 5, 5, 9])
    options = TokenRewardOptions(beta1=1.0, token_clip=None, granularity="delimiter", delimiters=(9,))
    terms, _ = token_terms(
        tensor(1, 2, 3, 4, 5, 6), torch.zeros(6, dtype=torch.float64), response, options, token_ids=ids
    )
    assert terms.tolist() == [0, 3, 0, 7, 0, 11]


def test_other_responses_change_nothing_and_large_rewards_are_clamped() -> None:
    drawn = random_rollouts()
    together = rto_rewards(**drawn)
    first = drawn["response"] == 0
    alone = rto_rewards(
        *(drawn[name][first] for name in ("dpo", "reference", "policy")), drawn["rewards"][:1], drawn["response"][first]
    )
    assert torch.equal(alone.values, together.values[first])
    assert rto_rewards(RATIO, NOTHING, POLICY, tensor(14), ONE).last.tolist() == [0, 0, 10]


def test_dpo_starts_at_log_2_and_its_margin_is_the_difference_of_token_rewards() -> None:
    drawn = random_rollouts()
    sums = {name: by_response(drawn[name], drawn["response"]) for name in ("dpo", "reference")}
    tokens = torch.bincount(drawn["response"]).double()

    def pairs(policy: Tensor) -> PairLogps:
        sides = [
            ResponseLogps(policy[part], tokens[part], sums["reference"][part]) for part in (slice(6), slice(6, 12))
        ]
        return PairLogps(*sides, torch.ones(6, dtype=torch.float64))

    assert DPO(beta=0.1).loss(pairs(sums["reference"])).tolist() == pytest.approx([math.log(2)] * 6)
    terms, _ = token_terms(
        drawn["dpo"], drawn["reference"], drawn["response"], TokenRewardOptions(beta1=0.1, token_clip=None)
    )
    rewards = by_response(terms, drawn["response"])
    margin = DPO(beta=0.1).margin(pairs(sums["dpo"]))
    assert torch.allclose(margin, rewards[:6] - rewards[6:], atol=1e-12)
