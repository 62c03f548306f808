"""Rewards: numbers for responses, from a user's function, a word list, a sentiment score or a model; and what is made of
them: sums, ensembles, clipping, prices on length, calibration."""

from paperworks.language.rewards.calibration import CalibratedReward, ReferenceScores, Transform
from paperworks.language.rewards.ensemble import EnsembleReward, combine, ensemble_of, member_variance
from paperworks.language.rewards.function import BUILT_IN, load_reward
from paperworks.language.rewards.length_penalty import length_penalised
from paperworks.language.rewards.options import RewardOptions, reward_from_options, rewards_from_options
from paperworks.language.rewards.reward import CheckedReward, Reward, clipped, sum_of

__all__ = [
    "BUILT_IN",
    "CalibratedReward",
    "CheckedReward",
    "EnsembleReward",
    "ReferenceScores",
    "Reward",
    "RewardOptions",
    "Transform",
    "clipped",
    "combine",
    "ensemble_of",
    "length_penalised",
    "load_reward",
    "member_variance",
    "reward_from_options",
    "rewards_from_options",
    "sum_of",
]
