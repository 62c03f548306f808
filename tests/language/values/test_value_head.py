"""The value head: its kinds, its range, and saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import ModelError, OptionError
from paperworks.language.values import ValueHead, ValueHeadOptions

KINDS = ("attention", "mean", "mlp")
every_kind = pytest.mark.parametrize("kind", KINDS)


def states(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three prompts of 5, 3 and 1 positions, width 12, with junk where the mask hides."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5)[None] < torch.tensor([5, 3, 1])[:, None]
    return torch.randn(3, 5, 12, generator=generator), mask


@every_kind
def test_hidden_positions_do_not_count(kind: Any) -> None:
    head = ValueHead(12, ValueHeadOptions(kind)).eval()
    values, mask = states()
    junk = torch.where(mask[:, :, None], values, torch.tensor(float("nan") if kind != "attention" else 1e6))
    assert torch.allclose(head(junk, mask), head(values, mask), atol=1e-6)


@every_kind
def test_every_shown_position_counts(kind: Any) -> None:
    head = ValueHead(12, ValueHeadOptions(kind)).eval()
    values, mask = states()
    for position in range(5):
        changed = values.clone()
        changed[0, position] += 1
        assert not torch.allclose(head(changed, mask)[0], head(values, mask)[0])


def test_mean_is_the_linear_map_of_the_mean_state() -> None:
    head = ValueHead(12, ValueHeadOptions("mean")).eval()
    values, mask = states()
    expected = torch.stack([head.last(values[i, : int(mask[i].sum())].mean(0)) for i in range(3)]).squeeze(1)
    assert torch.allclose(head(values, mask), expected, atol=1e-6)


def test_attention_with_equal_keys_is_the_mean_of_the_values() -> None:
    head = ValueHead(12, ValueHeadOptions("attention", heads=5)).eval()  # 12 is no multiple of 5
    with torch.no_grad():
        head.key.weight.zero_()
    values, mask = states()
    expected = torch.stack([head.last(head.value(values[i, : int(mask[i].sum())]).mean(0)) for i in range(3)])
    assert torch.allclose(head(values, mask), expected.squeeze(1), atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "mlp"])
def test_a_prompt_of_one_position_has_that_position_s_value(kind: Any) -> None:
    head = ValueHead(12, ValueHeadOptions(kind, low=-1.0, high=2.0)).eval()
    values, mask = states()
    assert torch.allclose(head.at_positions(values)[2, 0], head(values, mask)[2], atol=1e-6)
    assert head.at_positions(values).shape == (3, 5)


def test_attention_has_no_value_of_one_position() -> None:
    with pytest.raises(OptionError, match="not a position; take mean or mlp"):
        ValueHead(12).at_positions(torch.zeros(2, 12))


@every_kind
def test_low_precision_states_give_float32_values(kind: Any) -> None:
    head = ValueHead(12, ValueHeadOptions(kind)).eval()
    values, mask = states()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(values.bfloat16(), mask)
    assert found.dtype == torch.float32
    assert torch.equal(found, head(values.bfloat16().float(), mask))


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.0, 1.0), (None, None)])
@every_kind
def test_started_at_a_value_it_is_that_constant(kind: Any, low: float | None, high: float | None) -> None:
    head = ValueHead(12, ValueHeadOptions(kind, low=low, high=high)).eval()
    head.start_at(0.7)
    assert torch.allclose(head(*states()), torch.full((3,), 0.7), atol=1e-6)


def test_the_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    heads = [ValueHead(12, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(heads[0].query, heads[1].query) and not torch.equal(heads[0].query, heads[2].query)


@every_kind
def test_saved_and_loaded_it_gives_the_same_values(kind: Any, tmp_path: Path) -> None:
    head = ValueHead(12, ValueHeadOptions(kind, heads=3, hidden=7, low=0.0, high=2.0), seed=4).eval()
    loaded = ValueHead.load(head.save(tmp_path / "value_head"))
    assert loaded.options == head.options and not loaded.training
    assert torch.equal(loaded(*states()), head(*states()))
    assert {file.suffix for file in (tmp_path / "value_head").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["weights", "json", "width", "kind", "no weights", "no folder", "list"])
def test_a_damaged_head_is_one_line(damage: str, tmp_path: Path) -> None:
    folder = ValueHead(12).save(tmp_path / "value_head")
    described = json.loads((folder / "value_head.json").read_text())
    if damage == "weights":
        (folder / "value_head.safetensors").write_bytes(b"not safetensors")
    elif damage == "json":
        (folder / "value_head.json").write_text("{")
    elif damage == "list":
        (folder / "value_head.json").write_text("[1]")
    elif damage == "no weights":
        (folder / "value_head.safetensors").unlink()
    elif damage == "no folder":
        folder = tmp_path / "elsewhere"
    else:
        (folder / "value_head.json").write_text(json.dumps({**described, damage: 13 if damage == "width" else "x"}))
    with pytest.raises(ModelError, match="value head") as found:
        ValueHead.load(folder)
    assert "\n" not in str(found.value) and str(folder) in str(found.value)


@pytest.mark.parametrize(
    "options", [{"kind": "linear"}, {"low": 0.0}, {"low": 1.0, "high": 1.0}, {"heads": 0}, {"dropout": 1.0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="value head"):
        ValueHeadOptions(**options)
