"""Calibrate and transform a reward (InfAlign, arXiv 2412.19792): its quantile among the reference's own answers to a prompt.

The calibrated reward C(x, y) is the chance that y beats a response z of the reference policy to the same prompt, a tie
counting 1/2. It lies in [0, 1], is uniform under the reference for every prompt, and does not change with any rising
transform of the reward, whatever its scale by prompt. A transform of C then says what a response is worth where the policy
is deployed with best-of-N sampling, or attacked with worst-of-N.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.core.files import write_atomic
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.reward import Reward

Inference = Literal["sample", "bon", "won"]
TransformName = Literal["auto", "identity", "log", "exp"]
Tail = Literal["none", "gpd"]
TRANSFORM_STRENGTH = 10.0  # |t| of the exponential transform; the paper's range 5 to 10 is known to us from memory only
FEWEST_SAMPLES = 8
Numbers = NDArray[np.float64]


# ------------------------------------------------------------------------------------------------------------ transforms


@dataclass(frozen=True)
class Transform:
    """A rising function of the calibrated reward, normalised to [0, 1] so that the weight of the KL is comparable.

    identity u; log u (best-of-n distillation), at C = (rank + 1/2) / (K + 1) so that rank 0 is finite; exp
    (e^(t u) - 1) / (e^t - 1), which for t < 0 is 1 - e^(-|t| u) normalised. Raises OptionError for exp without t != 0.
    """

    name: Literal["identity", "log", "exp"] = "identity"
    t: float = 0.0

    def __post_init__(self) -> None:
        if self.name == "exp" and not (math.isfinite(self.t) and self.t != 0):
            raise OptionError(
                f"transform exp: t={self.t}: expected a number other than 0, above it for best-of-n, below for worst-of-n"
            )

    @property
    def label(self) -> str:
        return f"exp({self.t:g}u)" if self.name == "exp" else "log u" if self.name == "log" else "u"

    def __call__(self, quantiles: ArrayLike, samples: ArrayLike = 1) -> Numbers:
        """Transformed quantiles, each from `samples` reference responses (read by log alone)."""
        u, k = np.asarray(quantiles, float), np.asarray(samples, float)
        if self.name == "exp":
            return exponential(u, self.t)
        if self.name == "log":
            low, high = np.log(0.5 / (k + 1)), np.log((k + 0.5) / (k + 1))
            return (np.log((u * k + 0.5) / (k + 1)) - low) / (high - low)
        return u.copy()


def exponential(u: ArrayLike, t: float) -> Numbers:
    """(e^(t u) - 1) / (e^t - 1) without overflow."""
    values = np.asarray(u, float)
    if t > 0:
        return (np.exp(t * (values - 1)) - math.exp(-t)) / -math.expm1(-t)
    return np.expm1(t * values) / math.expm1(t)


def transform_for(name: TransformName, t: float | None, inference: Inference) -> Transform:
    """The transform of these options: with auto the identity for plain sampling, exp(10u) for BoN, exp(-10u) for WoN.

    Raises OptionError where t has the wrong sign for the procedure, or is given without the exponential.
    """
    if name not in get_args(TransformName) or inference not in get_args(Inference):
        raise OptionError(f"transform {name}, inference {inference}: expected one of the names in --help")
    if name == "auto":
        name = "identity" if inference == "sample" and t is None else "exp"
    if name != "exp":
        if t is not None:
            raise OptionError(f"transform-t {t:g} goes with --transform exp; {name} has no strength")
        return Transform(name)
    if t is None:
        if inference == "sample":
            raise OptionError("--transform exp needs its strength: --transform-t, or --inference bon or won")
        t = TRANSFORM_STRENGTH if inference == "bon" else -TRANSFORM_STRENGTH
    if (inference == "bon" and t < 0) or (inference == "won" and t > 0):
        sign = "above" if inference == "bon" else "below"
        raise OptionError(f"transform-t {t:g} works against --inference {inference}, which wants t {sign} 0")
    return Transform("exp", t)


# ----------------------------------------------------------------------------------------------------------- calibration


def quantiles(rewards: ArrayLike, reference: ArrayLike) -> Numbers:
    """C of each reward against the reference's rewards of one prompt, which must be sorted ascending.

    (left rank + right rank) / (2 K): the share of them that it beats, a tie counting 1/2. By binary search.
    """
    ordered, values = np.asarray(reference, float), np.asarray(rewards, float)
    left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (left + right) / (2.0 * len(ordered))


def quantiles_with_tail(rewards: ArrayLike, reference: ArrayLike, share: float = 0.2) -> Numbers:
    """`quantiles`, with the top `share` from a generalised Pareto distribution fitted to the reference's highest.

    So rewards beyond the reference's best still differ, where the empirical C is 1 for all of them. Fitted by
    probability-weighted moments (Hosking and Wallis 1987); falls back to `quantiles` with fewer than 5 different values
    there. Not invariant to transforms of the reward, as the rest is.
    """
    ordered, values = np.asarray(reference, float), np.asarray(rewards, float)
    plain, count = quantiles(values, ordered), max(5, math.ceil(share * len(ordered)))
    if count >= len(ordered) or len(np.unique(ordered[-count:])) < 5:
        return plain
    threshold = ordered[-count - 1]
    excess = ordered[-count:] - threshold
    places = (np.arange(1, count + 1) - 0.35) / count
    mean, weighted = float(excess.mean()), float((excess * (1 - places)).mean())
    if not mean > 2 * weighted > 0:
        return plain
    shape, scale = 2 - mean / (mean - 2 * weighted), 2 * mean * weighted / (mean - 2 * weighted)
    shape = min(max(shape, 0.0), 0.9)  # an end point below a reward that was seen would saturate again
    over = np.maximum(values - threshold, 0) / scale
    survival = np.exp(-over) if shape < 1e-6 else (1 + shape * over) ** (-1 / shape)
    return np.where(values > threshold, 1 - count / len(ordered) * survival, plain)


@dataclass(frozen=True)
class ReferenceScores:
    """Rewards of the reference policy's own responses, K a prompt, sorted ascending. Fixed while a policy trains."""

    scores: Mapping[str, Numbers]  # by prompt, see `prompt_key`
    source: str = ""

    def of(self, prompt: Text) -> Numbers:
        """The sorted rewards for a prompt. Raises RewardError for a prompt without."""
        found = self.scores.get(prompt_key(prompt))
        if found is None:
            shown = " ".join(plain_text(prompt).split())[:60]
            raise RewardError(
                f"calibration{f' by {self.source}' if self.source else ''}: no reference responses for the prompt "
                f"{shown!r}; draw them for every prompt of training: paperworks generate --n 64 --prompts FILE --out FILE"
            )
        return found

    @cached_property
    def fewest(self) -> int:
        """The smallest K of any prompt."""
        return min(map(len, self.scores.values()))

    @property
    def without_signal(self) -> list[str]:
        """The prompts whose reference rewards are all equal: what beats them is 1, what ties 1/2, whatever it is."""
        return [prompt for prompt, values in self.scores.items() if values[0] == values[-1]]

    def notes(self, n: int = 1) -> list[str]:
        """One line on each thing to know before training for best or worst of `n`."""
        lines = []
        if self.fewest < 2 * n:
            lines.append(
                f"calibration: {self.fewest} reference responses for some prompts are few for best of {n}: what beats all "
                f"of them is worth the same; draw at least {4 * n}"
            )
        flat = self.without_signal
        if flat:
            shown = ", ".join(repr(" ".join(prompt.split())[:40]) for prompt in flat[:3])
            lines.append(
                f"calibration: all reference responses have the same reward for {len(flat)} of {len(self.scores)} prompts "
                f"({len(flat) / len(self.scores):.0%}), which give no signal: {shown}{', …' if len(flat) > 3 else ''}"
            )
        return lines

    def save(self, path: str | Path) -> None:
        """Write JSON lines of prompt and scores, whole or not at all."""
        lines = (
            json.dumps({"prompt": prompt, "scores": values.tolist()}, ensure_ascii=False)
            for prompt, values in self.scores.items()
        )
        write_atomic(path, "".join(line + "\n" for line in lines))


def reference_scores(
    prompts: Sequence[Text], scores: Sequence[Sequence[float]], *, source: str = "", fewest: int = FEWEST_SAMPLES
) -> ReferenceScores:
    """Reference rewards of prompts, several each; those of a prompt that is there twice are joined.

    Raises DataError for a prompt with fewer than `fewest` rewards, a NaN, or no prompt; also where no prompt has two
    different rewards.
    """
    together: dict[str, list[float]] = {}
    for prompt, values in zip(prompts, scores, strict=True):
        together.setdefault(prompt_key(prompt), []).extend(map(float, values))
    if not together:
        raise DataError(
            "no reference responses to calibrate by; expected rows with a prompt and scores", file=source or None
        )
    for prompt, joined in together.items():
        shown = repr(" ".join(prompt.split())[:60])
        if not all(map(math.isfinite, joined)):
            raise DataError(f"a reference reward for {shown} is not finite; expected numbers", file=source or None)
        if len(joined) < fewest:
            raise DataError(
                f"{len(joined)} reference rewards for {shown}; expected at least {fewest} a prompt, better 64",
                file=source or None,
            )
    found = ReferenceScores({prompt: np.sort(values) for prompt, values in together.items()}, source)
    if len(found.without_signal) == len(found.scores):
        raise DataError(
            "all reference responses have the same reward, for every prompt: there is nothing to calibrate by; use a reward "
            "that tells responses apart",
            file=source or None,
        )
    return found


def score_reference(
    reward: Reward, prompts: Sequence[Text], responses: Sequence[Sequence[Text]], *, source: str = ""
) -> ReferenceScores:
    """Reference rewards of the responses (a list a prompt) by `reward`. Raises DataError, RewardError."""
    flat = [(prompt, response) for prompt, several in zip(prompts, responses, strict=True) for response in several]
    values = iter(reward([prompt for prompt, _ in flat], [response for _, response in flat]))
    return reference_scores(prompts, [[next(values) for _ in several] for several in responses], source=source)


def load_reference(path: str | Path, reward: Reward | None = None) -> ReferenceScores:
    """Reference rewards from JSON lines: `prompt` with `scores`, or with `responses` (as `generate --out` writes them).

    Responses are texts, or objects with `text`; they are scored by `reward`. Raises DataError (file:line), RewardError.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text ({error})", file=path) from None
    scored: list[tuple[Text, list[float]]] = []
    answered: list[tuple[Text, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, path, number)
        prompt = row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"])
        if "scores" in row:
            scored.append((prompt, _numbers(row["scores"], path, number)))
        else:
            answered.append((prompt, _texts(row["responses"], path, number)))
    if answered and reward is None:
        raise DataError("has responses and no scores; give the reward to score them by", file=path)
    prompts, values = [prompt for prompt, _ in scored], [numbers for _, numbers in scored]
    if answered and reward is not None:
        flat = [(prompt, text) for prompt, texts in answered for text in texts]
        given = iter(reward([prompt for prompt, _ in flat], [text for _, text in flat]))
        prompts += [prompt for prompt, _ in answered]
        values += [[next(given) for _ in texts] for _, texts in answered]
    return reference_scores(prompts, values, source=str(path))


def _row(line: str, path: str | Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"not JSON ({error})", file=path, line=number) from None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str | list):
        raise DataError("expected an object with a prompt, text or messages", file=path, line=number, field="prompt")
    if "scores" not in row and "responses" not in row:
        raise DataError("expected `scores` (numbers) or `responses` (texts)", file=path, line=number, field="scores")
    return row


def _numbers(values: Any, path: str | Path, number: int) -> list[float]:
    is_list = isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not is_list or not all(map(math.isfinite, values)):
        raise DataError("expected a list of finite numbers", file=path, line=number, field="scores")
    return [float(value) for value in values]


def _texts(values: Any, path: str | Path, number: int) -> list[str]:
    found = (
        [each.get("text") if isinstance(each, dict) else each for each in values] if isinstance(values, list) else []
    )
    texts = [text for text in found if isinstance(text, str)]
    if not texts or len(texts) < len(found):
        raise DataError("expected a list of texts, or of objects with text", file=path, line=number, field="responses")
    return texts


def prompt_key(prompt: Text) -> str:
    """What tells prompts apart: the text; one user message alone is the same prompt as its text."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class CalibratedReward:
    """transform(C(x, y)): the reward's quantile among the reference's responses to the prompt, transformed; in [0, 1].

    With tail=gpd what beats most of the reference is told apart by a fitted tail (`quantiles_with_tail`).
    """

    reward: Reward
    reference: ReferenceScores
    transform: Transform = Transform()
    tail: Tail = "none"

    @property
    def name(self) -> str:
        return f"{self.transform.label} of calibrated {self.reward.name}"

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        samples = [len(self.reference.of(prompt)) for prompt in prompts]
        return self.transform(self.quantiles(prompts, responses), samples).tolist()

    def quantiles(self, prompts: Sequence[Text], responses: Sequence[Text]) -> Numbers:
        """C of every response, [responses]. Raises RewardError for a prompt without reference responses."""
        known = [self.reference.of(prompt) for prompt in prompts]  # before scoring, which may cost minutes
        rewards = np.asarray(self.reward(prompts, responses), float)
        by_prompt: dict[str, list[int]] = {}
        for at, prompt in enumerate(prompts):
            by_prompt.setdefault(prompt_key(prompt), []).append(at)
        out = np.empty(len(rewards))
        rank = quantiles if self.tail == "none" else quantiles_with_tail
        for places in by_prompt.values():
            out[places] = rank(rewards[places], known[places[0]])
        return out

    def saturated(self, prompts: Sequence[Text], responses: Sequence[Text]) -> float:
        """Share of the responses that beat all of the reference's: beyond them the empirical C gives no signal."""
        return float((self.quantiles(prompts, responses) >= 1).mean())
