"""What is done with a trained policy: a score on D4RL's scale or a given one, an episode as a GIF, an ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from paperworks.cli.main import main
from paperworks.control import rendering
from paperworks.control.actors import PerceptronActor
from paperworks.control.onnx_export import export_onnx
from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions, Normaliser
from paperworks.core.errors import OptionError

Outcome = tuple[int, str, str]


def policy(output: str = "tanh", activation: str = "relu", actions: int = 1, scale: float = 1.0) -> ControlPolicy:
    draw = torch.Generator().manual_seed(3)
    last = 2 * actions if output == "tanh-gaussian" else actions
    sizes = [(2, 8), (8, 8), (8, last)]
    layers = [(torch.randn(a, b, generator=draw) * scale, torch.randn(b, generator=draw)) for a, b in sizes]
    normaliser = Normaliser(np.array([0.5, -1.0], np.float32), np.array([2.0, 0.3], np.float32))
    low = np.array([-2.0, -1.0, 0.0][:actions], np.float32)
    bounds = DiscreteActions(actions) if output in ("greedy", "sample") else ActionBounds(low, low + 4)
    return ControlPolicy(PerceptronActor(layers, output, activation), normaliser, bounds)  # type: ignore[arg-type]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds a policy for the point's world."""
    monkeypatch.chdir(tmp_path)
    policy().save("policy")

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


# ------------------------------------------------------------------------------------------------------------------ scores


def test_a_score_is_on_the_scale_given(command: Callable[..., Outcome], point: str) -> None:
    words = ("evaluate", "policy", "--model", "policy", "--env", point, "--episodes", 3)
    code, out, _ = command(*words, "--random-return", -30, "--best-return", -10, "--json")
    found = json.loads(out)
    assert code == 0 and found["score"]["mean"] == pytest.approx(5 * (found["return"]["mean"] + 30))
    assert found["scale"]["source"] == "given" and "cost" in found
    code, out, _ = command(*words, "--random-return", -30, "--best-return", -10)
    assert "score: 0 is a return of -30, 100 one of -10 (given)" in out
    assert "score" not in command(*words)[1]
    code, _, err = command(*words, "--best-return", -10)
    assert code == 2 and "go together" in err


# ------------------------------------------------------------------------------------------------------------------ frames


class Seen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The point's world with a picture: a bar as long as the point is far."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(gymnasium.make("paperworks-tests/Point-v0").unwrapped)
        self._mode = render_mode

    @property
    def render_mode(self) -> str | None:
        return self._mode

    def render(self) -> Any:
        frame = np.zeros((40, 400, 3), np.uint8)
        frame[:, : 200 + int(90 * self.env.x)] = 255  # type: ignore[attr-defined]
        return frame


@pytest.fixture(scope="module")
def seen_point(point: str) -> str:
    name = "paperworks-tests/SeenPoint-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Seen, max_episode_steps=20)
    return name


def test_an_episode_is_a_moving_picture(
    command: Callable[..., Outcome], seen_point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "MOST_FRAMES", 8)
    still = policy(scale=0.0)
    assert rendering.render(seen_point, still.acting(0), "still.gif") == 20
    with Image.open("still.gif") as picture:
        assert (picture.width, picture.height) == (320, 32)
        assert picture.n_frames <= 8 and picture.info["duration"] >= 150  # every third of 21, at the world's speed
    code, out, err = command("evaluate", "policy", "--model", "policy", "--env", seen_point, "--render", "own.gif")
    assert code == 0 and "episode" in out and Path("own.gif").read_bytes()[:3] == b"GIF", err


@pytest.mark.parametrize(
    ("environment", "file", "message"),
    [("POINT", "a.gif", "does not render"), ("POINT", "a.mp4", "ends in .gif"), ("no/such-v0", "a.gif", "no")],
)
def test_what_cannot_be_rendered(environment: str, file: str, message: str, point: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        rendering.render(point if environment == "POINT" else environment, policy().act, tmp_path / file)
    assert not (tmp_path / file).exists()


# -------------------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.parametrize(
    ("output", "activation", "actions"),
    [
        ("tanh", "relu", 1),
        ("tanh", "selu", 3),
        ("tanh-gaussian", "relu", 2),
        ("linear", "tanh", 2),
        ("greedy", "selu", 4),
    ],
)
def test_the_graph_acts_as_the_policy_does(output: str, activation: str, actions: int, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    own = policy(output, activation, actions)
    path = export_onnx(own, tmp_path / "policy.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    observations = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32) * 3
    (found,) = session.run(None, {"observations": observations})
    wanted = own.act(observations)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_export_from_the_command_line(command: Callable[..., Outcome]) -> None:
    onnx = pytest.importorskip("onnx")
    code, out, err = command("export", "policy", "--model", "policy", "--out", "point.onnx")
    assert code == 0 and "point.onnx" in out, err
    graph = onnx.load("point.onnx").graph
    assert [each.name for each in (*graph.input, *graph.output)] == ["observations", "actions"]


def test_without_onnx_the_extra_is_named(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = command("export", "policy", "--model", "policy")
    assert code == 2 and "paperworks[onnx]" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export",), "name what to export"),
        (("export", "polcy"), "did you mean 'policy'"),
        (("export", "policy"), "--model DIR"),
        (("export", "policy", "--model", "nowhere"), "no control policy there"),
        (("export", "policy", "--model", "policy", "--out", "a.pb"), "ends in .onnx"),
    ],
)
def test_mistakes_cost_one_line(command: Callable[..., Outcome], words: tuple[str, ...], message: str) -> None:
    code, _, err = command(*words)
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_a_policy_that_acts_by_chance_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="by chance"):
        export_onnx(policy("sample", actions=3), tmp_path / "a.onnx")
