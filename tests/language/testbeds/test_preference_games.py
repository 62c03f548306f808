"""Preference games: what is generated, and what solutions must satisfy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.testbeds.preference_games import KINDS, Kind, PreferenceGames, make_games

SEEDS = range(4)


def policies(games: PreferenceGames, points: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(
        2 * torch.randn(points, *games.log_reference.shape, generator=generator, dtype=torch.float64), -1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_games_are_symmetric_and_the_same_whoever_is_beside_them(kind: Kind) -> None:
    games = make_games(SEEDS, kind, actions=6)
    assert torch.allclose(games.preference + games.preference.mT, torch.ones(6, 6, dtype=torch.float64), atol=1e-12)
    assert (games.preference > 0).all() and (games.preference < 1).all()
    assert torch.equal(make_games([2], kind, actions=6).preference[0], games.preference[2])


def beats(preference: Tensor) -> Tensor:
    return preference > 0.5 + 1e-9


def has_circle(preference: Tensor) -> bool:
    """Whether three answers beat one another in a circle."""
    wins = beats(preference).double()
    return bool(torch.trace(wins @ wins @ wins) > 0)


def test_only_transitive_games_have_no_circle() -> None:
    assert not any(has_circle(p) for p in make_games(SEEDS, "transitive").preference)
    for kind in ("cycle", "random-cycle"):
        assert all(has_circle(p) for p in make_games(SEEDS, kind).preference)


def test_planting_changes_three_pairs() -> None:
    plain, planted = (make_games(SEEDS, kind).preference for kind in ("transitive", "cycle"))
    changed = (plain != planted).sum((-1, -2))
    assert (changed == 6).all()
    assert torch.allclose(planted[plain != planted].sub(0.5).abs(), torch.tensor(0.4, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", [0.05, 0.3])
def test_no_policy_gains_on_the_equilibrium(kind: Kind, tau: float) -> None:
    games = make_games(SEEDS, kind, actions=6)
    equilibrium = games.equilibrium(tau)
    assert (equilibrium - games.soft_best_response(equilibrium, tau)).abs().max() <= 1e-10
    challengers = policies(games, 200)
    gains = games.win_rate(challengers, equilibrium.expand_as(challengers)) - tau * (
        games.kl(challengers) - games.kl(equilibrium)
    )
    assert gains.max() <= 0.5 + 1e-9


def test_exploitability_is_what_the_best_challenger_gains() -> None:
    games, tau = make_games(SEEDS, "random", actions=5), 0.2
    policy = policies(games, 1)[0]
    best = games.soft_best_response(policy, tau)
    gain = games.win_rate(best, policy) - tau * (games.kl(best) - games.kl(policy)) - 0.5
    assert torch.allclose(games.regularised_exploitability(policy, tau), gain, atol=1e-12)
    others = policies(games, 100, seed=1)
    gains = games.win_rate(others, policy.expand_as(others)) - tau * (games.kl(others) - games.kl(policy)) - 0.5
    assert (gains <= gain).all()
    assert torch.allclose(games.exploitability(policy), games.against(policy).max(-1).values - 0.5)


def test_a_small_tau_s_exploitability_is_the_plain_one() -> None:
    games = make_games(SEEDS, "random", actions=5)
    policy = policies(games, 1)[0]
    assert torch.allclose(games.regularised_exploitability(policy, 1e-5), games.exploitability(policy), atol=1e-3)


def test_the_fit_recovers_the_rewards_of_a_bradley_terry_judge() -> None:
    games = make_games(SEEDS, "transitive", actions=5)
    reward = games.bradley_terry()
    assert torch.allclose(torch.sigmoid(reward[..., :, None] - reward[..., None, :]), games.preference, atol=1e-7)
    assert reward.mean(-1).abs().max() < 1e-12
    skewed = policies(games, 1)[0].exp()
    weight = skewed[..., :, None] * skewed[..., None, :]
    assert torch.allclose(games.bradley_terry(weight), reward, atol=1e-3)  # the judge is of that form, on any pairs


def test_the_fit_of_other_judges_depends_on_the_pairs_and_matches_their_win_rates() -> None:
    games = make_games(SEEDS, "random", actions=5)
    reward = games.bradley_terry()
    fitted = torch.sigmoid(reward[..., :, None] - reward[..., None, :])
    assert torch.allclose(fitted.mean(-1), games.preference.mean(-1), atol=1e-8)
    weight = torch.rand(2, *games.preference.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert games.bradley_terry(weight).shape == (2, 4, 5)
    assert (games.bradley_terry(weight) - reward).abs().max() > 0.01


def test_repeated_games_stand_beside_one_another() -> None:
    games = make_games([0, 1], "random", actions=3).repeated(2)
    assert torch.equal(games.preference[0], games.preference[1])
    assert not torch.equal(games.preference[1], games.preference[2])


@pytest.mark.parametrize(
    ("preference", "reference", "what"),
    [
        ([[0.5, 0.9], [0.2, 0.5]], [0.5, 0.5], "average the judge over both orders"),
        ([[0.5, math.nan], [0.2, 0.5]], [0.5, 0.5], "average the judge"),
        ([[0.5, 0.9], [0.1, 0.5]], [0.5, 0.3, 0.2], "expected matrices"),
    ],
)
def test_matrices_that_are_no_game_are_refused(
    preference: list[list[float]], reference: list[float], what: str
) -> None:
    with pytest.raises(OptionError, match=what):
        PreferenceGames(torch.tensor([preference]), torch.tensor([reference]).log())


def test_kinds_and_sizes_that_make_no_game_are_refused() -> None:
    with pytest.raises(OptionError, match="kind=circle"):
        make_games([0], "circle")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="actions=2"):
        make_games([0], "random", actions=2)
