"""Sweeps and settings: which points they give, whose options they reach, and what is refused by name."""

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.comparison.grid import grid, parse_assignments, points_of


def names(*arguments, **keywords) -> list[str]:
    return [point.name for point in grid(*arguments, **keywords)]


def test_without_a_sweep_each_objective_is_one_point_with_its_defaults():
    assert names(["dpo", "LN_DPO"]) == ["dpo", "ln-dpo"]


def test_a_sweep_reaches_every_objective_that_has_the_option():
    found = names(["dpo", "rdpo", "sft"], sweep={"beta": "0.01,1"})
    assert found == ["dpo beta=0.01", "dpo beta=1", "rdpo beta=0.01", "rdpo beta=1", "sft"]


def test_several_sweeps_give_their_product():
    points = grid(["dpo", "rdpo"], sweep={"beta": "0.1,1", "rdpo.flip-rate": "0.1,0.2,0.3"})
    assert [len(points_of(points, name)) for name in ("dpo", "rdpo")] == [2, 6]
    assert points[-1].options == {"beta": 1.0, "flip_rate": 0.3}
    assert (points[-1].make().beta, points[-1].make().flip_rate) == (1.0, 0.3)


def test_what_names_one_objective_goes_before_what_names_all():
    found = names(["dpo", "rdpo"], sweep={"beta": "0.1,1"}, settings={"rdpo.beta": "0.5"})
    assert found == ["dpo beta=0.1", "dpo beta=1", "rdpo beta=0.5"]
    assert names(["dpo", "rdpo"], settings={"beta": 0.2, "rdpo.beta": 0.3}) == ["dpo beta=0.2", "rdpo beta=0.3"]


def test_the_learning_rate_may_be_swept_too():
    (point, _) = grid(["dpo"], sweep={"learning_rate": "1e-6,1e-5"})
    assert point.training() == {"learning_rate": 1e-6}
    assert point.make() == grid(["dpo"])[0].make()


def test_doubled_values_are_one_point_and_words_are_values_too():
    assert names(["dpo"], sweep={"beta": "0.1,0.10"}) == ["dpo beta=0.1"]
    assert names(["rpo"], sweep={"sft_reduction": "sum,seq_mean"}) == [
        "rpo sft_reduction=sum",
        "rpo sft_reduction=seq_mean",
    ]


@pytest.mark.parametrize(
    ("objectives", "sweep", "settings", "message"),
    [
        ([], {}, {}, r"name the objectives"),
        (["dpoo"], {}, {}, r"unknown objective 'dpoo' \(did you mean 'dpo'\?\)"),
        (["dpo", "DPO"], {}, {}, r"'dpo' is named twice"),
        (
            ["dpo"],
            {"betta": "1"},
            {},
            r"--sweep betta: none of the objectives has this option \(did you mean 'beta'\?\)",
        ),
        (["dpo", "rdpo"], {"dpo.flip_rate": "0.1"}, {}, r"dpo has no option 'flip_rate'"),
        (["dpo"], {"rdpo.beta": "0.1"}, {}, r"rdpo is not among the objectives compared"),
        (["dpo"], {"beta": "0.1,much"}, {}, r"--sweep dpo.beta: expected a number, got 'much'"),
        (["rdpo"], {"flip_rate": "0.1,0.6"}, {}, r"flip_rate=0.6"),
        (["dpo"], {"beta": "0.1,0"}, {}, r"beta=0.0 is out of range"),
        (["dpo"], {"beta": "0.1,1"}, {"beta": "1"}, r"beta of dpo is both set and swept"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(objectives, sweep, settings, message):
    with pytest.raises(OptionError, match=message):
        grid(objectives, sweep, settings)


def test_assignments_are_names_with_values():
    assert parse_assignments(["beta=0.1,1", "rdpo.flip_rate=0.2"], "--sweep") == {
        "beta": "0.1,1",
        "rdpo.flip_rate": "0.2",
    }
    for words, message in (
        (["beta"], "expected NAME=VALUE"),
        (["beta="], "expected NAME=VALUE"),
        (["a=1", "a=2"], "twice"),
    ):
        with pytest.raises(OptionError, match=message):
            parse_assignments(words, "--sweep")
