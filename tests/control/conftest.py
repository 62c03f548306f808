"""A small world of its own: a point on a line that should stand at 0, and logs of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from paperworks.cli.main import main
from paperworks.control.datasets import from_arrays
from paperworks.control.transitions import Transitions

torch.set_num_threads(1)
LIMIT = 20


class Point(gymnasium.Env[Any, Any]):
    """x moves by a/4; reward -|x|; beyond 2 the episode is over with reward -20. Actions lie in [-2, 2]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1, 1))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.x += 0.25 * float(np.clip(action, -2, 2)[0])
        over = abs(self.x) > 2
        return self._seen(), -20.0 if over else -abs(self.x), over, False, {"cost": float(abs(self.x) > 1)}

    def _seen(self) -> Any:
        return np.array([self.x, 1.0], np.float32)


@pytest.fixture(scope="session")
def point() -> str:
    """The id of the environment; episodes are cut after LIMIT steps."""
    name = "paperworks-tests/Point-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Point, max_episode_steps=LIMIT)
    return name


@pytest.fixture(scope="session")
def arrays(point: str) -> dict[str, np.ndarray]:
    """2000 transitions of a policy that leans the right way and errs widely; D4RL's names, no next observations."""
    env, draw = gymnasium.make(point), np.random.default_rng(0)
    columns: dict[str, list[Any]] = {n: [] for n in ("observations", "actions", "rewards", "terminals", "timeouts")}
    seen, _ = env.reset(seed=0)
    for _ in range(2000):
        action = np.clip(-seen[:1] + draw.normal(0, 1.2, 1), -2, 2)
        following, reward, terminated, truncated, _ = env.step(action)
        for name, value in zip(columns, (seen, action, reward, terminated, truncated), strict=True):
            columns[name].append(value)
        seen = env.reset(seed=int(draw.integers(1 << 30)))[0] if terminated or truncated else following
    return {name: np.asarray(values) for name, values in columns.items()}


@pytest.fixture(scope="session")
def log(arrays: dict[str, np.ndarray]) -> Transitions:
    return from_arrays(arrays)


@pytest.fixture
def made() -> Callable[..., Transitions]:
    """A log of four transitions in two episodes, any array replaced."""

    def make(**given: Any) -> Transitions:
        arrays: dict[str, Any] = {
            "observations": [[0.0], [1.0], [2.0], [3.0]],
            "actions": [[0.1], [0.2], [0.3], [0.4]],
            "rewards": [1.0, 2.0, 3.0, 4.0],
            "terminations": [False, True, False, False],
            "truncations": [False, False, False, True],
            **given,
        }
        return from_arrays({name: np.asarray(values) for name, values in arrays.items() if values is not None})

    return make


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], undrawn_figures: None
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty folder; gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def cut_when(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Kills whoever calls `owner.name` where `is_time` says so of what it is given; runs `work` until then, and mends it."""

    def cut(owner: Any, name: str, is_time: Callable[..., bool], work: Callable[[], object]) -> None:
        really = getattr(owner, name)

        class Killed(BaseException):
            pass

        def called(*given: Any, **named: Any) -> object:
            if is_time(*given):
                raise Killed
            return really(*given, **named)

        monkeypatch.setattr(owner, name, called)
        with pytest.raises(Killed):
            work()
        monkeypatch.setattr(owner, name, really)

    return cut
