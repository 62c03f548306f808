"""Rewards as options: several of them combined, clipped, priced by length, calibrated and transformed; one function builds it.

Wherever a command takes `--reward`, these options may stand beside it. The order is fixed: members are standardised and
combined, the result is clipped, length is priced, and calibration (a quantile of all that) comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option
from paperworks.language.data.schemas import PromptRow, Text
from paperworks.language.rewards.calibration import (
    CalibratedReward,
    Inference,
    Tail,
    TransformName,
    load_reference,
    transform_for,
)
from paperworks.language.rewards.ensemble import UWO_LAMBDA, EnsembleReward, ensemble_of
from paperworks.language.rewards.function import load_reward
from paperworks.language.rewards.length_penalty import CountTokens, LengthIn, length_penalised
from paperworks.language.rewards.reward import Reward, clipped, sum_of
from paperworks.language.rewards.time_limit import TimedReward

RAW = "raw"


@dataclass(frozen=True)
class RewardOptions:
    """What is made of the rewards named by `--reward`."""

    combine: Literal["sum", "mean", "wco", "uwo"] | None = option(
        None,
        "several rewards, or the members of an ensemble, as one: sum; mean; wco, the lowest; uwo, mean - lambda * variance",
    )
    combine_weights: tuple[float, ...] = option((), "factor on each reward of --combine sum; none: 1 each")
    uwo_lambda: float = option(UWO_LAMBDA, "weight of the members' variance in uwo; 0 is the mean", low=0)
    standardise_on: str | None = option(
        None,
        "rows with prompt and response on which each member is standardised before they are combined; raw: not at all "
        "(an ensemble trained here brings its scales)",
        metavar="FILE",
    )
    reward_low: float | None = option(None, "rewards below it count as it")
    reward_high: float | None = option(None, "rewards above it count as it")
    length_penalty: float = option(0.0, "taken off the reward for each token or character of a response", low=0)
    length_in: LengthIn = option("tokens", "what the length penalty counts: tokens or characters")
    calibrate: str | None = option(
        None,
        "reference responses by prompt (as `generate --n 64 --out FILE` writes them) or their scores: the reward becomes its "
        "quantile among them (InfAlign)",
        metavar="FILE",
    )
    transform: TransformName = option("auto", "of the calibrated reward: identity, log or exp; auto: by --inference")
    transform_t: float | None = option(None, "strength of --transform exp; default 10 for bon, -10 for won")
    inference: Inference = option("sample", "how the policy will be used: sample, bon (best of n) or won (worst of n)")
    inference_n: int = option(4, "the n of --inference bon or won", low=1)
    reward_timeout: float | None = option(None, "longest time of a call of your own function, in seconds", above=0)
    allow_unsandboxed: bool = option(
        False, "run unit tests (--reward tests:FIELD) without a sandbox where there is none"
    )
    tail: Tail = option("none", "calibration beyond the best reference response: none (1), or gpd (a fitted tail)")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.combine != "sum" and self.combine_weights:
            raise OptionError("combine-weights goes with --combine sum")
        if self.calibrate is None and (self.transform not in ("auto", "identity") or self.transform_t is not None):
            raise OptionError("transform goes with --calibrate FILE: it is of the calibrated reward")
        if self.calibrate is None and self.inference != "sample":
            raise OptionError(
                f"inference {self.inference} goes with --calibrate FILE, the reference's responses by prompt"
            )
        if self.calibrate is not None:
            transform_for(self.transform, self.transform_t, self.inference)

    @property
    def changes_anything(self) -> bool:
        """Whether a reward comes out as something else than it went in."""
        return self != RewardOptions()


def reward_from_options(
    specs: Sequence[str],
    options: RewardOptions = RewardOptions(),
    *,
    device: str = "auto",
    count_tokens: CountTokens | None = None,
    on_note: Callable[[str], None] | None = None,
    rows: Sequence[PromptRow] | None = None,
) -> Reward:
    """The one reward of the names given by `--reward` (see `load_reward`) and the options beside it.

    `count_tokens` gives the tokens of each response (the policy's), for a length penalty in tokens; `on_note` gets one-line
    remarks; `rows` are those of the prompts, for verifiers. Raises OptionError (several rewards and no --combine; weights
    that do not fit; a conservative combination of one member; duplicates), ModelError, RewardError, DataError.
    """
    if not specs:
        raise OptionError("give a reward: --reward NAME, FILE.py:function, or a reward model's folder or Hub id")
    check_specs(specs, options)
    return _adorned(_combined(specs, options, device, rows), options, count_tokens, on_note)


def check_specs(specs: Sequence[str], options: RewardOptions) -> None:
    """Raises OptionError for a reward that is named twice, and for several of which nothing says how they become one."""
    if len(specs) > 1 and options.combine is None:
        raise OptionError(f"{len(specs)} rewards: say how they become one: --combine sum, mean, wco or uwo")
    for spec in specs:
        if list(specs).count(spec) > 1:
            raise OptionError(f"--reward {spec} is given twice; name each reward once")


def rewards_from_options(
    specs: Sequence[str],
    options: RewardOptions = RewardOptions(),
    *,
    device: str = "auto",
    count_tokens: CountTokens | None = None,
    on_note: Callable[[str], None] | None = None,
    rows: Sequence[PromptRow] | None = None,
) -> list[Reward]:
    """The rewards to report: one where they are combined, else each by itself, with the rest of the options on each."""
    together = [specs] if options.combine is not None and specs else [[spec] for spec in specs]
    return [
        reward_from_options(each, options, device=device, count_tokens=count_tokens, on_note=on_note, rows=rows)
        for each in together
    ]


def _combined(
    specs: Sequence[str], options: RewardOptions, device: str, rows: Sequence[PromptRow] | None = None
) -> Reward:
    rewards = [
        load_reward(spec, device=device, rows=rows, allow_unsandboxed=options.allow_unsandboxed) for spec in specs
    ]
    if options.reward_timeout is not None:
        limit = options.reward_timeout
        rewards = [
            TimedReward(each, limit) if ".py:" in spec else each for spec, each in zip(specs, rewards, strict=True)
        ]
    rule = options.combine
    if rule == "sum":
        return sum_of(rewards, options.combine_weights or None)
    if len(rewards) == 1 and not isinstance(rewards[0], EnsembleReward):
        if rule in ("wco", "uwo"):
            raise OptionError(f"--combine {rule} needs at least 2 members to disagree; {specs[0]} is a single reward")
        return rewards[0]
    if rule is None and options.standardise_on is None:
        return rewards[0]  # an ensemble as it is: standardised, the mean
    calibration = None
    if options.standardise_on not in (None, RAW):
        calibration = _calibration_texts(str(options.standardise_on))
    return ensemble_of(
        rewards,
        rule or "mean",
        uwo_lambda=options.uwo_lambda,
        calibration=calibration,
        raw=options.standardise_on == RAW,
    )


def _adorned(
    reward: Reward, options: RewardOptions, count_tokens: CountTokens | None, on_note: Callable[[str], None] | None
) -> Reward:
    if options.reward_low is not None or options.reward_high is not None:
        low = float("-inf") if options.reward_low is None else options.reward_low
        high = float("inf") if options.reward_high is None else options.reward_high
        reward = clipped(reward, low, high)
    if options.length_penalty:
        reward = length_penalised(reward, options.length_penalty, options.length_in, count_tokens=count_tokens)
    if options.calibrate is not None:
        reference = load_reference(options.calibrate, reward)
        for line in reference.notes(options.inference_n if options.inference != "sample" else 1):
            if on_note is not None:
                on_note(line)
        transform = transform_for(options.transform, options.transform_t, options.inference)
        reward = CalibratedReward(reward, reference, transform, options.tail)
    return reward


def _calibration_texts(path: str) -> tuple[list[Text], list[Text]]:
    """Prompts and responses of a file: demonstrations, or both responses of each preference pair. Raises DataError."""
    from paperworks.core.errors import DataError
    from paperworks.language.data import read

    try:
        rows = read(path, "demonstration").rows
    except DataError as error:
        if error.field not in ("response", "completion"):
            raise
        pairs = read(path, "preference").rows
        return [pair.prompt for pair in pairs] * 2, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return [row.prompt for row in rows], [row.response for row in rows]
