"""Worlds of small decoders on disk: a safetensors file a seed, and several of them side by side again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.language.testbeds.decoders import Decoders, Shape


def save_world(path: Path, nets: Mapping[str, Decoders], tensors: Mapping[str, Tensor]) -> None:
    """Nets and tensors of one seed, by name, as one file."""
    flat = dict(tensors)
    for name, net in nets.items():
        flat |= {f"{name}/{key}": value for key, value in net.parameters.items()}
    save_file({name: value.contiguous() for name, value in flat.items()}, path)


@dataclass(frozen=True)
class Worlds:
    """What several files hold, joined along the first axis, in the order of the files."""

    joined: Mapping[str, Tensor]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Worlds:
        """The saved worlds side by side."""
        found = [load_file(file) for file in files]
        return cls({name: torch.cat([each[name] for each in found]) for name in found[0]})

    def __getitem__(self, name: str) -> Tensor:
        return self.joined[name]

    def nets(self, name: str, shape: Shape) -> Decoders:
        """The nets of that name."""
        begin = f"{name}/"
        own = {key.removeprefix(begin): value for key, value in self.joined.items() if key.startswith(begin)}
        return Decoders(shape, own)
