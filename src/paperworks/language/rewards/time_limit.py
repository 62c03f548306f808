"""A user's reward function that takes too long is stopped and named, rather than waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paperworks.core.errors import RewardError
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.reward import Reward


class _Late(BaseException):
    """Not an Exception: a function that catches those is stopped too."""


@dataclass(frozen=True)
class TimedReward:
    """A reward whose every call may take `seconds`. Raises RewardError for one that takes longer.

    The clock is a Unix alarm, which reaches Python code and blocking system calls, not a loop inside a C extension; off
    the main thread, and where there are no alarms, there is no limit.
    """

    reward: Reward
    seconds: float

    @property
    def name(self) -> str:
        return self.reward.name

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
            return self.reward(prompts, responses)

        def stop(number: int, frame: Any) -> None:
            raise _Late

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return self.reward(prompts, responses)
        except _Late:
            raise RewardError(
                f"{self.name}: no answer about {len(responses)} responses within {self.seconds:g} s "
                "(--reward-timeout); make it faster, or raise the limit"
            ) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def notes(self) -> list[str]:
        """What the reward has to say of itself."""
        lines: list[str] = getattr(self.reward, "notes", list)()
        return lines
