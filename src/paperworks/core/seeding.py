"""Random numbers that can be had again: seeds derived from names, explicit generators, states saved without pickle."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from numbers and names, the same on every machine and in every process.

    `derive_seed(seed, "sampling", step)` gives each purpose a stream of its own; 1 and "1" differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        text = str(int(part)) if not isinstance(part, str) else part
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:{text}".encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python's, numpy's and torch's (every device's) global generators, for libraries that use them."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the libraries that we call draw from this global one
    torch.manual_seed(seed)


def torch_generator(*parts: int | str, device: Any = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `derive_seed(*parts)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def random_state() -> dict[str, torch.Tensor]:
    """The global generators' states as flat named tensors, which safetensors can save."""
    import numpy as np
    import torch

    _, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    state = {
        "python.words": torch.tensor(words, dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy.words": torch.tensor(numpy_state["state"]["key"].astype("int64")),
        "numpy.position": torch.tensor([numpy_state["state"]["pos"], numpy_state["has_gauss"]], dtype=torch.int64),
        "numpy.gauss": torch.tensor([numpy_state["gauss"]], dtype=torch.float64),
        "torch.cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state |= {f"torch.cuda.{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
    return state


def restore_random_state(state: Mapping[str, torch.Tensor]) -> None:
    """Puts the global generators where `random_state()` found them. States of GPUs that are not here are left out."""
    import numpy as np
    import torch

    gauss = state["python.gauss"].tolist()
    random.setstate((3, tuple(state["python.words"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = state["numpy.position"].tolist()
    words = {"key": state["numpy.words"].numpy().astype("uint32"), "pos": position}
    numpy_state = {
        "bit_generator": "MT19937",
        "state": words,
        "has_gauss": has_gauss,
        "gauss": state["numpy.gauss"].item(),
    }
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(state["torch.cpu"].cpu())
    for index in range(torch.cuda.device_count()):
        if f"torch.cuda.{index}" in state:
            torch.cuda.set_rng_state(state[f"torch.cuda.{index}"].cpu(), index)
