"""What holds a policy that learns online: the weight of its KL penalty, and when to stop it."""

from __future__ import annotations

from collections.abc import Sequence

from paperworks.language.online.options import OnlineOptions


class KlController:
    """The weight of the KL penalty: fixed, or proportional control on log KL (Ziegler et al., arXiv 1909.08593, 2.2)."""

    def __init__(self, options: OnlineOptions) -> None:
        self.weight = options.kl_coef
        self._target = options.kl_target if options.kl_control == "adaptive" else None
        self._horizon = options.kl_horizon

    def see(self, kl: float, answers: int) -> None:
        """Take in the mean KL in nats of so many answers."""
        if self._target is not None:
            error = min(max(kl / self._target - 1, -0.2), 0.2)
            self.weight *= 1 + error * answers / self._horizon


def collapse(texts: Sequence[str]) -> str | None:
    """What is wrong with an iteration's answers taken together, or None: nearly all empty, or nearly all the same."""
    if len(texts) < 8:
        return None
    empty = sum(not text.strip() for text in texts) / len(texts)
    if empty >= 0.9:
        return f"collapsed answers: {empty:.0%} are empty; raise --kl-coef, lower --learning-rate, or mend the reward"
    most = max(texts.count(text) for text in set(texts)) / len(texts)
    if most >= 0.9:
        same = max(set(texts), key=texts.count)
        return f"collapsed answers: {most:.0%} are {same[:30]!a}; raise --kl-coef, or lower --learning-rate"
    return None
