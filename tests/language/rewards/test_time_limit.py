"""Rewards that take too long."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.rewards import RewardOptions, reward_from_options


def given(folder: Path, body: str) -> str:
    (folder / "mine.py").write_text(f"import time\n\ndef slow(prompts, responses):\n{body}")
    return f"{folder / 'mine.py'}:slow"


@pytest.mark.parametrize(
    "body",
    [
        "    time.sleep(20)\n    return [0.0] * len(responses)\n",
        "    while True:\n        try:\n            time.sleep(20)\n        except Exception:\n            pass\n",
        "    while True:\n        pass\n",
    ],
    ids=["sleeps", "catches everything", "loops"],
)
def test_a_slow_reward_is_stopped_and_named(tmp_path: Path, body: str) -> None:
    began = time.monotonic()
    reward = reward_from_options([given(tmp_path, body)], RewardOptions(reward_timeout=0.1))
    with pytest.raises(RewardError, match=r"mine.py:slow: no answer about 2 responses within 0.1 s"):
        reward(["p", "p"], ["a", "b"])
    assert time.monotonic() - began < 5
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_quick_reward_is_itself(tmp_path: Path) -> None:
    reward = reward_from_options([given(tmp_path, "    return [1.0, 2.0]\n")], RewardOptions(reward_timeout=30))
    assert reward(["p", "p"], ["a", "b"]) == [1, 2]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    with pytest.raises(OptionError, match="reward_timeout"):
        RewardOptions(reward_timeout=0)
