"""Members of an ensemble that have top layers of their own on the shared lower part of one decoder.

What is below is computed once for all members; from there on each member is a model of its own: its copies of the last
layers and of the final norm, and a head drawn for it. The first member is the decoder itself, so that its folder is an
ordinary reward model; the others stand beside it in `members.safetensors`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.core.errors import ModelError, first_line
from paperworks.core.seeding import torch_generator

MEMBERS_FILE = "members.safetensors"
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


class _Call(NamedTuple):
    """What a layer was called with: the same for every member but for the states."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]


class MemberTop(nn.Module):
    """A member's own last layers, final norm and head."""

    def __init__(self, layers: nn.ModuleList, norm: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.layers, self.norm, self.head = layers, norm, head

    def states(self, calls: list[_Call]) -> Float[Tensor, "rows positions width"]:
        """Final hidden states, from what the first member's layers were called with."""
        hidden = calls[0].arguments[0]
        for layer, call in zip(self.layers, calls, strict=True):
            out = layer(hidden, *call.arguments[1:], **call.named)
            hidden = out if isinstance(out, Tensor) else out[0]
        return cast(Tensor, self.norm(hidden))


def default_layers(base: Any) -> int:
    """Own layers a member where none are given: a sixth, at least one; 0 where the architecture cannot be divided."""
    try:
        return max(1, len(_parts(base)[0]) // 6)
    except ModelError:
        return 0


def is_deep(base: Any) -> bool:
    """Whether the lower part of the decoder is worth keeping as it is: 12 layers or more."""
    return len(_parts(base)[0]) >= 12


def own_layers(base: Any, count: int) -> list[nn.Module]:
    """The last `count` layers of the decoder. Raises ModelError where it cannot be divided or has no more than that."""
    layers, _ = _parts(base)
    if not 1 <= count < len(layers):
        raise ModelError(
            f"member_layers={count}: the model has {len(layers)} layers; expected between 1 and {len(layers) - 1}, or 0 for "
            "heads on one trunk"
        )
    return list(layers)[-count:]


def freeze_below(base: Any, count: int, head: nn.Linear) -> None:
    """Only the last `count` layers, the final norm and the head train."""
    _, norm = _parts(base)
    base.requires_grad_(False)
    for module in (*own_layers(base, count), norm, head):
        module.requires_grad_(True)


def copies(base: Any, count: int, head: nn.Linear, members: int, seed: int) -> list[MemberTop]:
    """The tops of members 2 … `members`: copies of the first one's with heads drawn afresh."""
    _, norm = _parts(base)
    spread = getattr(base.config, "initializer_range", None) or 0.02
    tops = []
    for member in range(2, members + 1):
        top = MemberTop(nn.ModuleList(copy.deepcopy(own_layers(base, count))), copy.deepcopy(norm), copy.deepcopy(head))
        with torch.no_grad():
            draw = torch.randn(head.weight.shape, generator=torch_generator(seed, "member head", member))
            top.head.weight.copy_(draw * spread)
        tops.append(top)
    return tops


@contextlib.contextmanager
def watched(base: Any, count: int) -> Iterator[list[_Call]]:
    """Inside it the list fills with what the last `count` layers are called with."""
    calls: list[_Call] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if arguments:
            calls.append(_Call(arguments, dict(named)))
        else:  # some architectures name the states
            named = dict(named)
            calls.append(_Call((named.pop("hidden_states"),), named))

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in own_layers(base, count)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def save_tops(folder: Path, tops: list[MemberTop]) -> None:
    """Write MEMBERS_FILE into the folder."""
    from safetensors.torch import save_file

    values = {
        f"{number}.{name}": value.detach().cpu().contiguous().clone()
        for number, top in enumerate(tops, start=2)
        for name, value in top.state_dict().items()
    }
    save_file(values, folder / MEMBERS_FILE)


def load_tops(folder: Path, tops: list[MemberTop]) -> None:
    """Put back what `save_tops` wrote. Raises ModelError for a missing or damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / MEMBERS_FILE
    try:
        values = load_file(path)
        for number, top in enumerate(tops, start=2):
            mark = f"{number}."
            top.load_state_dict({k.removeprefix(mark): v for k, v in values.items() if k.startswith(mark)})
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ModelError(
            f"{path}: damaged or missing ({first_line(error)}); put it back, or train the ensemble again"
        ) from None


def _parts(base: Any) -> tuple[nn.ModuleList, nn.Module]:
    """A decoder's layers and its final norm. Raises ModelError where they are not where decoders have them."""
    backbone = base.get_decoder() if hasattr(base, "score") else None
    children = {} if backbone is None else dict(backbone.named_children())
    wanted = getattr(base.config, "num_hidden_layers", 0)
    layers = [each for each in children.values() if isinstance(each, nn.ModuleList) and len(each) == wanted]
    norms = [children[name] for name in _FINAL_NORMS if name in children]
    if len(layers) != 1 or len(norms) != 1:
        raise ModelError(
            f"{type(base).__name__} cannot be divided into a shared lower part and layers of the members' own; give "
            "--member-layers 0: heads on one trunk"
        )
    return layers[0], norms[0]
