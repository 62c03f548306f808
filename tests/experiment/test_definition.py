"""An experiment whose claims do not fit its parts is refused when it is built."""

import dataclasses

import pytest
import toy_experiment as toy

from paperworks.core.errors import OptionError
from paperworks.experiment import Arm, Claim, Metric


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (Claim("scor", "rdpo", "dpo", "easy"), r"part A: unknown metric 'scor' \(did you mean 'score'\?\)"),
        (Claim("score", "rdp", "dpo", "easy"), r"part A: unknown arm 'rdp' \(did you mean 'rdpo'\?\)"),
        (Claim("score", "rdpo", "dpo", "eazy"), r"part A: unknown setting 'eazy' \(did you mean 'easy'\?\)"),
        (Claim("score", "rdpo", "dpo", "easy", part="B"), r"toy: unknown part 'B'"),
        (Claim("score", "rdpo", "clean", "hard"), r"arm 'clean' of a claim takes no part in 'hard'"),
    ],
)
def test_a_claim_must_fit(claim, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(toy.EXPERIMENT, claims=(claim,))


def test_names_are_unique_and_budgets_complete():
    with pytest.raises(OptionError, match="arm 'a' is there twice"):
        toy.with_part(arms=(Arm("a"), Arm("a")))
    with pytest.raises(OptionError, match="seeds for the budget 'full' are missing"):
        toy.with_part(seeds={"smoke": 1, "small": 5})


def test_labels_default_to_names_and_arms_may_keep_to_a_setting():
    assert Arm("dpo").label == "dpo"
    assert Metric("kl").label == "kl"
    assert [arm.name for arm in toy.PART.arms_in("hard")] == ["rdpo", "dpo"]


def test_arms_with_options_can_be_keys():
    assert {Arm("dpo", options={"grid": [1]}): 1}[Arm("dpo", options={"grid": [1]})] == 1


def test_metric_text():
    assert Metric("kl", format=".1f").text(1.26) == "1.3"
    assert Metric("kl").text(float("nan")) == "–"
