import dataclasses

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.testbeds.off_policy_bandit import BANDIT, draw_pairs, limit_regret, pair_losses, train


def test_pairs_follow_their_two_policies_and_preferences_the_rewards() -> None:
    pairs = draw_pairs(BANDIT, [0], 20_000)
    for arms, policy in ((pairs.first, BANDIT.first), (pairs.second, BANDIT.second)):
        assert torch.allclose(torch.bincount(arms[0], minlength=3) / 20_000, policy.float(), atol=0.01)
    gap = BANDIT.reward[pairs.first] - BANDIT.reward[pairs.second]
    assert pairs.first_wins[gap > 0].mean() == pytest.approx(torch.sigmoid(gap[gap > 0]).mean().item(), abs=0.03)


def test_training_lowers_copg_s_regret_and_raises_that_of_the_gradient_without_baseline() -> None:
    for name, falls in (("copg", True), ("pg", False)):
        steps, regret = train(BANDIT, name, [0, 1], pairs=2000, epochs=25, learning_rate=0.01, records=4)
        assert steps[0] == 0 and steps[-1] == 100
        assert bool(((regret[-1] < regret[0]) == falls).all())


def test_a_seed_trains_alone_as_in_company() -> None:
    _, together = train(BANDIT, "ipo", [0, 1], pairs=600, epochs=3)
    _, alone = train(BANDIT, "ipo", [1], pairs=600, epochs=3)
    assert torch.allclose(together[:, 1], alone[:, 0], atol=1e-14)


def test_preferences_labelled_by_the_scores_have_dpo_s_optimum_at_the_matching_beta_only() -> None:
    # the chosen beta is 1 where the labels' slope is 1: at 0.5 the implicit reward is the score, too
    assert limit_regret(BANDIT, "dpo") == pytest.approx(0, abs=1e-9)
    assert limit_regret(dataclasses.replace(BANDIT, reward=2 * BANDIT.reward), "ipo") > 0.01


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(OptionError, match="loss 'ppo': expected one of copg, pg"):
        pair_losses(BANDIT, "ppo", BANDIT.log_reference[None], draw_pairs(BANDIT, [0], 4))  # type: ignore[arg-type]
