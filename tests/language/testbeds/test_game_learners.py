"""Learning preference games: sampled gradients against expected ones, and what the rules go to."""

from __future__ import annotations

import pytest
import torch

from paperworks.language.objectives.soft_preferences import IPOMD, OnlineDPO, OnlineIPO, OnlineSLiC
from paperworks.language.testbeds.game_learners import (
    NashMDPG,
    PairRule,
    RewardPG,
    Rule,
    SampleStream,
    exact_gradient,
    expected_frequencies,
    learn,
)
from paperworks.language.testbeds.preference_games import make_games

GAMES = make_games([0, 1], "random", actions=4)
RULES: list[Rule] = [
    PairRule(OnlineIPO(tau=0.2)),
    PairRule(OnlineIPO(tau=0.2), hard_labels=True),
    PairRule(IPOMD(tau=0.2), 0.25),
    PairRule(OnlineIPO(tau=0.2), 1.0),
    PairRule(OnlineDPO(beta=0.2)),
    PairRule(OnlineSLiC(beta=0.2)),
    NashMDPG(0.2, 0.25),
    RewardPG(GAMES.bradley_terry(), 0.2),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{type(rule).__name__} {getattr(rule, 'objective', '')}")
def test_drawn_pairs_have_the_expected_frequencies(rule: Rule) -> None:
    policy = torch.log_softmax(torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), -1)
    drawn = SampleStream([0, 1], 20_000, 1).frequencies(GAMES, rule, policy)
    expected = expected_frequencies(GAMES, rule, policy)
    assert torch.allclose(expected.sum((-1, -2)), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(drawn, expected, atol=0.015)


@pytest.mark.parametrize(
    ("rule", "rest"),
    [
        (PairRule(OnlineIPO(tau=0.3)), GAMES.equilibrium(0.3)),
        (NashMDPG(0.3), GAMES.equilibrium(0.3)),
        (PairRule(IPOMD(tau=0.3), 0.25), GAMES.soft_best_response(GAMES.equilibrium(0.4), 0.3)),
        (PairRule(OnlineIPO(tau=0.3), 1.0), GAMES.soft_best_response(GAMES.log_reference, 0.3)),
        (RewardPG(GAMES.bradley_terry(), 0.3), GAMES.tilted(GAMES.bradley_terry(), 0.3)),
    ],
)
def test_where_rules_rest(rule: Rule, rest: torch.Tensor) -> None:
    assert exact_gradient(GAMES, rule, rest).abs().max() < 1e-9
    learned = learn(GAMES, rule, [3.0], steps=600).last[0]
    assert torch.allclose(learned.exp(), rest.exp(), atol=1e-3)


def test_sampled_learning_comes_near_and_repeats() -> None:
    rule = PairRule(OnlineIPO(tau=0.3))
    first, again, other = (
        learn(GAMES, rule, [1.0], steps=200, samples=SampleStream(seeds, 64, 1)).last[0]
        for seeds in ([0, 1], [0, 1], [5, 6])
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.exp() - GAMES.equilibrium(0.3).exp()).abs().max() < 0.05


def test_a_game_s_samples_do_not_depend_on_its_company() -> None:
    rule = PairRule(OnlineIPO(tau=0.3))
    alone = make_games([1], "random", actions=4)
    together = learn(GAMES, rule, [1.0], steps=60, samples=SampleStream([0, 1], 16, 1)).last[0, 1]
    apart = learn(alone, rule, [1.0], steps=60, samples=SampleStream([1], 16, 1)).last[0, 0]
    assert torch.allclose(together, apart, atol=1e-12)


def test_the_course_begins_at_the_reference_and_diverged_rates_are_not_numbers() -> None:
    course = learn(GAMES, PairRule(OnlineIPO(tau=0.3), 1.0), [1.0, 1e4], steps=200, checkpoints=4)
    assert course.steps == (0, 50, 100, 150, 200)
    assert torch.allclose(course.log_policies[0, 0], GAMES.log_reference, atol=1e-12)
    assert course.last[0].isfinite().all()
    assert not course.last[1].isfinite().all()
