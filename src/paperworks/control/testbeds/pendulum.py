"""Gymnasium's Pendulum-v1 on tensors: swing a pole up with a torque that is too weak to lift it at once, and hold it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_SPEED, MOST_TORQUE, DT, GRAVITY = 8.0, 2.0, 0.05, 10.0  # mass and length are 1


class Pendulum:
    """Latent (angle from upright, speed); policies see (cos, sin, speed). Never over; cut after 200 steps."""

    state, action, limit = 3, 1, 200

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """Angle uniform in [-pi, pi], speed in [-1, 1]."""
        return (2 * torch.rand(*shape, 2, generator=draw) - 1) * torch.tensor([math.pi, 1.0])

    def seen(self, latent: Tensor) -> Tensor:
        angle, speed = latent.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        angle, speed = latent.unbind(-1)
        torque = MOST_TORQUE * action[..., 0].clamp(-1, 1)
        upright = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(upright.square() + 0.1 * speed.square() + 0.001 * torque.square())
        faster = speed + (1.5 * GRAVITY * angle.sin() + 3 * torque) * DT
        faster = faster.clamp(-MOST_SPEED, MOST_SPEED)
        following = torch.stack([angle + faster * DT, faster], -1)
        return following, reward, torch.zeros_like(reward, dtype=torch.bool), torch.zeros_like(reward)
