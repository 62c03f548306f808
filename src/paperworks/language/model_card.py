"""The README.md that a trained model carries: what it is, how it was made, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paperworks import __version__
from paperworks.core.files import read_json, write_atomic
from paperworks.core.options import to_mapping, to_yaml

if TYPE_CHECKING:
    from paperworks.language.train_job import TrainJob
    from paperworks.language.training import TrainResult


def write_card(folder: Path, job: TrainJob, result: TrainResult, data_fingerprint: str) -> None:
    """Write `folder/README.md` in the form that the Hugging Face Hub reads."""
    is_adapter = (folder / "adapter_config.json").is_file()
    is_reward_model = job.objective.trains == "reward-model"
    head = {
        "library_name": "peft" if is_adapter else "transformers",
        **({"base_model": job.model} if "/" in job.model and not Path(job.model).exists() else {}),
        "pipeline_tag": "text-classification" if is_reward_model else "text-generation",
        "tags": list(dict.fromkeys(["paperworks", job.objective.name, *(["reward-model"] if is_reward_model else [])])),
    }
    about = " ".join((type(job.objective).__doc__ or "").strip().split("\n\n")[0].split())
    task = "SequenceClassification" if is_reward_model else "Seq2SeqLM" if _is_encoder_decoder(folder) else "CausalLM"
    auto = f"Auto{'Peft' if is_adapter else ''}ModelFor{task}"
    labels = ", num_labels=1" if is_reward_model and is_adapter else ""
    load = f"from {head['library_name']} import {auto}\nmodel = {auto}.from_pretrained(FOLDER{labels})"
    held_out = "\n".join(f"| {name} | {value:.4f} |" for name, value in result.held_out.items() if name != "step")
    text = f"""---
{to_yaml(head)}---

# {Path(job.model).name} trained with {job.objective.name}

{about}

Trained by paperworks {__version__} from `{Path(job.model).name}`, {result.steps} optimiser steps; the weights kept are
those of step {result.best_step}. Data: `{Path(job.data.path).name}` (content {data_fingerprint[:16]}).

## Objective

```yaml
{to_yaml({"objective": job.objective.name, **to_mapping(job.objective)}).rstrip()}
```

## Training

```yaml
{to_yaml({**to_mapping(job.training), "lora": None if job.lora is None else to_mapping(job.lora)}).rstrip()}
```

## Held-out measurements

{"| measure | value |" + chr(10) + "|---|---|" + chr(10) + held_out if held_out else "No rows were held out."}

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
