"""Diffusion policies: a model of the noise in an action, and actions drawn by taking noise away, for every seed at once.

The variance-preserving schedule, the network and the steps are those of arXiv 2401.10700's code (after IDQL, 2304.10573).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paperworks.control.networks import Perceptrons
from paperworks.core.seeding import torch_generator

TIME_FEATURES, TIME_HIDDEN = 64, 128
LEAST_RATE, MOST_RATE = 0.1, 10.0  # of noise, at the beginning and the end of the continuous process


class Schedule(nn.Module):
    """How much of the noise enters in each of the `steps`: alpha_t, beta_t = 1 - alpha_t, and alpha_bar_t, its product."""

    alpha: Tensor
    alpha_bar: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        log_alpha = -LEAST_RATE / steps - 0.5 * (MOST_RATE - LEAST_RATE) * (2 * t - 1) / steps**2
        self.register_buffer("alpha", log_alpha.exp().float(), persistent=False)
        self.register_buffer("alpha_bar", log_alpha.cumsum(0).exp().float(), persistent=False)

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def beta(self) -> Float[Tensor, " steps"]:
        return 1 - self.alpha

    def noisy(
        self,
        actions: Float[Tensor, "*rows action"],
        noise: Float[Tensor, "*rows action"],
        times: Int[Tensor, "*rows"],
    ) -> Float[Tensor, "*rows action"]:
        """sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) noise."""
        kept = self.alpha_bar[times][..., None]
        return kept.sqrt() * actions + (1 - kept).sqrt() * noise

    def step_back(
        self, x: Float[Tensor, "*rows action"], predicted: Float[Tensor, "*rows action"], time: int
    ) -> Float[Tensor, "*rows action"]:
        """The mean of the action a step less noisy, for the noise that a model sees in `x`."""
        alpha, alpha_bar = self.alpha[time], self.alpha_bar[time]
        return (x - (1 - alpha) / (1 - alpha_bar).sqrt() * predicted) / alpha.sqrt()


def noise_loss(
    predicted: Float[Tensor, "seeds rows action"],
    noise: Float[Tensor, "seeds rows action"],
    weight: Float[Tensor, "seeds rows"],
) -> Float[Tensor, " seeds"]:
    """mean over rows of weight * sum over action dimensions of (predicted - noise)^2."""
    return (weight * (predicted - noise).square().sum(-1)).mean(1)


class NoiseModels(nn.Module):
    """The noise that each seed's model sees in a noisy action of a state at a time: [seeds, rows, action].

    Learned Fourier features of the time, two mish layers on them; action, state and time into `width`; then `blocks`
    residual blocks {dropout, layer norm, 4 x width, mish, width}; mish and a last layer.
    """

    def __init__(self, state: int, action: int, width: int, blocks: int, seeds: Sequence[int], *, expansion: int = 4):
        super().__init__()
        self.state, self.action = state, action

        def dense(name: str, fan_in: int, fan_out: int) -> Perceptrons:
            return Perceptrons((fan_in, fan_out), seeds, f"noise {name}")

        drawn = [0.2 * torch.randn(1, TIME_FEATURES // 2, generator=torch_generator(s, "noise time")) for s in seeds]
        self.frequencies = nn.Parameter(torch.stack(drawn))
        self.time_first = dense("time 0", TIME_FEATURES, TIME_HIDDEN)
        self.time_second = dense("time 1", TIME_HIDDEN, TIME_HIDDEN)
        self.first = dense("first", action + state + TIME_HIDDEN, width)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(len(seeds), 1, width)) for _ in range(blocks))
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(len(seeds), 1, width)) for _ in range(blocks))
        self.widen = nn.ModuleList(dense(f"widen {n}", width, expansion * width) for n in range(blocks))
        self.narrow = nn.ModuleList(dense(f"narrow {n}", expansion * width, width) for n in range(blocks))
        self.last = dense("last", width, action)

    def forward(
        self,
        states: Float[Tensor, "seeds rows state"],
        actions: Float[Tensor, "seeds rows action"],
        times: Int[Tensor, "seeds rows"],
        steps: int,
        kept: Sequence[Float[Tensor, "seeds rows width"]] = (),
    ) -> Float[Tensor, "seeds rows action"]:
        """`steps` is how many times there are; `kept` holds dropout's factors, a tensor a block."""
        of_time = self.of_times(steps)
        at = times[..., None].expand(-1, -1, of_time.shape[-1])
        return self.seen(actions, self.of_states(states) + of_time.gather(1, at), kept)

    def of_times(self, steps: int) -> Float[Tensor, "seeds steps width"]:
        """What each time adds in the first layer: there are few, so they are computed once for all rows."""
        t = torch.arange(steps, device=self.frequencies.device, dtype=self.frequencies.dtype)[:, None]
        angle = 2 * math.pi * t @ self.frequencies
        x = self.time_first(torch.cat([angle.cos(), angle.sin()], -1))
        x = self.time_second(functional.mish(x))
        return x @ self.first.weights[0][:, self.action + self.state :]

    def of_states(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows width"]:
        """What each state adds in the first layer, with the bias."""
        weight = self.first.weights[0][:, self.action : self.action + self.state]
        return torch.baddbmm(self.first.biases[0], states, weight)

    def seen(
        self,
        actions: Float[Tensor, "seeds rows action"],
        context: Float[Tensor, "seeds rows width"],
        kept: Sequence[Float[Tensor, "seeds rows width"]] = (),
    ) -> Float[Tensor, "seeds rows action"]:
        """The noise in the actions, for what states and times add."""
        x = torch.baddbmm(context, actions, self.first.weights[0][:, : self.action])
        for number, (widen, narrow) in enumerate(zip(self.widen, self.narrow, strict=True)):
            inner = x * kept[number] if kept else x
            inner = functional.layer_norm(inner, inner.shape[-1:])
            inner = inner * self.scales[number] + self.shifts[number]
            x = x + narrow(functional.mish(widen(inner)))
        return self.last(functional.mish(x))


@torch.no_grad()
def draw_actions(
    model: NoiseModels,
    schedule: Schedule,
    states: Float[Tensor, "seeds rows state"],
    candidates: int,
    normal: Callable[[int, int, int], Float[Tensor, "seeds drawn action"]],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "seeds rows candidates action"]:
    """`candidates` actions a state, each drawn by `len(schedule)` steps back from noise, within [-1, 1].

    `normal(seeds, rows * candidates, action)` gives standard normal numbers; the last step adds no noise.
    """
    seeds, rows, _ = states.shape
    size = (seeds, rows * candidates, model.action)
    context = model.of_states(states).repeat_interleave(candidates, 1)
    of_times, x = model.of_times(len(schedule)), normal(*size)
    for time in reversed(range(len(schedule))):
        x = schedule.step_back(x, model.seen(x, context + of_times[:, time, None]), time)
        if time > 0:
            x = x + schedule.beta[time].sqrt() * temperature * normal(*size)
        x = x.clamp(-1, 1)
    return x.unflatten(1, (rows, candidates))
