"""The hold on the reference: the penalty's weight, and answers that have collapsed."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.online.control import KlController, collapse
from paperworks.language.online.options import OnlineOptions


def adaptive(**more: float) -> KlController:
    return KlController(OnlineOptions(kl_coef=0.1, kl_control="adaptive", kl_target=6.0, kl_horizon=1000, **more))  # type: ignore[arg-type]


def test_a_fixed_weight_stays() -> None:
    controller = KlController(OnlineOptions(kl_coef=0.1))
    controller.see(50.0, 64)
    assert controller.weight == 0.1


def test_the_weight_follows_the_target_by_hand() -> None:
    """KL 6.6 is 10 % above 6: times 1 + 0.1 * 64/1000; KL 3 is beyond the bound: times 1 - 0.2 * 64/1000."""
    controller = adaptive()
    controller.see(6.6, 64)
    assert controller.weight == pytest.approx(0.1 * 1.0064)
    controller.see(3.0, 64)
    assert controller.weight == pytest.approx(0.1 * 1.0064 * 0.9872)


def test_the_error_is_bounded_both_ways() -> None:
    up, down = adaptive(), adaptive()
    up.see(6000.0, 100)
    down.see(-6000.0, 100)
    assert up.weight == pytest.approx(0.102) and down.weight == pytest.approx(0.098)


def test_adaptive_control_needs_a_target() -> None:
    with pytest.raises(OptionError, match="kl_control=adaptive: expected a kl_target"):
        OnlineOptions(kl_control="adaptive")


def test_more_minibatches_than_prompts_is_an_error() -> None:
    with pytest.raises(OptionError, match="minibatches=5: expected at most prompts_per_iteration=4"):
        OnlineOptions(minibatches=5, prompts_per_iteration=4)


def test_collapse_is_said_in_words() -> None:
    varied = [f"answer {i}" for i in range(10)]
    assert collapse(varied) is None
    assert "90% are empty" in (collapse([" "] * 9 + ["x"]) or "")
    assert "90% are 'yes'" in (collapse(["yes"] * 9 + ["no"]) or "")
    assert collapse(["yes"] * 8 + ["no"] * 2) is None
    assert collapse([""] * 7) is None  # too few to tell
