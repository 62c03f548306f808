"""What d3rlpy 2.8 makes of a small batch: losses and gradients of TD3+BC, IQL, CQL and PRDC, and PRDC's nearest rows.

d3rlpy needs another gymnasium than paperworks, so a Python that has it writes the figures, and the tests read them:

    python tests/parity/d3rlpy_losses.py > tests/parity/d3rlpy-losses.json

Weights, batch and noise are formulas, so that both sides make them. Nothing of paperworks is imported here.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STATE, ACTION, ROWS, LOGGED, COUNT = 3, 2, 6, 40, 4
HIDDEN = (8, 8)
LOG_STD = -1.5  # of both policies, in every state
OPTIONS: dict[str, dict[str, float]] = {
    "td3-bc": {"alpha": 2.5},
    "prdc": {"alpha": 2.5, "beta": 2.0},
    "iql": {"expectile": 0.8, "beta": 2.0, "most_weight": 3.0},
    "cql": {"conservatism": 5.0},
}


def numbers(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Numbers between -scale and scale that depend on the name alone."""
    place = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    return (scale * np.sin(place * (1 + zlib.crc32(name.encode()) % 1000 / 7))).astype(np.float32).reshape(shape)


def layers(name: str, fan_in: int, fan_out: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight [in, out], bias [out]) of every layer of the net of that name."""
    sizes = (fan_in, *HIDDEN, fan_out)
    return [
        (numbers(f"{name} weight {at}", a, b, scale=0.8), numbers(f"{name} bias {at}", b, scale=0.3))
        for at, (a, b) in enumerate(itertools.pairwise(sizes))
    ]


def batch() -> dict[str, np.ndarray]:
    """A batch of six, one of them behind a termination."""
    return {
        "states": numbers("states", ROWS, STATE),
        "actions": numbers("actions", ROWS, ACTION, scale=0.9),
        "rewards": numbers("rewards", ROWS),
        "next_states": numbers("next states", ROWS, STATE),
        "terminals": (np.arange(ROWS) == 2).astype(np.float32),
    }


def logged() -> tuple[np.ndarray, np.ndarray]:
    """States and actions of the log that PRDC searches."""
    return numbers("log states", LOGGED, STATE), numbers("log actions", LOGGED, ACTION)


def noise() -> dict[str, np.ndarray]:
    """Of the target action; of the actor's own; of the sampled actions at s and s'; uniform numbers in [0, 1)."""
    return {
        "target": numbers("target noise", ROWS, ACTION, scale=2.0),
        "own": numbers("own noise", ROWS, ACTION, scale=1.5),
        "current": numbers("current noise", ROWS, COUNT, ACTION, scale=1.5),
        "following": numbers("following noise", ROWS, COUNT, ACTION, scale=1.5),
        "uniform": (numbers("uniform", ROWS, COUNT, ACTION) + 1) / 2.001,
    }


# ------------------------------------------------------------------------------------------------------- d3rlpy's side


def put(net: nn.Module, name: str, fan_in: int, fan_out: int) -> None:
    linear = [each for each in net.modules() if isinstance(each, nn.Linear)]
    for module, (weight, bias) in zip(linear, layers(name, fan_in, fan_out), strict=False):
        module.weight.data, module.bias.data = torch.from_numpy(weight.T.copy()), torch.from_numpy(bias)


def gradients(loss: Tensor, net: nn.Module) -> list[list[float]]:
    """Of each layer's weight [in, out], then its bias; log-deviations left out."""
    linear = [each for each in net.modules() if isinstance(each, nn.Linear)][: len(HIDDEN) + 1]
    wanted = [parameter for each in linear for parameter in (each.weight, each.bias)]
    found = torch.autograd.grad(loss, wanted, retain_graph=True)
    return [[round(float(value), 9) for value in each.T.flatten()] for each in found]


@contextmanager
def fixed(given: dict[str, np.ndarray]) -> Iterator[None]:
    """Random numbers are the given ones, in the order in which d3rlpy draws them."""
    normal = [given[name] for name in ("own", "current", "following") if name in given]
    kept = torch.randn, torch.distributions.Normal.rsample, Tensor.uniform_

    def rsample(self: Any, sample_shape: Any = ()) -> Tensor:
        drawn = torch.from_numpy(normal.pop(0))
        return self.loc + self.scale * (drawn.transpose(0, 1) if drawn.dim() == 3 else drawn)

    def uniform(self: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.from_numpy(given["uniform"]).reshape(self.shape)

    torch.distributions.Normal.rsample, Tensor.uniform_ = rsample, uniform  # type: ignore[method-assign]
    torch.randn = lambda *shape, **_: torch.from_numpy(given["target"])  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn, torch.distributions.Normal.rsample, Tensor.uniform_ = kept  # type: ignore[method-assign]


def built(config: Callable[..., Any], **options: Any) -> Any:
    from d3rlpy.models.encoders import VectorEncoderFactory

    encoder = VectorEncoderFactory(list(HIDDEN))
    algorithm = config(actor_encoder_factory=encoder, critic_encoder_factory=encoder, **options).create(device="cpu:0")
    algorithm.create_impl((STATE,), ACTION)
    modules = algorithm.impl._modules
    put(modules.policy, "actor", STATE, ACTION)
    for kind, nets in (("critic", modules.q_funcs), ("target critic", modules.targ_q_funcs)):
        for number, net in enumerate(nets):
            put(net, f"{kind} {number}", STATE + ACTION, 1)
    return algorithm


def torch_batch() -> Any:
    from d3rlpy.torch_utility import TorchMiniBatch

    tensors = {name: torch.from_numpy(values) for name, values in batch().items()}
    column = {name: tensors[name][:, None] for name in ("rewards", "terminals")}
    return TorchMiniBatch(
        observations=tensors["states"], actions=tensors["actions"], rewards=column["rewards"],
        next_observations=tensors["next_states"], next_actions=tensors["actions"],
        returns_to_go=torch.zeros_like(column["rewards"]), terminals=column["terminals"],
        intervals=torch.ones_like(column["rewards"]), device="cpu:0",
    )  # fmt: skip


def of(impl: Any, critic: Tensor, actor: Tensor, **more: Any) -> dict[str, Any]:
    modules = impl._modules
    return {
        "critic": float(critic),
        "actor": float(actor),
        "critic gradients": [gradients(critic, net) for net in modules.q_funcs],
        "actor gradients": gradients(actor, modules.policy),
        **more,
    }


def td3_like(config: Callable[..., Any], name: str) -> dict[str, Any]:
    impl, given = built(config, **OPTIONS[name]).impl, torch_batch()
    put(impl._modules.targ_policy, "target actor", STATE, ACTION)
    more = {}
    if name == "prdc":
        states, actions = logged()
        impl._nbsr.fit(np.concatenate([OPTIONS[name]["beta"] * states, actions], 1))
        with torch.no_grad():
            own = impl._modules.policy(given.observations).squashed_mu
        keys = torch.cat([OPTIONS[name]["beta"] * given.observations, own], 1).numpy()
        more["nearest"] = impl._nbsr.kneighbors(keys, 1, return_distance=False)[:, 0].tolist()
    with fixed({"target": noise()["target"]}):
        target = impl.compute_target(given)
    critic = impl.compute_critic_loss(given, target).critic_loss
    actor = impl.compute_actor_loss(given, impl._modules.policy(given.observations)).actor_loss
    return of(impl, critic, actor, **more)


def iql(config: Callable[..., Any]) -> dict[str, Any]:
    ours = OPTIONS["iql"]
    from d3rlpy.models.encoders import VectorEncoderFactory

    options = {
        "expectile": ours["expectile"], "weight_temp": ours["beta"], "max_weight": ours["most_weight"],
        "value_encoder_factory": VectorEncoderFactory(list(HIDDEN)),
    }  # fmt: skip
    impl, given = built(config, **options).impl, torch_batch()
    put(impl._modules.value_func, "value", STATE, 1)
    low, high = impl._modules.policy._min_logstd, impl._modules.policy._max_logstd
    share = (LOG_STD - low) / (high - low)
    impl._modules.policy._logstd.data.fill_(float(np.log(share / (1 - share))))
    loss = impl.compute_critic_loss(given, impl.compute_target(given))
    actor = impl.compute_actor_loss(given, impl._modules.policy(given.observations)).actor_loss
    value = gradients(loss.v_loss, impl._modules.value_func)
    return of(impl, loss.q_loss, actor, value=float(loss.v_loss), **{"value gradients": value})


def cql(config: Callable[..., Any]) -> dict[str, Any]:
    options = {"conservative_weight": OPTIONS["cql"]["conservatism"], "n_action_samples": COUNT, "alpha_threshold": 0.0}
    impl = built(config, **options, temp_learning_rate=0.0, alpha_learning_rate=0.0).impl
    given, policy = torch_batch(), impl._modules.policy
    policy._logstd.weight.data.zero_()
    policy._logstd.bias.data.fill_(LOG_STD)
    target = impl.compute_target(given)
    with fixed({name: noise()[name] for name in ("current", "following", "uniform")}):
        loss = impl.compute_critic_loss(given, target)
    with fixed({"own": noise()["own"]}):
        actor = impl.compute_actor_loss(given, policy(given.observations)).actor_loss
    return of(impl, loss.critic_loss, actor, gap=float(loss.conservative_loss))


def main() -> None:
    import d3rlpy

    found = {
        "d3rlpy": d3rlpy.__version__,
        "td3-bc": td3_like(d3rlpy.algos.TD3PlusBCConfig, "td3-bc"),
        "prdc": td3_like(d3rlpy.algos.PRDCConfig, "prdc"),
        "iql": iql(d3rlpy.algos.IQLConfig),
        "cql": cql(d3rlpy.algos.CQLConfig),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
