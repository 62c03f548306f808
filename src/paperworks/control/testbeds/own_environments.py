"""Worlds of this project as gymnasium environments, `paperworks/NAME`: known to gymnasium once one is asked for."""

from __future__ import annotations

import importlib
from typing import Any

OWN: dict[str, str] = {
    "paperworks/PointRobot-v0": "paperworks.control.testbeds.point_robot:PointRobot",
}
"""Where the world of each environment lives."""

SINGLE: dict[str, tuple[str, int]] = {
    "paperworks/Comblock-v0": ("paperworks.control.testbeds.comblock_environment:ComblockEnvironment", 5),
}
"""Environments of their own: where the class lives, and the steps of an episode."""


def register_own() -> None:
    """Tell gymnasium of these environments; again is harmless."""
    import gymnasium

    for name, place in OWN.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="paperworks.control.testbeds.world_environment:WorldEnvironment",
                max_episode_steps=world_at(place).limit,
                kwargs={"place": place},
            )
    for name, (place, limit) in SINGLE.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=place, max_episode_steps=limit)


def world_at(place: str) -> Any:
    """The world of that module and class."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)()
