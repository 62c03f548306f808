"""Options: what is refused, what is remarked on, and the warnings while training goes on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.objectives import (
    CPO,
    DPO,
    IPO,
    KTO,
    LNDPO,
    ORPO,
    RPO,
    SFT,
    ConservativeDPO,
    HingeNorm,
    Objective,
    RobustDPO,
    SimPO,
    SLiC,
    make,
    objective_class,
    objective_names,
)
from paperworks.language.objectives.lol import AdvantageLoL
from paperworks.language.objectives.npo import NPORetain
from paperworks.language.objectives.reward_modelling import BradleyTerry, RewardRegression


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (DPO, {"beta": 0.0}),
        (DPO, {"beta": -0.1}),
        (DPO, {"beta": math.nan}),
        (DPO, {"beta": math.inf}),
        (ConservativeDPO, {"flip_rate": 0.5}),
        (ConservativeDPO, {"beta": 0.0}),
        (RobustDPO, {"flip_rate": 0.5}),
        (RobustDPO, {"flip_rate": -0.01}),
        (RobustDPO, {"flip_rate": math.nan}),
        (RobustDPO, {"flip_rate": "guess"}),
        (RobustDPO, {"pair_loss": "probit"}),
        (RobustDPO, {"max_margin_warn": 0.0}),
        (IPO, {"tau": 0.0}),
        (SLiC, {"delta": 0.0}),
        (SLiC, {"lam": -1.0}),
        (HingeNorm, {"beta": 0.0}),
        (CPO, {"a_cpo": -1.0}),
        (SimPO, {"gamma_ratio": -0.1}),
        (KTO, {"desirable_weight": 0.0}),
        (KTO, {"undesirable_weight": -1.0}),
        (ORPO, {"lam": -0.1}),
        (ORPO, {"nll_reduction": "sum"}),
        (RPO, {"eta": -1e-9}),
        (RPO, {"sft_reduction": "mean"}),
        (RPO, {"base": "rejected"}),
        (RPO, {"n_base": 0}),
        (LNDPO, {"length_exponent": -0.5}),
        (LNDPO, {"length_exponent": 3.0}),
        (SFT, {"reduction": "mean"}),
        (BradleyTerry, {"label_smoothing": 0.5}),
        (BradleyTerry, {"centring": -0.1}),
        (RewardRegression, {"huber_delta": 0.0}),
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_the_option(
    objective: type[Objective], options: dict[str, Any]
) -> None:
    with pytest.raises(OptionError) as caught:
        objective(**options)
    (option,) = options
    assert option in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flip_rate_of_one_half_asks_whether_the_columns_are_swapped() -> None:
    with pytest.raises(OptionError, match=r"no information or are inverted.*swapped\?"):
        make("rdpo", {"flip_rate": "0.5"})


@pytest.mark.parametrize("name", objective_names())
def test_every_option_has_a_help_text(name: str) -> None:
    for field in dataclasses.fields(objective_class(name)):  # type: ignore[arg-type]
        assert not field.init or len(field.metadata["help"]) > 10, field.name


def test_published_defaults() -> None:
    assert make("dpo") == DPO(beta=0.1)
    assert make("rdpo") == RobustDPO(beta=0.1, flip_rate=0.1, pair_loss="sigmoid", max_margin_warn=50.0)
    assert make("rpo") == RPO(beta=0.01, eta=0.005, sft_reduction="sum", base="chosen", n_base=1)
    assert make("ln-dpo") == LNDPO(beta=5.0, length_exponent=1.0)
    assert make("simpo") == SimPO(beta=2.5, gamma_ratio=0.5)
    assert make("ipo") == IPO(tau=0.1, average=False)
    assert make("npo-rt") == NPORetain(beta=0.1, forget_weight=1.0, retain_weight=1.0, kl_weight=0.0)
    assert make("a-lol") == AdvantageLoL(clip_eps=0.9, sampling_strategy="priority", double_weight=True)
    assert make("reward-model") == BradleyTerry(margin_weight=1.0, centring=0.0, label_smoothing=0.0)


@pytest.mark.parametrize("name", objective_names())
def test_defaults_are_not_remarked_on(name: str) -> None:
    notes = make(name).option_notes()
    assert notes == [] or name == "ipo"


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (LNDPO(beta=0.1), "another scale"),
        (LNDPO(beta=0.1, length_exponent=0.0), None),
        (LNDPO(beta=5.0, length_exponent=0.0), "summed over tokens"),
        (DPO(beta=5.0), "summed over tokens"),
        (DPO(beta=0.01), None),
        (RobustDPO(beta=5.0), "rdpo multiplies"),
        (SimPO(beta=0.1), "mean over tokens"),
        (KTO(beta=5.0), "summed over tokens"),
    ],
    ids=repr,
)
def test_a_beta_on_another_loss_s_scale_is_remarked_on(objective: Objective, expected: str | None) -> None:
    notes = objective.option_notes()
    if expected is None:
        assert notes == []
    else:
        assert len(notes) == 1
        assert expected in notes[0] and "beta=" in notes[0]


def test_ipo_always_says_which_form_it_is() -> None:
    assert "sums log-ratios" in IPO().option_notes()[0]
    assert "averages log-ratios" in IPO(average=True).option_notes()[0]


@pytest.mark.parametrize(
    ("objective", "margin", "warned"),
    [
        (RobustDPO(flip_rate=0.3), 50.1, True),
        (RobustDPO(flip_rate=0.3), 49.9, False),
        (RobustDPO(flip_rate=0.3, max_margin_warn=5.0), 6.0, True),
        (RobustDPO(flip_rate=0.3, pair_loss="hinge"), 60.0, True),
        (RobustDPO(flip_rate=0.3, pair_loss="ipo"), 60.0, False),  # bounded below
        (RobustDPO(flip_rate=0.0), 60.0, False),  # DPO is bounded below
        (DPO(), 60.0, False),
    ],
    ids=repr,
)
def test_runaway_margin_is_warned_of(objective: Objective, margin: float, warned: bool) -> None:
    found = objective.warnings({"margin": 0.0}, {"margin": margin})
    assert [(line.startswith("runaway margin: ")) for line in found] == [True] * warned


@pytest.mark.parametrize(
    ("start", "now", "accuracy", "warned"),
    [(-50.0, -71.0, 0.95, True), (-50.0, -69.0, 0.95, False), (-50.0, -71.0, 0.85, False)],
)
def test_falling_chosen_log_probability_is_flagged_only_at_high_accuracy(
    start: float, now: float, accuracy: float, warned: bool
) -> None:
    found = RPO(max_drop_warn=20.0).warnings({"logp_chosen": start}, {"logp_chosen": now, "accuracy": accuracy})
    assert [(line.startswith("overoptimisation: ")) for line in found] == [True] * warned


@pytest.mark.parametrize(
    ("objective", "length", "warned"),
    [
        (RPO(beta=0.1, eta=0.1), 101.0, True),
        (RPO(beta=0.1, eta=0.1), 99.0, False),
        (RPO(beta=0.1, eta=0.1, sft_reduction="seq_mean"), 500.0, False),
    ],
    ids=repr,
)
def test_imitation_that_dominates_is_warned_of(objective: RPO, length: float, warned: bool) -> None:
    found = objective.warnings({}, {"sft_tokens": length})
    assert [(line.startswith("dominant imitation: ")) for line in found] == [True] * warned


@pytest.mark.parametrize("name", objective_names())
def test_missing_metrics_give_no_warning(name: str) -> None:
    assert make(name).warnings({}, {}) == []


def test_rpo_coefficient_has_beta_only_with_sums() -> None:
    assert RPO(beta=0.1, eta=0.2).coefficient == pytest.approx(0.02)
    assert RPO(beta=0.1, eta=0.2, sft_reduction="seq_mean").coefficient == 0.2
    assert RPO(beta=0.1, eta=0.2, sft_reduction="token_mean").coefficient == 0.2
