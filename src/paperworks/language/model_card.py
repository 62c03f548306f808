"""The README.md that a trained model carries: what it is, how it was made, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks import __version__
from paperworks.core.files import read_json, write_atomic
from paperworks.core.options import to_mapping, to_yaml

if TYPE_CHECKING:
    from paperworks.language.train_job import TrainJob
    from paperworks.language.training import TrainResult


@dataclass(frozen=True)
class Card:
    """What a model's README says."""

    method: str
    model: str  # what it was trained from
    about: str  # of the method; its first paragraph is shown
    made: str  # how much training
    data: str
    options: Mapping[str, Any]
    training: Mapping[str, Any]
    measured: Mapping[str, float]
    is_reward_model: bool = False


def write_card(folder: Path, job: TrainJob, result: TrainResult, data_fingerprint: str) -> None:
    """Write `folder/README.md` of a model trained on data."""
    write(
        folder,
        Card(
            method=job.objective.name,
            model=job.model,
            about=type(job.objective).__doc__ or "",
            made=f"{result.steps} optimiser steps; the weights kept are those of step {result.best_step}",
            data=f"`{Path(job.data.path).name}` (content {data_fingerprint[:16]})",
            options=to_mapping(job.objective),
            training={**to_mapping(job.training), "lora": None if job.lora is None else to_mapping(job.lora)},
            measured={name: value for name, value in result.held_out.items() if name != "step"},
            is_reward_model=job.objective.trains == "reward-model",
        ),
    )


def write(folder: Path, card: Card) -> None:
    """Write `folder/README.md` in the form that the Hugging Face Hub reads."""
    is_adapter = (folder / "adapter_config.json").is_file()
    head = {
        "library_name": "peft" if is_adapter else "transformers",
        **({"base_model": card.model} if "/" in card.model and not Path(card.model).exists() else {}),
        "pipeline_tag": "text-classification" if card.is_reward_model else "text-generation",
        "tags": list(dict.fromkeys(["paperworks", card.method, *(["reward-model"] if card.is_reward_model else [])])),
    }
    about = " ".join(card.about.strip().split("\n\n")[0].split())
    task = (
        "SequenceClassification" if card.is_reward_model else "Seq2SeqLM" if _is_encoder_decoder(folder) else "CausalLM"
    )
    auto = f"Auto{'Peft' if is_adapter else ''}ModelFor{task}"
    labels = ", num_labels=1" if card.is_reward_model and is_adapter else ""
    load = f"from {head['library_name']} import {auto}\nmodel = {auto}.from_pretrained(FOLDER{labels})"
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in card.measured.items())
    text = f"""---
{to_yaml(head)}---

# {Path(card.model).name} trained with {card.method}

{about}

Trained by paperworks {__version__} from `{Path(card.model).name}`, {card.made}. Data: {card.data}.

## Objective

```yaml
{to_yaml({"objective": card.method, **card.options}).rstrip()}
```

## Training

```yaml
{to_yaml(card.training).rstrip()}
```

## Measurements

{"| measure | value |" + chr(10) + "|---|---|" + chr(10) + measured if measured else "No rows were held out."}

## Loading

```python
{load}
```
"""
    write_atomic(folder / "README.md", text)


def _is_encoder_decoder(folder: Path) -> bool:
    adapter, config = folder / "adapter_config.json", folder / "config.json"
    if adapter.is_file():
        return bool(read_json(adapter).get("task_type") == "SEQ_2_SEQ_LM")
    return bool(config.is_file() and read_json(config).get("is_encoder_decoder"))
