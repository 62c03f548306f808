"""Worlds come back from disk as they went, side by side in the order of the files."""

from __future__ import annotations

from pathlib import Path

import torch

from paperworks.language.testbeds.decoders import Decoders, Shape
from paperworks.language.testbeds.world_files import Worlds, save_world

SHAPE = Shape(vocabulary=5, length=4, width=8, layers=1, heads=2)


def test_worlds_side_by_side(tmp_path: Path) -> None:
    nets = [Decoders.fresh(SHAPE, [seed]) for seed in (3, 4)]
    files = [tmp_path / f"{place}.safetensors" for place in range(2)]
    for place, (net, file) in enumerate(zip(nets, files, strict=True)):
        save_world(file, {"policy": net, "policy_model": net.take([0])}, {"prompts": torch.full((1, 3), place)})
    found = Worlds.load(files[::-1])
    assert found["prompts"].tolist() == [[1, 1, 1], [0, 0, 0]]
    policy = found.nets("policy", SHAPE)
    assert len(policy) == 2 and policy.parameters.keys() == nets[0].parameters.keys()
    tokens = torch.tensor([[[1, 2, 3, 0]]])
    both, alone = policy.scored(tokens.expand(2, -1, -1), 1)[0], nets[1].scored(tokens, 1)[0]
    torch.testing.assert_close(both[0], alone[0])
