"""The README.md that a model trained on its own answers carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paperworks.core.options import to_mapping
from paperworks.language.model_card import Card, write

if TYPE_CHECKING:
    from paperworks.language.online.job import OnlineJob
    from paperworks.language.online.loop import OnlineResult


def write_card(folder: Path, job: OnlineJob, result: OnlineResult, data_fingerprint: str) -> None:
    """Write `folder/README.md` in the form that the Hugging Face Hub reads."""
    worth = ", ".join(job.reward) or job.judging.judge or "none"
    shown = ("reward", "gold_reward", "kl", "length")
    write(
        folder,
        Card(
            method=job.method,
            model=job.model,
            about=type(job.objective).__doc__ or "",
            made=f"{result.iterations} iterations ({result.sampled_tokens} tokens sampled); reward: {worth}",
            data=f"`{Path(job.prompts.path).name}` (content {data_fingerprint[:16]})",
            options=to_mapping(job.objective),
            training={**to_mapping(job.online), "lora": None if job.lora is None else to_mapping(job.lora)},
            measured={f"last iteration: {name}": result.final[name] for name in shown if name in result.final},
        ),
    )
