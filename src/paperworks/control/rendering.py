"""An episode as a moving picture: frames of gymnasium's rgb_array, as a GIF."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paperworks.control.environments import Act, single
from paperworks.core.errors import OptionError, first_line
from paperworks.core.files import write_atomic
from paperworks.core.seeding import derive_seed

MOST_FRAMES = 250  # longer episodes show every second frame, every third, ...
WIDEST = 320  # pixels
USUAL_FRAMES_A_SECOND = 30


def render(environment: str, act: Act, path: str | Path, *, seed: int = 0) -> int:
    """Roll one episode out, the first of `roll_out` with that seed, and write it as a GIF; returns its steps.

    Raises OptionError where the environment does not render, or lacks what it renders with.
    """
    place = Path(path)
    if place.suffix.lower() != ".gif":
        raise OptionError(f"--render {path}: expected a name that ends in .gif")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"  # MuJoCo then needs no screen
    frames, steps, pause = _frames(environment, act, seed)
    every = -(-len(frames) // MOST_FRAMES)
    pictures = [_picture(frame) for frame in frames[::every]]
    written = io.BytesIO()
    pause = max(20, round(1000 * every * pause))
    pictures[0].save(written, "GIF", save_all=True, append_images=pictures[1:], duration=pause, loop=0)
    write_atomic(place, written.getvalue())
    return steps


def _frames(environment: str, act: Act, seed: int) -> tuple[list[NDArray[np.uint8]], int, float]:
    """Frames, the episode's steps, and seconds between frames; where episodes may be long some steps are not drawn."""
    import gymnasium

    try:
        made = single(environment, render_mode="rgb_array")
    except TypeError:  # its class takes no render mode
        raise OptionError(f"--env {environment}: does not render (it takes no render mode)") from None
    try:
        if made.render_mode != "rgb_array":
            raise OptionError(f"--env {environment}: does not render (no rgb_array among its render modes)")
        seen, _ = made.reset(seed=derive_seed(seed, "episode", 0) % 2**31)
        frames, steps, is_over = [_frame(made, environment)], 0, False
        every = -(-((made.spec and made.spec.max_episode_steps) or 1) // MOST_FRAMES)
        while not is_over:
            action = act(np.asarray(seen).reshape(1, -1))[0]
            shape = made.action_space.shape
            seen, _, terminated, truncated, _ = made.step(action.reshape(shape) if shape else int(action))
            steps, is_over = steps + 1, terminated or truncated
            if steps % every == 0 or is_over:
                frames.append(_frame(made, environment))
        return frames, steps, every / float(made.metadata.get("render_fps") or USUAL_FRAMES_A_SECOND)
    except gymnasium.error.Error as error:
        raise OptionError(f"--env {environment}: does not render ({first_line(error)})") from None
    except (ImportError, AttributeError, RuntimeError) as error:
        raise OptionError(
            f"--env {environment}: does not render ({first_line(error)}); without a screen MuJoCo needs MUJOCO_GL=egl"
        ) from None
    finally:
        made.close()


def _frame(made: Any, environment: str) -> NDArray[np.uint8]:
    frame = np.asarray(made.render())
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise OptionError(f"--env {environment}: does not render (no picture came back)")
    return frame.astype(np.uint8)


def _picture(frame: NDArray[np.uint8]) -> Image.Image:
    found = Image.fromarray(frame)
    if found.width > WIDEST:
        found = found.resize((WIDEST, round(found.height * WIDEST / found.width)))
    return found
