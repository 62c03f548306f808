"""Reading reward models: a sequence classifier as it is, a language model with a fresh scalar head, an adapter of either.

Settles how rows are padded, which decides where transformers reads a decoder's score. An ensemble has
`ensemble.json` beside it: a classifier with an output a member, or one of one output with the other members' own layers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from paperworks.core.errors import ModelError, first_line
from paperworks.core.files import read_json
from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language import models, vocabulary
from paperworks.language.rewards.ensemble import Scale
from paperworks.language.rewards.member_blocks import copies, load_tops
from paperworks.language.rewards.model_forward import head_linears

_CLASSIFIER = "ForSequenceClassification"
ENSEMBLE_FILE = "ensemble.json"


@dataclass(frozen=True)
class EnsembleFacts:
    """What is known of a reward model's members beside their weights."""

    members: int
    layers: int = 0  # top layers of each member's own on a frozen lower part; 0: heads alone, on one trunk
    scales: tuple[Scale, ...] | None = None  # of each member's scores on calibration texts; None: never standardised
    standardised_on: str = ""  # which texts
    correlation: float | None = None  # mean of members' pairwise correlations there

    def write(self, folder: Path) -> None:
        """Put ENSEMBLE_FILE into the folder."""
        scales = None if self.scales is None else [list(scale) for scale in self.scales]
        values = {
            "members": self.members,
            "layers": self.layers,
            "scales": scales,
            "standardised_on": self.standardised_on,
            "correlation": self.correlation,
        }
        (folder / ENSEMBLE_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def ensemble_facts(folder: str | Path) -> EnsembleFacts | None:
    """The facts in a model's folder; None for a single model. Raises ModelError where the file is damaged."""
    path = Path(folder) / ENSEMBLE_FILE
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        scales = found.get("scales")
        facts = EnsembleFacts(
            int(found["members"]),
            int(found["layers"]),
            None if scales is None else tuple(Scale(float(mean), float(deviation)) for mean, deviation in scales),
            str(found.get("standardised_on", "")),
            found.get("correlation"),
        )
    except Exception as error:  # whatever a damaged file holds
        raise ModelError(f"{path}: damaged ({first_line(error)}); put it back, or train again") from None
    if facts.members < 2 or (facts.scales is not None and len(facts.scales) != facts.members):
        raise ModelError(f"{path}: damaged (members and scales do not fit); put it back, or train again")
    return facts


def grow_head(base: nn.Module, members: int, seed: int) -> None:
    """Give a model of one output an output a member, each with weights drawn afresh."""
    config = cast(Any, base).config
    for linear in head_linears(base):  # beneath PEFT the one that trains and the one it began as
        draw = torch_generator(seed, "ensemble heads")
        spread = getattr(config, "initializer_range", None) or 0.02
        weight = torch.randn(members, linear.in_features, generator=draw) * spread
        old = linear.weight
        linear.weight = nn.Parameter(weight.to(old), requires_grad=old.requires_grad)
        if linear.bias is not None:
            linear.bias = nn.Parameter(old.new_zeros(members), requires_grad=old.requires_grad)
        linear.out_features = members
    config.num_labels = members
    config.problem_type = "regression"
    cast(Any, base).num_labels = members


def read(name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The classifier with one output of that name (see `models.resolve`) and its tokenizer; `seed` fixes a fresh head.

    The parts drawn at random are named in the model's `_fresh_modules`. Raises ModelError.
    """
    location = models.resolve(name)
    if Path(location, "adapter_config.json").is_file():
        return _read_adapter(location, name, dtype, seed)
    return _read_whole(location, name, dtype, seed)


def _read_whole(location: str, name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A sequence classifier as it is, or a language model's backbone with a fresh scalar head."""
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(location)
    except Exception as error:  # transformers, json and hub clients each raise their own
        raise ModelError(models._why_not(name, location, error)) from error
    is_classifier = any(each.endswith(_CLASSIFIER) for each in config.architectures or ())
    if config.is_encoder_decoder:
        raise ModelError(
            f"{name} is an encoder-decoder; a reward model is made from an encoder (BERT, DeBERTa …) or from a "
            "decoder-only language model (Llama, GPT-2 …)"
        )
    facts = ensemble_facts(location)
    outputs = 1 if facts is None or facts.layers else facts.members
    if is_classifier and config.num_labels != outputs:
        raise ModelError(several_outputs(name, config.num_labels))
    try:
        with torch.random.fork_rng(), _without_load_report():
            torch.manual_seed(derive_seed(seed, "reward head"))
            model, info = AutoModelForSequenceClassification.from_pretrained(
                location, num_labels=outputs, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(location))
    except Exception as error:  # as above
        if "AutoModelForSequenceClassification" in str(error):
            raise ModelError(
                f"transformers has no sequence classifier for {type(config).__name__} ({name}); use another model"
            ) from error
        raise ModelError(models._why_not(name, location, error)) from error
    fresh = sorted({key.rpartition(".")[0] for key in info["missing_keys"]})
    if is_classifier and fresh:
        raise ModelError(
            f"the model folder {location} is damaged or incomplete: it has no weights for {', '.join(fresh)}"
        )
    model._fresh_modules = tuple(fresh)
    model._ensemble = facts
    if facts is not None and facts.layers:
        tops = copies(model, facts.layers, head_linears(model)[0], facts.members, seed)
        load_tops(Path(location), tops)
        model._member_tops = tuple(tops)  # in a tuple, so that they are not saved with the model
    if fresh:
        _choose_padding(tokenizer)
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _read_adapter(location: str, name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    from peft import PeftModel

    try:
        settings = json.loads(Path(location, "adapter_config.json").read_text(encoding="utf-8"))
        base_name, task = settings["base_model_name_or_path"], settings["task_type"]
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"the adapter in {location} is damaged: adapter_config.json cannot be read ({error})"
        ) from error
    if task != "SEQ_CLS":
        raise ModelError(
            f"{name} is an adapter for generating text ({task}), not for a reward model; merge it into its model first "
            f"(peft: merge_and_unload), or start from {base_name}"
        )
    base, tokenizer = read(base_name, dtype, seed)
    facts = ensemble_facts(location)
    if facts is not None:
        grow_head(base, facts.members, seed)
    try:
        with models.quiet_peft(), _without_load_report():
            model = PeftModel.from_pretrained(cast(Any, base), location, is_trainable=True)
        if Path(location, "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(location)
    except Exception as error:  # peft, safetensors and torch each raise their own
        raise ModelError(f"the adapter in {location} does not load onto {base_name}: {first_line(error)}") from error
    inside = cast(Any, vocabulary.unwrapped(model))
    inside._fresh_modules = ()
    inside._ensemble = facts
    if tokenizer.pad_token_id is not None:
        inside.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _choose_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a padding token that is not its end token, where it has a special token to spare.

    transformers reads a decoder's score at the last token that is not padding; were that the end token too, the score
    would be read before the end and a response that never ended would look like one that did.
    """
    end = tokenizer.eos_token_id
    if end is None or tokenizer.pad_token_id not in (None, end):
        return
    template = str(tokenizer.chat_template or "")
    spare = {
        str(token): index
        for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if token.special and index not in (end, tokenizer.bos_token_id) and str(token) not in template
    }
    told = [token for token in spare if any(word in token.lower() for word in ("pad", "reserved", "unused"))]
    for token in (*told, *spare):
        tokenizer.pad_token = token
        return


def several_outputs(name: str, outputs: int) -> str:
    return (
        f"{name} gives {outputs} numbers a text, a reward model gives one; train one with `paperworks train "
        "reward-model`, or, to use one of its classes as the reward, give a function that returns it: --reward "
        "FILE.py:function"
    )


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """Without transformers' report of missing weights: a fresh head is what was asked for."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
