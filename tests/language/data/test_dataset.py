"""What is known about rows: fingerprints, splits by prompt, means and the length warning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Dataset, Feedback, Preference, Where, fingerprint, read


def pair(prompt: str, chosen: str = "a", rejected: str = "b", **more: object) -> Preference:
    return Preference(prompt, chosen, rejected, **more)


def test_fingerprint_is_of_contents_in_order():
    rows = [pair("p"), pair("q")]
    assert fingerprint(rows) == fingerprint([pair("p", where=Where("elsewhere", 3)), pair("q")])
    others = [rows[::-1], rows[:1], [pair("p"), pair("q", weight=2.0)], [pair("p", "b", "a"), pair("q")]]
    assert len({fingerprint(other) for other in [rows, *others]}) == 5
    assert Dataset(rows).fingerprint == fingerprint(rows)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(0, 5), st.floats(0.05, 0.95))
def test_split_never_parts_a_prompt(prompts, seed, fraction):
    rows = [pair(str(prompt), f"answer {at}") for at, prompt in enumerate(prompts)]
    if len(set(prompts)) < 2:
        with pytest.raises(DataError, match="at least 2 prompts"):
            Dataset(rows).split(fraction, seed)
        return
    train, held_out = Dataset(rows).split(fraction, seed)
    assert {row.prompt for row in train}.isdisjoint(row.prompt for row in held_out)
    assert sorted([*train, *held_out], key=rows.index) == rows
    assert len(train) > 0 and len(held_out) > 0
    smallest = min(prompts.count(prompt) for prompt in prompts)
    assert len(held_out) <= max(smallest, round(fraction * len(rows)))


def test_split_is_by_seed_not_by_order():
    rows = [pair(str(at)) for at in range(40)]
    train, held_out = Dataset(rows).split(10, seed=1)
    assert len(held_out) == 10 and len(train) == 30 and train.report.read == 30
    _, reversed_held_out = Dataset(rows[::-1]).split(0.25, seed=1)
    assert set(map(repr, held_out)) == set(map(repr, reversed_held_out))
    assert list(held_out) != list(Dataset(rows).split(10, seed=2)[1])


@pytest.mark.parametrize("held_out", [0, -1, 40, 1.5, float("nan"), float("inf"), 0.0])
def test_split_out_of_range(held_out):
    with pytest.raises(OptionError, match="cannot hold out"):
        Dataset([pair(str(at)) for at in range(40)]).split(held_out)


def test_take():
    dataset = Dataset([pair("p"), pair("q")])
    assert list(dataset.take(1)) == [pair("p")] and len(dataset.take(9)) == 2
    with pytest.raises(OptionError, match="at least 1"):
        dataset.take(0)


def test_length_confounding_is_reported(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "pp", "chosen": "x" * 12, "rejected": "y" * 10}))
    report = read(path, "preference").report
    assert report.mean_characters == {"prompt": 2, "chosen": 12, "rejected": 10}
    assert report.length_ratio == pytest.approx(1.2)
    assert report.warnings[0].startswith("chosen responses are 1.20 times as long as rejected ones")
    assert read(path, "feedback").report.warnings[0].startswith("desirable responses are 1.20 times")
    assert json.loads(json.dumps(report.as_dict()))["read"] == 1
    path.write_text(json.dumps({"prompt": "pp", "chosen": "x" * 11, "rejected": "y" * 10}))
    assert read(path, "preference").report.warnings == []
    assert Dataset([Feedback("p", "a", True)]).with_rows([Feedback("p", "a", True)]).report.length_ratio is None
