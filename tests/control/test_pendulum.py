"""The pendulum on tensors is gymnasium's."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch

from paperworks.control.testbeds.pendulum import Pendulum


def test_it_moves_as_gymnasium_s_does() -> None:
    env, world, draw = gymnasium.make("Pendulum-v1").unwrapped, Pendulum(), torch.Generator().manual_seed(0)
    env.reset(seed=0)
    latent = world.start((8,), draw)
    assert latent[:, 1].abs().max() <= 1 < latent[:, 0].abs().max() <= np.pi
    for row in range(8):
        one = latent[row]
        env.state = one.double().numpy()  # type: ignore[attr-defined]
        for _ in range(40):
            action = torch.rand(1, generator=draw) * 3 - 1.5  # out of bounds at times
            one, reward, over, cost = world.step(one, action)
            seen, wanted, *_ = env.step((2 * action).numpy())
            np.testing.assert_allclose(world.seen(one).numpy(), seen, atol=2e-3)
            np.testing.assert_allclose(float(reward), wanted, atol=2e-2)
            assert not over and cost == 0
