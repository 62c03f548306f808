"""How a policy is trained on what it writes, whatever the method: prompts, samples, the hold on the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option
from paperworks.language.online.credit import KlEstimator

MissingEnd = Literal["none", "score", "penalty"]
KlControl = Literal["fixed", "adaptive"]


@dataclass(frozen=True)
class OnlineOptions:
    """Sampling and what is watched while a policy learns from its own answers."""

    iterations: int = option(100, "rounds of sampling and learning", low=1)
    prompts_per_iteration: int = option(16, "prompts answered in an iteration", low=1)
    samples: int = option(4, "answers a prompt", low=1)
    max_new_tokens: int = option(64, "most tokens of an answer", low=1)
    temperature: float = option(1.0, "of sampling; what likelihood methods train is the policy at it", above=0)
    top_k: int = option(0, "sample among the k likeliest tokens; 0: all", low=0)
    updates: int = option(1, "passes over an iteration's answers (PPO's epochs)", low=1)
    minibatches: int = option(1, "optimiser steps a pass", low=1)
    kl_coef: float = option(0.05, "weight of the KL to the reference, where the method takes it from here", low=0)
    kl_control: KlControl = option("fixed", "adaptive: the weight follows kl_target (arXiv 1909.08593)")
    kl_target: float | None = option(None, "KL in nats an answer that adaptive control aims at", above=0)
    kl_horizon: int = option(1000, "answers over which adaptive control acts", low=1)
    kl_estimator: KlEstimator = option("k1", "a token's KL: k1 log r, k2 (log r)^2/2, k3 1/r - 1 + log r")
    kl_stop: float | None = option(
        None, "stop, keeping the last good weights, above this KL in nats an answer", above=0
    )
    missing_end: MissingEnd = option(
        "none", "answers cut by max_new_tokens: nothing, their reward is missing_end_reward, or that is added"
    )
    missing_end_reward: float = option(-1.0, "what answers without an end get, see missing_end")
    samples_shown: int = option(8, "answers of an iteration written to samples.jsonl", low=0)

    def __post_init__(self) -> None:
        check_ranges(self, what="online")
        if self.kl_control == "adaptive" and self.kl_target is None:
            raise OptionError("option kl_control=adaptive: expected a kl_target in nats an answer; give --kl-target 6")
        if not math.isfinite(self.missing_end_reward):
            raise OptionError(f"option missing_end_reward={self.missing_end_reward}: expected a finite number")
        if self.minibatches > self.prompts_per_iteration:
            raise OptionError(
                f"option minibatches={self.minibatches}: expected at most prompts_per_iteration={self.prompts_per_iteration}"
            )
