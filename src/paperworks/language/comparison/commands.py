"""The command lines that a comparison leads to: training with the settings that came out best."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from paperworks.core.options import to_mapping
from paperworks.language.comparison.findings import PointFindings
from paperworks.language.online.methods import METHODS
from paperworks.language.rewards.options import RewardOptions
from paperworks.language.training import TrainOptions

_DEFAULTS: Mapping[str, Any] = {"held_out": 0.1, "precision": "float32", "device": "auto"}


def train_command(point: PointFindings, job: Mapping[str, Any]) -> str:
    """`paperworks train …` with a point's options, as the comparison trained it; `job` is CompareJob.config()."""
    words = ["paperworks", "train", point.objective, "--model", job["model"]]
    if point.objective in METHODS:
        return shlex.join([*words, *_online_words(point, job)])
    words += ["--data", job["data"]["path"]]
    training, defaults = job["training"], to_mapping(TrainOptions())
    chosen = {**{k: v for k, v in training.items() if v != defaults.get(k)}, **point.options, "select": "last"}
    rest = {k: job[k] for k in ("held_out", "eval_data", "objective_file", "precision", "device", "chat_template")}
    rest = {name: value for name, value in rest.items() if value not in (None, _DEFAULTS.get(name))}
    reading = {
        k: v for k, v in job["data"].items() if k not in ("path", "mapping") and v not in (None, "auto", "error")
    }
    for name, value in {**chosen, **rest, **reading}.items():
        words += _as_option(name, value)
    for column_of in job["data"]["mapping"].items():
        words += ["--map", "=".join(column_of)]
    if job["gradient_checkpointing"]:
        words.append("--gradient-checkpointing")
    if job["lora"]:
        words.append("--lora")
        for name, value in job["lora"].items():
            words += _as_option(f"lora_{name}", value)
    return " ".join(shlex.quote(word) for word in words)


def _online_words(point: PointFindings, job: Mapping[str, Any]) -> list[str]:
    """The rest of an online method's command; how many iterations is left to the user."""
    words = ["--prompts", job["data"]["path"]]
    reward = job["train_rewards"] or job["rewards"][:1]
    words += ["--reward", *reward] if reward else []
    given = {"max_new_tokens": job["measure"]["max_new_tokens"], "prompts_per_iteration": job["training"]["batch_size"]}
    learnt = {k: v for k, v in job["rewarding"].items() if v != to_mapping(RewardOptions()).get(k)}
    rate = {"learning_rate": job["training"]["learning_rate"]} if job["training"]["learning_rate"] else {}
    for name, value in {**given, **learnt, **rate, **point.options}.items():
        words += _as_option(name, value)
    return [*words, "--lora"] if job["lora"] else words


def _as_option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]
