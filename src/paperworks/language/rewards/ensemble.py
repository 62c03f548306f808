"""Several rewards as one: members' scores brought to one scale, then combined by mean, worst case, or mean minus variance.

A policy or best-of-n that optimises one learned reward finds its errors. Members that err in different places disagree
there, and a conservative combination stays away (arXiv 2310.02743, equations 5 to 7). The mean is *not* conservative: one
member that overestimates moves it by its error over the number of members.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.errors import DataError, OptionError, RewardError, did_you_mean
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.reward import Reward

Combination = Literal["mean", "wco", "uwo"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
UWO_LAMBDA = 0.5  # the paper's choice for best-of-n; 0.1 is its usual one for PPO
DUPLICATE_CORRELATION = 0.999

Scores = NDArray[np.float64]  # [members, responses]


class Scale(NamedTuple):
    """The mean and deviation of a member's scores on calibration texts: what (score - mean) / deviation takes away.

    A reward trained on pairs has an arbitrary offset, by which minimum and variance would otherwise be decided.
    """

    mean: float
    deviation: float

    def apply(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The scores on this scale."""
        return (np.asarray(scores, float) - self.mean) / self.deviation


def scale_of(scores: ArrayLike, member: str = "a member") -> Scale:
    """Mean and population deviation of one member's scores on calibration texts.

    Raises DataError for fewer than two texts, or where all have the same score.
    """
    values = np.asarray(scores, float)
    if values.size < 2:
        raise DataError(f"calibration of {member}: expected at least 2 texts to standardise on; got {values.size}")
    deviation = float(values.std())
    if not deviation > 1e-12 * (1 + float(np.abs(values).max())):
        raise DataError(
            f"calibration of {member}: all {values.size} texts have the score {values[0]:g}, so it has no scale; give "
            "texts that differ, or leave that member out"
        )
    return Scale(float(values.mean()), deviation)


def standardised(scores: Any, scales: Sequence[Scale] | None) -> Scores:
    """Scores [members, responses] with each member on its scale; as they are for None.

    Raises OptionError where members and scales are not as many, and as `checked_scores` does.
    """
    array = checked_scores(scores)
    if scales is None:
        return array
    if len(scales) != len(array):
        raise OptionError(f"ensemble: {len(array)} members but {len(scales)} scales to standardise them by")
    return np.stack([scale.apply(row) for scale, row in zip(scales, array, strict=True)])


def combine(scores: Any, rule: Combination, uwo_lambda: float = UWO_LAMBDA) -> NDArray[np.float64]:
    """One score a response from those of the members, [members, responses] in any common scale.

    mean = (1/k) sum R_i, wco = min_i R_i, uwo = mean - uwo_lambda * variance, with the population variance (over k, not
    k - 1); uwo_lambda=0 is the mean. Raises OptionError for an unknown rule, a negative or infinite lambda, or a
    conservative rule with one member; RewardError as `checked_scores` does.
    """
    check_rule(rule, uwo_lambda)
    array = checked_scores(scores)
    if rule != "mean" and len(array) < 2:
        raise OptionError(f"combine={rule}: needs at least 2 members to disagree; got {len(array)}")
    if rule == "wco":
        return array.min(axis=0)
    mean = array.mean(axis=0)
    return mean if rule == "mean" else mean - uwo_lambda * array.var(axis=0)


def member_variance(scores: Any) -> NDArray[np.float64]:
    """How much the members disagree about each response: the population variance over [members, responses].

    Raises RewardError as `checked_scores` does.
    """
    return checked_scores(scores).var(axis=0)


def check_rule(rule: str, uwo_lambda: float) -> None:
    """Raises OptionError for an unknown combination or a lambda that is negative or not finite."""
    if rule not in COMBINATIONS:
        raise OptionError(f"combine: unknown combination {rule!r}{did_you_mean(rule, COMBINATIONS)}")
    if not (math.isfinite(uwo_lambda) and uwo_lambda >= 0):
        raise OptionError(f"uwo_lambda={uwo_lambda}: expected a finite number of at least 0 (0 is the mean)")


def checked_scores(scores: Any) -> Scores:
    """Scores as an array [members, responses]. Raises RewardError for differing lengths, no member, NaN or infinity."""
    try:
        rows = [np.asarray(row, float) for row in scores]
    except (TypeError, ValueError):
        raise RewardError("ensemble: expected one list of numbers a member") from None
    if not rows or any(row.ndim != 1 for row in rows):
        raise RewardError("ensemble: expected one list of numbers a member, at least one member")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise RewardError(
                f"ensemble: member {number} gave {len(row)} scores, member 1 gave {len(rows[0])}; expected one a response"
            )
        bad = np.flatnonzero(~np.isfinite(row))
        if len(bad):
            raise RewardError(
                f"ensemble: member {number} gave {row[bad[0]]} for response {bad[0] + 1}; expected finite numbers"
            )
    return np.stack(rows)


def member_correlation(scores: Any) -> NDArray[np.float64]:
    """Pearson's correlation of members over responses, [members, members]; NaN where a member is constant."""
    array = checked_scores(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_2d(np.corrcoef(array))


def refuse_duplicates(scores: Any, names: Sequence[str]) -> None:
    """Raises OptionError where two members are the same one: correlation above 0.999 over three or more texts."""
    correlation = member_correlation(scores)
    if checked_scores(scores).shape[1] < 3:
        return
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            if correlation[first, second] > DUPLICATE_CORRELATION:
                raise OptionError(
                    f"ensemble: {names[first]} and {names[second]} agree to a correlation of "
                    f"{correlation[first, second]:.5f}: they are one member twice; train them with different seeds"
                )


class Members(Protocol):
    """What gives the scores of all members of an ensemble at once."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def scores(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Scores:
        """Raw scores [members, responses]. Raises RewardError."""


@dataclass(frozen=True)
class SeparateMembers:
    """Members that are rewards of their own: each scores the texts by itself."""

    rewards: tuple[Reward, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(reward.name for reward in self.rewards)

    def scores(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Scores:
        return checked_scores([reward(prompts, responses) for reward in self.rewards])


@dataclass(frozen=True)
class JoinedMembers:
    """The members of several ensembles as those of one."""

    parts: tuple[Members, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names)

    def scores(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Scores:
        return checked_scores([row for part in self.parts for row in part.scores(prompts, responses)])


@dataclass(frozen=True)
class EnsembleReward:
    """Members' scores, standardised and combined: a reward like any other.

    `scales` has one a member; None combines raw scores. Raises OptionError for a rule that does not fit the members.
    """

    name: str
    members: Members
    scales: tuple[Scale, ...] | None
    rule: Combination = "mean"
    uwo_lambda: float = UWO_LAMBDA

    def __post_init__(self) -> None:
        check_rule(self.rule, self.uwo_lambda)
        count = len(self.members.names)
        if self.rule != "mean" and count < 2:
            raise OptionError(f"combine={self.rule}: needs at least 2 members to disagree; {self.name} has {count}")
        if self.scales is not None and len(self.scales) != count:
            raise OptionError(f"{self.name}: {count} members but {len(self.scales)} scales to standardise them by")

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if not responses:
            return []
        return combine(self.member_scores(prompts, responses), self.rule, self.uwo_lambda).tolist()

    def member_scores(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Scores:
        """Standardised scores of every member, [members, responses]. Raises RewardError."""
        if len(prompts) != len(responses):
            raise RewardError(f"{self.name}: got {len(prompts)} prompts and {len(responses)} responses")
        return standardised(self.members.scores(prompts, responses), self.scales)

    def combined_by(self, rule: Combination, uwo_lambda: float = UWO_LAMBDA) -> EnsembleReward:
        """The same members combined in another way."""
        return dataclasses.replace(self, rule=rule, uwo_lambda=uwo_lambda)

    def standardised_on(self, prompts: Sequence[Text], responses: Sequence[Text]) -> EnsembleReward:
        """The same with each member's scale from these texts.

        Raises DataError where a member scores them all alike, OptionError where two members are the same.
        """
        scores = self.members.scores(prompts, responses)
        scales = [scale_of(row, name) for row, name in zip(scores, self.members.names, strict=True)]
        refuse_duplicates(scores, self.members.names)
        return dataclasses.replace(self, scales=tuple(scales))


def ensemble_of(
    rewards: Sequence[Reward],
    rule: Combination,
    *,
    uwo_lambda: float = UWO_LAMBDA,
    calibration: tuple[Sequence[Text], Sequence[Text]] | None = None,
    raw: bool = False,
) -> EnsembleReward:
    """Rewards (and the members of those that are ensembles) as the members of one ensemble.

    `calibration` are prompts and responses to standardise every member on; without, each member must bring a scale of its
    own, unless `raw`. Raises OptionError for no calibration, or a reward given twice; DataError as `scale_of` does.
    """
    parts: list[Members] = []
    scales: list[Scale] = []
    unscaled: list[str] = []
    for reward in rewards:
        if isinstance(reward, EnsembleReward):
            parts.append(reward.members)
            scales += reward.scales or ()
            unscaled += [] if reward.scales else [reward.name]
        else:
            parts.append(SeparateMembers((reward,)))
            unscaled.append(reward.name)
    members = parts[0] if len(parts) == 1 else JoinedMembers(tuple(parts))
    names = members.names
    for name in names:
        if names.count(name) > 1:
            raise OptionError(
                f"ensemble: {name} is given twice; a member that is there twice never disagrees with itself"
            )
    if calibration is None and not raw and unscaled:
        raise OptionError(
            f"combine={rule}: no calibration texts for {unscaled[0]}, and raw scores have arbitrary offsets: give rows "
            "with prompts and responses by --standardise-on FILE, or --standardise-on raw to combine them as they are"
        )
    name = rewards[0].name if len(rewards) == 1 else f"{rule}({', '.join(reward.name for reward in rewards)})"
    kept = None if raw or calibration is not None else tuple(scales)
    made = EnsembleReward(name, members, kept, rule, uwo_lambda)
    return made if calibration is None else made.standardised_on(*calibration)
