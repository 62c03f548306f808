"""The state of training on disk: trainable weights, optimiser, random numbers, position. Whole or not there; no pickle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from paperworks.core.errors import RunError, first_line
from paperworks.core.files import atomic_folder, json_value, read_json
from paperworks.core.seeding import random_state, restore_random_state


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that train, by name, detached."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_trainable(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Put values into the parameters that train. Raises RunError unless the names and shapes are the same."""
    own = trainable(model)
    if own.keys() != values.keys() or any(own[name].shape != values[name].shape for name in own):
        raise RunError("the checkpoint holds other weights than this model trains; start again with --overwrite")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def save_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any], *, keep: int = 1
) -> Path:
    """Write `folder/step-N` for state["step"] = N and remove all but the newest `keep`."""
    target = folder / f"step-{state['step']:08d}"
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments: dict[str, torch.Tensor] = {}
    for parameter, values in optimiser.state.items():
        for key, value in values.items():
            moments[f"{names[id(parameter)]}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    with atomic_folder(target) as partial:
        save_file(
            {name: value.cpu().contiguous() for name, value in trainable(model).items()},
            partial / "weights.safetensors",
        )
        save_file(moments, partial / "optimiser.safetensors")
        save_file(random_state(), partial / "random.safetensors")
        (partial / "state.json").write_text(json.dumps(json_value(state), indent=1))
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore the newest checkpoint below `folder` and return its state; None where there is none."""
    found = _steps(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        load_trainable(model, load_file(newest / "weights.safetensors"))
        moments = load_file(newest / "optimiser.safetensors")
        random = load_file(newest / "random.safetensors")
        state: dict[str, Any] = read_json(newest / "state.json")
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{newest}: damaged ({str(error).splitlines()[0]}); remove it and resume from an older one"
        ) from error
    parameters = dict(model.named_parameters())
    for name, value in moments.items():
        parameter, _, key = name.rpartition("|")
        place = "cpu" if key == "step" and not optimiser.defaults.get("fused") else parameters[parameter].device
        optimiser.state[parameters[parameter]][key] = value.to(place)
    restore_random_state(random)
    return state


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the trainable weights into the folder `path`, whole or not at all (the best so far, say)."""
    write_weights(path, trainable(model))


def write_weights(path: Path, values: Mapping[str, torch.Tensor]) -> None:
    """Write these weights into the folder `path`, whole or not at all."""
    with atomic_folder(path) as partial:
        save_file({name: value.cpu().contiguous() for name, value in values.items()}, partial / "weights.safetensors")


def load_weights(path: Path, model: nn.Module) -> None:
    """Put back what `save_weights` wrote. Raises RunError when it is damaged."""
    load_trainable(model, read_weights(path))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """What `write_weights` wrote. Raises RunError when it is damaged."""
    try:
        return load_file(path / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error, "then train again with --overwrite") from error


def _damaged(path: Path, error: Exception, then: str) -> RunError:
    return RunError(f"{path}: damaged ({first_line(error)}); remove that folder, {then}")


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name))
