"""Best of n: draw several responses to a prompt and keep those that a reward likes most.

How far that moves a policy is known without measuring: best-of-n is at most log n - (n-1)/n nats away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paperworks.core.errors import OptionError
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy
from paperworks.language.rewards import EnsembleReward, Reward, combine, member_variance
from paperworks.language.rewards.best_of import kl_of_best_of
from paperworks.language.sampling import Sample, Samples, sample


@dataclass(frozen=True)
class BestOf:
    """A prompt's responses with the reward of each, and the best of them, highest reward first."""

    prompt: Text
    best: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    rewards: tuple[float, ...]  # of `samples`, in their order
    variances: tuple[float, ...] | None = None  # of an ensemble's members about each sample; None for a single reward

    @property
    def ranking(self) -> list[int]:
        """Indices of all samples, highest reward first; the earlier one where rewards are equal."""
        return _ranking(self.rewards)


def best_of(samples: Samples, reward: Reward, k: int = 1, *, prompt: Text | None = None) -> BestOf:
    """The `k` responses of highest reward; of equal ones, those drawn first.

    `prompt` is what the reward sees in place of the samples' own (a question without its chat turns, say).
    Raises OptionError unless 1 <= k <= the number of samples, and RewardError.
    """
    if not 1 <= k <= len(samples.samples):
        raise OptionError(f"option k={k}: expected between 1 and the {len(samples.samples)} samples drawn")
    seen = samples.prompt if prompt is None else prompt
    asked, variances = [seen] * len(samples.samples), None
    if isinstance(reward, EnsembleReward):
        scores = reward.member_scores(asked, samples.texts)
        rewards = tuple(combine(scores, reward.rule, reward.uwo_lambda).tolist())
        variances = tuple(member_variance(scores).tolist())
    else:
        rewards = tuple(reward(asked, samples.texts))
    best = tuple(samples.samples[i] for i in _ranking(rewards)[:k])
    return BestOf(samples.prompt, best, samples.samples, rewards, variances)


def best_of_n(
    policy: Policy, prompts: Sequence[Text], reward: Reward, n: int, *, k: int = 1, **sampling: Any
) -> list[BestOf]:
    """For every prompt, the `k` best of `n` responses; `sampling` are the options of `sampling.sample`.

    Raises OptionError, DataError (a prompt without room for a response) and RewardError.
    """
    if k > n:
        raise OptionError(f"option k={k}: expected at most n={n}")
    return [best_of(samples, reward, k) for samples in sample(policy, prompts, n=n, **sampling)]


def kl_bound(n: int) -> float:
    """Most KL divergence, in nats a response, between best-of-n and the policy: log n - (n-1)/n (arXiv 2401.01879).

    It is reached when no two responses are equally likely to be the best, as with long responses. Raises OptionError.
    """
    return kl_of_best_of(n)


def _ranking(rewards: Sequence[float]) -> list[int]:
    return sorted(range(len(rewards)), key=lambda i: -rewards[i])
