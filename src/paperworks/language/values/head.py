"""A value head: hidden states in, one number a prompt (or a position) out.

It looks at states alone, never at tokens, and owns nothing of the model under it. What it is fitted to, and whether the
states carry a gradient, is its user's business. Always float32.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from paperworks.core.errors import ModelError, OptionError, first_line
from paperworks.core.files import atomic_folder, write_json_atomic
from paperworks.core.options import build, check_ranges, option, to_mapping
from paperworks.core.seeding import derive_seed

Kind = Literal["attention", "mean", "mlp"]
WEIGHTS, DESCRIPTION = "value_head.safetensors", "value_head.json"

_INSIDE = 1e-6  # a bounded value keeps this share of its range away from either end: float32 would round onto it


@dataclass(frozen=True)
class ValueHeadOptions:
    """The shape of a value head and the range of its values.

    Values lie in (low, high), by a sigmoid, where both are given, and anywhere where neither is.
    """

    kind: Kind = (
        "attention"  # one learned query over the states; or their mean through a linear map, or a small network
    )
    heads: int = option(8, "attention heads", low=1)
    hidden: int = option(0, "width of the small network's hidden layer; 0: that of the states", low=0)
    dropout: float = option(0.1, "dropout before the last linear map", low=0, below=1)
    low: float | None = None  # lower end of the values
    high: float | None = None  # upper end of the values

    def __post_init__(self) -> None:
        check_ranges(self, what="value head")
        if self.kind not in get_args(Kind):
            raise OptionError(f"value head: kind={self.kind}: expected {', '.join(get_args(Kind))}")
        if (self.low is None) != (self.high is None):
            raise OptionError(
                f"value head: low={self.low}, high={self.high}: expected both ends of the range or neither"
            )
        if self.low is not None and self.high is not None and not -math.inf < self.low < self.high < math.inf:
            raise OptionError(f"value head: low={self.low}, high={self.high}: expected low < high, both finite")


class ValueHead(nn.Module):
    """V(states): a number for each prompt (`forward`) or for each position (`at_positions`).

    `attention` pools a prompt's states by one learned query per attention head over keys and values that are linear in
    the states (arXiv 2305.14718 as released, which puts a multi-head attention layer with one learned query there; the
    query's and the output's own projections are absorbed by the query and the last linear map). `mean` and `mlp` pool by
    the mean. Positions hidden by the mask never count.
    """

    def __init__(self, width: int, options: ValueHeadOptions = ValueHeadOptions(), *, seed: int = 0) -> None:
        super().__init__()
        self.width, self.options = width, options
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "value head"))
            inner = width
            if options.kind == "attention":
                each = math.ceil(width / options.heads)
                inner = options.heads * each
                self.query = nn.Parameter(torch.randn(options.heads, each) / math.sqrt(each))
                self.key, self.value = nn.Linear(width, inner), nn.Linear(width, inner)
            elif options.kind == "mlp":
                inner = options.hidden or width
                self.layer = nn.Linear(width, inner)
            self.dropout = nn.Dropout(options.dropout)
            self.last = nn.Linear(inner, 1)

    def forward(
        self, states: Float[Tensor, "prompts positions width"], mask: Bool[Tensor, "prompts positions"]
    ) -> Float[Tensor, " prompts"]:
        """One value a prompt; `mask` is True at its tokens, of which each prompt has at least one."""
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            if self.options.kind == "attention":
                return self._value(self._attended(states, mask))
            shown = mask[:, :, None].to(states.dtype)
            mean = torch.where(mask[:, :, None], states, 0).sum(1) / shown.sum(1)
            return self._value(self._mapped(mean))

    def at_positions(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
        """One value a position, from that position's state alone (as PPO and Q-learning need).

        Raises OptionError for the kind `attention`, whose value is one of many states.
        """
        if self.options.kind == "attention":
            raise OptionError("value head: kind=attention gives a value a prompt, not a position; take mean or mlp")
        with torch.autocast(states.device.type, enabled=False):
            return self._value(self._mapped(states.float()))

    def start_at(self, value: float) -> None:
        """Make the head a constant: its values are `value` (held inside the range) until its last map is trained."""
        low, high = self.options.low, self.options.high
        if low is not None and high is not None:
            share = min(max((value - low) / (high - low), 1e-3), 1 - 1e-3)
            value = math.log(share / (1 - share))
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.fill_(value)

    def _attended(self, states: Tensor, mask: Tensor) -> Tensor:
        heads = self.options.heads
        key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (self.key(states), self.value(states)))
        query = self.query[None, :, None].expand(len(states), -1, -1, -1)
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None]).flatten(1)

    def _mapped(self, states: Tensor) -> Tensor:
        return functional.gelu(self.layer(states)) if self.options.kind == "mlp" else states

    def _value(self, features: Tensor) -> Tensor:
        raw = self.last(self.dropout(features)).squeeze(-1)
        low, high = self.options.low, self.options.high
        if low is None or high is None:
            return raw
        return low + (high - low) * raw.sigmoid().clamp(_INSIDE, 1 - _INSIDE)

    # --------------------------------------------------------------------------------------------------------- saving

    def save(self, folder: str | Path) -> Path:
        """Write the head into a folder of its own (safetensors and JSON), whole or not at all."""
        with atomic_folder(folder) as partial:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
            save_file(weights, partial / WEIGHTS)
            write_json_atomic(partial / DESCRIPTION, {"width": self.width, **to_mapping(self.options)})
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> ValueHead:
        """The head that `save` wrote, on the CPU, in eval mode. Raises ModelError where it is missing or damaged."""
        place = Path(folder)
        try:
            described: dict[str, Any] = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
            width = described.pop("width")
            head = cls(int(width), build(ValueHeadOptions, described, what="value head"))
            head.load_state_dict(load_file(place / WEIGHTS))
        except FileNotFoundError as error:
            raise ModelError(f"{folder}: no value head there ({Path(str(error.filename)).name} is missing)") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(_damaged(folder, error)) from None
        except (OptionError, SafetensorError) as error:
            raise ModelError(_damaged(folder, error)) from None
        return head.eval()


def _damaged(folder: str | Path, error: BaseException) -> str:
    return f"{folder}: the value head there is damaged ({first_line(error)}); fit it again"
