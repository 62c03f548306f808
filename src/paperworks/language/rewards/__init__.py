"""Rewards: numbers for responses, from a user's function, a word list or a sentiment score."""

from paperworks.language.rewards.function import BUILT_IN, load_reward
from paperworks.language.rewards.reward import CheckedReward, Reward, clipped, sum_of

__all__ = ["BUILT_IN", "CheckedReward", "Reward", "clipped", "load_reward", "sum_of"]
