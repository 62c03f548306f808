"""The writer: the same seed is the same model, saved as it is; degrees are read off the implicit reward of reports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from paperworks.language.degrees import LadderOptions
from paperworks.language.testbeds import reports, tiny_alignment
from paperworks.language.testbeds.report_writer import degree_correlation, make_writer
from paperworks.language.tiny import TinySpec

SPEC = TinySpec(layers=1, width=16, heads=2, vocabulary=512, context=96, texts=8, epochs=1.0, batch_size=8)


def test_a_seed_is_a_model_and_it_is_saved(tmp_path: Path) -> None:
    made = make_writer(tmp_path, 3, SPEC)
    again, loaded = make_writer(tmp_path / "again", 3, SPEC), tiny_alignment.load_start(tmp_path)
    for name, weights in made.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name])
        assert torch.equal(weights, loaded.model.state_dict()[name])


def test_degree_correlation_turns_its_sign_with_the_reward(tmp_path: Path) -> None:
    start = make_writer(tmp_path, 0, SPEC)
    held_out = reports.generate_reports(12, 5, errors=0.0)
    assert math.isnan(degree_correlation(start, start, held_out, LadderOptions()))
    for sign in (1, -1):
        policy = tiny_alignment.load_start(tmp_path)
        with torch.no_grad():  # flatter or sharper everywhere: the more words, the more the log-ratio moves one way
            policy.model.model.norm.weight.mul_(1 + 0.5 * sign)
        sharper = degree_correlation(policy, start, held_out, LadderOptions())
        flipped = degree_correlation(start, policy, held_out, LadderOptions())
        assert sharper == pytest.approx(-flipped) and abs(sharper) > 0.1
