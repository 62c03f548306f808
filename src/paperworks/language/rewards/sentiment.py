"""Sentiment of a response by VADER (Hutto and Gilbert 2014): a rule-based score that nobody here wrote."""

from __future__ import annotations

from functools import cache
from typing import Any

from paperworks.core.errors import RewardError


def sentiment(prompts: list[str], responses: list[str]) -> list[float]:
    """VADER's compound score of each response, in [-1, 1]; the prompt does not count."""
    analyzer = _analyzer()
    return [float(analyzer.polarity_scores(response)["compound"]) for response in responses]


@cache
def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise RewardError(
            f"sentiment: needs the package vaderSentiment ({error}); pip install vaderSentiment"
        ) from None
    return SentimentIntensityAnalyzer()
