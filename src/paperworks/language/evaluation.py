"""What a policy does, measured on rows and on its own samples; every figure with its 95% interval.

Rows that share a prompt, and samples of one prompt, are not independent: intervals resample prompts. Responses are scored
by their token ids and sampled once for all measures that need samples. Knows nothing of files or of the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from paperworks.core.errors import DataError, ModelError, OptionError
from paperworks.core.statistics import Interval, clustered_mean
from paperworks.language.data import Dataset, Demonstration, Preference
from paperworks.language.data.schemas import Text
from paperworks.language.items import Items, LongPrompts, score, tokenise
from paperworks.language.logprobs import Tree
from paperworks.language.policy import Policy
from paperworks.language.rewards import Reward
from paperworks.language.sampling import sample

OnProgress = Callable[[float], None]  # the share that is done, in [0, 1]
_TREES_AT_ONCE = 64


@dataclass(frozen=True)
class Measured:
    """A quantity of every row, in the rows' order, and its mean (or ratio) with an interval over prompts."""

    values: tuple[float, ...]
    interval: Interval


# ------------------------------------------------------------------------------------------------------------ given rows


@dataclass(frozen=True)
class ScoredRows:
    """Log-probabilities of rows' responses under a policy and, where there is one, its reference.

    `logps`, `counts` and `reference_logps` are float64 arrays [rows, roles]: log pi(y|x), tokens of y, log pi_ref(y|x).
    """

    items: Items
    logps: np.ndarray
    counts: np.ndarray
    reference_logps: np.ndarray | None

    def scores(self, *, normalise: bool = False) -> np.ndarray:
        """log pi - log pi_ref (log pi without a reference), divided by the tokens with `normalise`: [rows, roles]."""
        scores = self.logps if self.reference_logps is None else self.logps - self.reference_logps
        return scores / self.counts if normalise else scores

    def margins(self, *, normalise: bool = False) -> Measured:
        """Score of chosen minus rejected, in nats (a response, or a token with `normalise`)."""
        chosen, rejected = self._role("chosen"), self._role("rejected")
        scores = self.scores(normalise=normalise)
        return self._measured(scores[:, chosen] - scores[:, rejected])

    def accuracy(self, *, normalise: bool = False) -> Measured:
        """Whether chosen scores above rejected: 1, 0, or 1/2 where they are equal."""
        margins = np.asarray(self.margins(normalise=normalise).values)
        return self._measured((np.sign(margins) + 1) / 2)

    def perplexity(self, role: str) -> Measured:
        """exp of the mean negative log-probability of a token of the role's responses; the values are the rows' own."""
        column = self._role(role)
        losses, counts = -self.logps[:, column], self.counts[:, column]
        mean = _ratio(losses, counts, self._clusters())
        interval = Interval(math.exp(mean.mean), math.exp(mean.low), math.exp(mean.high), mean.n)
        return Measured(tuple(np.exp(losses / counts).tolist()), interval)

    def _measured(self, values: np.ndarray) -> Measured:
        return Measured(tuple(values.tolist()), clustered_mean(values, self._clusters()))

    def _clusters(self) -> list[Hashable]:
        return [item.prompt for item in self.items.items]

    def _role(self, role: str) -> int:
        return self.items.roles.index(role)


def score_rows(
    policy: Policy,
    dataset: Dataset[Any],
    roles: Sequence[str],
    *,
    reference: Policy | None = None,
    max_length: int | None = None,
    long_prompts: LongPrompts = "error",
    on_progress: OnProgress | None = None,
) -> ScoredRows:
    """Score the rows' responses in `roles` (one response each), as training does (see `items.tokenise`).

    Raises DataError for a prompt with no room for a response, ModelError for a reference with other tokens.
    """
    same_tokens(policy, reference)
    items = tokenise(dataset, policy, roles, max_length=max_length, long_prompts=long_prompts)
    trees = [item.tree() for item in items.items]
    halves = 1 if reference is None else 2
    logps, counts = _score(policy, trees, lambda done: _call(on_progress, done / halves))
    reference_logps = None
    if reference is not None:
        reference_logps, _ = _score(reference, trees, lambda done: _call(on_progress, (1 + done) / halves))
        reference_logps = reference_logps.reshape(-1, len(roles))
    return ScoredRows(items, logps.reshape(-1, len(roles)), counts.reshape(-1, len(roles)), reference_logps)


def preference_accuracy(
    policy: Policy,
    dataset: Dataset[Preference],
    *,
    reference: Policy | None = None,
    normalise: bool = False,
    **cutting: Any,
) -> Measured:
    """Share of pairs whose chosen response scores above the rejected one; ties count 1/2.

    The score is log pi - log pi_ref with a reference (the implicit reward of DPO), else log pi; a sum over the response's
    tokens, or their mean with `normalise`. `cutting`: max_length and long_prompts of `score_rows`.
    """
    scored = score_rows(policy, dataset, ("chosen", "rejected"), reference=reference, **cutting)
    return scored.accuracy(normalise=normalise)


def perplexity(policy: Policy, demonstrations: Dataset[Demonstration], **cutting: Any) -> Measured:
    """exp of the mean negative log-probability of a response token given its prompt, every token weighing the same."""
    return score_rows(policy, demonstrations, ("response",), **cutting).perplexity("response")


def same_tokens(policy: Policy, reference: Policy | None) -> None:
    """Raises ModelError unless both read the same token ids: log-probabilities of other tokens cannot be compared."""
    if reference is None or reference.tokenizer is policy.tokenizer:
        return
    if reference.is_encoder_decoder != policy.is_encoder_decoder:
        raise ModelError(f"{reference.name} cannot be a reference of {policy.name}: one of them is an encoder-decoder")
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ModelError(
            f"{reference.name} cannot be a reference of {policy.name}: their tokenizers differ; give the model it came from"
        )


# ----------------------------------------------------------------------------------------------------------- own samples


@dataclass(frozen=True)
class SampledResponse:
    """One response that a policy drew, with everything known about it."""

    prompt_index: int
    sample_index: int
    prompt: Text
    text: str
    tokens: int  # the end token included
    finished: bool  # false where max_new_tokens (or the context) cut it
    logp: float  # log pi(y|x)
    reference_logp: float | None  # log pi_ref(y|x)
    rewards: Mapping[str, float] = field(default_factory=dict)

    @property
    def log_ratio(self) -> float | None:
        """log pi(y|x) - log pi_ref(y|x): its mean over samples estimates the KL divergence."""
        return None if self.reference_logp is None else self.logp - self.reference_logp


@dataclass(frozen=True)
class SampleReport:
    """The samples of a policy, prompt by prompt, and what they show."""

    rows: tuple[SampledResponse, ...]
    temperature: float = 1.0

    def kl(self) -> Measured:
        """KL(pi || pi_ref) in nats a response, by the mean of log pi - log pi_ref over own samples; unbiased.

        Single values may be negative. Raises OptionError without a reference or for samples at another temperature.
        """
        return self._over_prompts(self._log_ratios())

    def kl_per_token(self) -> Measured:
        """The same over all tokens: sum of log-ratios / sum of tokens; the values are each response's own quotient."""
        ratios, tokens = self._log_ratios(), np.array([row.tokens for row in self.rows], dtype=float)
        return Measured(tuple((ratios / tokens).tolist()), _ratio(ratios, tokens, self._clusters()))

    def reward(self, name: str) -> Measured:
        """Mean reward of that name."""
        return self._over_prompts(np.array([row.rewards[name] for row in self.rows]))

    def tokens(self) -> Measured:
        """Mean tokens a response."""
        return self._over_prompts(np.array([row.tokens for row in self.rows], dtype=float))

    def at_cap(self) -> Measured:
        """Share of responses that did not end by themselves within max_new_tokens."""
        return self._over_prompts(np.array([not row.finished for row in self.rows], dtype=float))

    def _log_ratios(self) -> np.ndarray:
        if self.temperature != 1.0:
            raise OptionError(f"KL is measured on samples at temperature 1; these were drawn at {self.temperature:g}")
        ratios = [row.log_ratio for row in self.rows]
        if None in ratios:
            raise OptionError("KL needs a reference; the samples were drawn without one")
        return np.array(ratios, dtype=float)

    def _over_prompts(self, values: np.ndarray) -> Measured:
        return Measured(tuple(values.tolist()), clustered_mean(values, self._clusters()))

    def _clusters(self) -> list[int]:
        return [row.prompt_index for row in self.rows]


def sample_report(
    policy: Policy,
    reference: Policy | None,
    prompts: Sequence[Text],
    rewards: Sequence[Reward] = (),
    n: int = 1,
    seed: int = 0,
    max_new_tokens: int = 128,
    *,
    temperature: float = 1.0,
    batch_rows: int = 64,
    on_progress: OnProgress | None = None,
) -> SampleReport:
    """Draw `n` responses to every prompt, once, and measure each: log-probabilities, rewards, length.

    Raises DataError (a prompt without room), RewardError, ModelError for a reference with other tokens.
    """
    if not prompts:
        raise DataError("0 prompts to sample from; expected at least one")
    same_tokens(policy, reference)
    names = [reward.name for reward in rewards]
    if len(set(names)) < len(names):
        raise OptionError(f"two rewards have the same name (names: {', '.join(names)})")
    share = 1.0 if reference is None else 0.8  # of the time, roughly: sampling is slower than scoring
    done: list[int] = []

    def on_prompt(index: int, _: Any) -> None:
        done.append(index)
        _call(on_progress, share * len(done) / len(prompts))

    drawn = sample(
        policy,
        prompts,
        n=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_rows=batch_rows,
        on_prompt=on_prompt,
    )
    flat = [(i, j, found) for i, samples in enumerate(drawn) for j, found in enumerate(samples.samples)]
    texts, of = [found.text for _, _, found in flat], [prompts[i] for i, _, _ in flat]
    scored = {reward.name: reward(of, texts) for reward in rewards}
    logps = [found.logp for _, _, found in flat]
    reference_logps: Sequence[float | None] = [None] * len(flat)
    if reference is not None:
        trees = [Tree(policy.encode_prompt(s.prompt), [found.ids for found in s.samples]) for s in drawn]
        # Both by the same computation: what rounding does to the sampler's own sums would not cancel in low precision.
        logps = _score(policy, trees, lambda part: _call(on_progress, share + (1 - share) / 2 * part))[0].tolist()
        reference_logps = _score(
            reference, trees, lambda part: _call(on_progress, (1 + share) / 2 + (1 - share) / 2 * part)
        )[0].tolist()
    rows = tuple(
        SampledResponse(
            prompt_index=i,
            sample_index=j,
            prompt=prompts[i],
            text=found.text,
            tokens=len(found.ids),
            finished=found.finished,
            logp=logps[at],
            reference_logp=reference_logps[at],
            rewards={name: values[at] for name, values in scored.items()},
        )
        for at, (i, j, found) in enumerate(flat)
    )
    return SampleReport(rows, temperature)


def kl_to_reference(
    policy: Policy, reference: Policy, prompts: Sequence[Text], n: int = 1, **options: Any
) -> tuple[Measured, Measured]:
    """KL(pi || pi_ref) by own samples, in nats: (a response, a token). `options` are those of `sample_report`.

    Responses are cut at max_new_tokens, and so is the divergence: it counts that of the first max_new_tokens tokens.
    """
    report = sample_report(policy, reference, prompts, (), n, **options)
    return report.kl(), report.kl_per_token()


def reward_of_samples(policy: Policy, prompts: Sequence[Text], reward: Reward, n: int = 1, **options: Any) -> Measured:
    """Mean reward of own samples. `options` are those of `sample_report`."""
    return sample_report(policy, None, prompts, (reward,), n, **options).reward(reward.name)


def length_of_samples(policy: Policy, prompts: Sequence[Text], n: int = 1, **options: Any) -> tuple[Measured, Measured]:
    """(tokens of own samples, share of them cut by max_new_tokens). `options` are those of `sample_report`."""
    report = sample_report(policy, None, prompts, (), n, **options)
    return report.tokens(), report.at_cap()


# ----------------------------------------------------------------------------------------------------------- small parts


def _score(policy: Policy, trees: Sequence[Tree], on_progress: OnProgress) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability and tokens of every response, in order, as float64 arrays."""
    sums, counts = [], []
    for start in range(0, len(trees), _TREES_AT_ONCE):
        part_sums, part_counts = score(policy, trees[start : start + _TREES_AT_ONCE])
        sums.append(part_sums)
        counts.append(part_counts)
        on_progress(min(1.0, (start + _TREES_AT_ONCE) / len(trees)))
    return torch.cat(sums).double().numpy(), torch.cat(counts).double().numpy()


def _ratio(totals: np.ndarray, sizes: np.ndarray, clusters: Sequence[Hashable]) -> Interval:
    """sum of totals / sum of sizes (whole numbers), its interval over clusters."""
    times = sizes.astype(int)
    of = [cluster for cluster, size in zip(clusters, times.tolist(), strict=True) for _ in range(size)]
    return clustered_mean(np.repeat(totals / sizes, times), of)


def _call(on_progress: OnProgress | None, done: float) -> None:
    if on_progress is not None:
        on_progress(done)
