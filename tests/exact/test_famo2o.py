"""FamO2O against worked numbers and identities (arXiv 2310.17966)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import gaussian_log_prob, squashed
from paperworks.control.learner import Shapes
from paperworks.control.offline.family import BetaRange, encode
from paperworks.control.offline.famo2o import BASES, FamilyIQL, FamO2O, FamO2OOptions, advantage_weight
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError

ROWS = 12


def log() -> Log:
    """Twelve rows of three numbers a state and two an action."""
    draw = np.random.default_rng(0)
    states, following = (draw.normal(size=(ROWS, 3)).astype(np.float32) for _ in range(2))
    actions, rewards = draw.uniform(-1, 1, (ROWS, 2)).astype(np.float32), draw.normal(size=ROWS).astype(np.float32)
    ends = np.arange(ROWS) % 4 == 3
    made = Transitions(states, actions, rewards, following, ends, np.zeros(ROWS, bool))
    return Log(made, np.zeros(3, np.float32), np.ones(3, np.float32), torch.device("cpu"))


def learner(base: str = "iql", **options: Any) -> Any:
    kept = log()
    return FamO2O(Shapes(3, 2), FamO2OOptions(base=base, hidden=(16, 16), **options), [0, 1], kept)  # type: ignore[arg-type]


def batch() -> Batch:
    return log().batch(torch.arange(ROWS).repeat(2, 1))


def draws() -> Draws:
    return Draws([0, 1], ROWS, ROWS, torch.device("cpu"))


def noises(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of the balance model and of the action."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, ROWS, 1, generator=draw), torch.randn(2, ROWS, 2, generator=draw)


@pytest.mark.parametrize(
    ("beta", "wanted"),
    [
        (1.0, (0.841471, 0.540302, 0.046399, 0.998923, 0.002154, 0.999998)),
        (11.0, (-0.999990, 0.004426, 0.488679, 0.872464, 0.023697, 0.999719)),
    ],
)
def test_the_encoding(beta: float, wanted: tuple[float, ...]) -> None:
    """Check 1."""
    found = encode(torch.tensor(beta), 6)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    torch.testing.assert_close(found.view(3, 2).norm(dim=1), torch.ones(3))


def test_the_density_is_of_x() -> None:
    """Check 2: the range's length is not in it; it would add log 3."""
    zero, raw = torch.zeros(1), torch.tensor([0.3])
    x, log_prob = squashed(zero, zero, raw)
    assert x.item() == pytest.approx(0.291313, abs=1e-6) and log_prob.item() == pytest.approx(-0.875257, abs=1e-6)
    assert BetaRange(8.0, 14.0).of(x).item() == pytest.approx(11.873938, abs=1e-5)
    of_models = []
    for betas in ((0.0, 1.0), (0.0, 6.0)):
        made = learner(beta_range=betas)
        of_models.append(made.family.draw_x(batch().states, noises()[0])[1])
    torch.testing.assert_close(of_models[0], of_models[1])


@pytest.mark.parametrize(
    ("beta", "advantage", "weight"), [(14.0, 0.5, 100.0), (8.0, 0.25, 7.389056), (14.0, -0.1, 0.246597)]
)
def test_weights_are_cut_behind_the_product(beta: float, advantage: float, weight: float) -> None:
    """Check 3."""
    found = advantage_weight(torch.tensor(beta), torch.tensor(advantage), 100.0)
    assert found.item() == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("online", [False, True])
def test_a_range_of_one_balance_is_iql(online: bool) -> None:
    """Check 4: IQL's loss at that temperature in either phase, and nothing for the balance model to choose."""
    made, one = learner(), batch()
    made.family.betas, made.is_online = BetaRange(3.0, 3.0), online
    beta = made.betas(one, draws(), 0)
    assert beta.eq(3.0).all()
    advantage = torch.randn(2, ROWS, generator=torch.Generator().manual_seed(1))
    mean = made.family.output(one.states, torch.full((2, ROWS), 3.0)).tanh()
    of_iql = -((3.0 * advantage).exp().clamp(max=100) * gaussian_log_prob(mean, made.log_std, one.actions)).mean(1)
    torch.testing.assert_close(made.universal_loss(one, beta, advantage), of_iql)
    with torch.no_grad():
        made.log_eta.fill_(-torch.inf)  # the part of Q alone
    made.balance_loss(one, *noises())[0].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in made.family.balance.parameters())


def test_without_advantages_the_family_clones() -> None:
    """Check 5: the weights are 1, whatever the balances."""
    made, one = learner(), batch()
    beta = 1 + 4 * torch.rand(2, ROWS, generator=torch.Generator().manual_seed(2))
    mean = made.family.output(one.states, beta).tanh()
    cloning = -gaussian_log_prob(mean, made.log_std, one.actions).mean(1)
    torch.testing.assert_close(made.universal_loss(one, beta, torch.zeros(2, ROWS)), cloning)


@pytest.mark.parametrize(("above", "sign"), [(0.3, -1), (-0.3, 1), (0.0, 0)])
def test_the_temperature_holds_the_entropy(above: float, sign: int) -> None:
    """Check 6: eta falls where the entropy is above its target, rises below, and stays at it."""
    made, one = learner(), batch()
    entropy = made.balance_loss(one, draws().normal("x", 0, ROWS, 1), noises()[1])[1]["balance_entropy"][0].item()
    made = learner(target_entropy=entropy - above)
    told = made.fit_balance(one, draws(), 0)
    assert told["balance_entropy"][0].item() == pytest.approx(entropy)
    assert made.log_eta[0].sign().item() == sign


def test_ends_and_middle_of_the_range_are_exact() -> None:
    """Check 7."""
    for low, high in ((8.0, 14.0), (0.1, 0.7), (1.0, 5.0)):
        found = BetaRange(low, high).of(torch.tensor([-1.0, 0.0, 1.0]))
        wanted = torch.tensor([low, 0.0, high])
        wanted[1] = torch.tensor(low) + (torch.tensor(high) - torch.tensor(low)) / 2
        assert found[[0, 2]].equal(wanted[[0, 2]]) and found[1].item() == pytest.approx(wanted[1].item(), abs=1e-7)
    assert BetaRange(8.0, 14.0).of(torch.zeros(1)).item() == 11.0


@pytest.mark.parametrize("base", BASES)
def test_either_model_s_step_leaves_the_other_alone(base: str) -> None:
    """Check 8, by what moves; and the balance model does move, through the universal model's input."""
    made, one = learner(base), batch()

    def weights() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in made.named_parameters()}

    def moved(before: dict[str, Tensor]) -> set[str]:
        return {name for name, value in made.named_parameters() if not value.equal(before[name])}

    made.fit_balance(one, draws(), 0)  # eta's first value is known to move
    before = weights()
    made.descend("balance", made.balance_loss(one, *noises())[0])
    assert {name.split(".")[1] for name in moved(before)} == {"balance", "balance_log_std"}
    before, beta = weights(), made.betas(one, draws(), 0)
    loss = made.universal_loss(one, beta, torch.ones(2, ROWS) if base == "iql" else noises()[1])
    made.descend("universal", loss if base == "iql" else loss[0])
    assert {".".join(name.split(".")[:2]) for name in moved(before)} <= {"family.universal", "log_std"}
    assert moved(before) and all(parameter.grad is None for parameter in made.parameters())


def test_with_iql_critics_know_nothing_of_balances() -> None:
    """Check 9: whatever the range, V and Q are the same to the bit, and so are their targets."""
    found = []
    for betas in ((1.0, 5.0), (8.0, 14.0)):
        made = learner(beta_range=betas)
        for step in range(5):
            made.update(batch(), draws(), step)
        found.append([*made.value.parameters(), *made.critics.parameters(), *made.target_critics.parameters()])
    assert all(one.equal(two) for one, two in zip(*found, strict=True))


def test_balances_are_of_rows_on_the_log_and_of_states_online() -> None:
    made, one = learner(beta_range=(1.0, 5.0)), batch()
    offline = made.betas(one, draws(), 3)
    assert len(offline.unique()) == 2 * ROWS and offline.min() >= 1 and offline.max() <= 5
    assert not offline.equal(made.betas(one, draws(), 4))
    made.is_online = True
    with torch.no_grad():
        made.family.balance_log_std.fill_(-9.0)
    torch.testing.assert_close(made.betas(one, draws(), 3), made.family.chosen(one.states), atol=1e-2, rtol=0)


def test_the_first_universal_step_by_the_formula() -> None:
    """The updated V, the target critics and each row's own balance make the weight."""
    made, one = learner(learning_rate=1e-2, expectile=0.9), batch()
    twin = learner(learning_rate=1e-2, expectile=0.9)
    known = made.target_critics(one.states, one.actions).amin(1).detach()
    beta = made.betas(one, draws(), 0)
    told = made.update(one, draws(), 0)
    advantage = known - made.value(one.states).squeeze(-1).detach()
    torch.testing.assert_close(told["actor"], twin.universal_loss(one, beta, advantage).detach())
    assert isinstance(made, FamilyIQL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_range": (5.0, 1.0)}, "the first must be below"),
        ({"beta_range": (2.0, 2.0)}, "the first must be below"),
        ({"beta_range": (-1.0, 2.0)}, "negative balance"),
        ({"encoding_dim": 5}, "odd"),
        ({"encoding_dim": 0}, "encoding_dim"),
    ],
)
def test_options_that_make_no_family(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FamO2OOptions(**options)


def test_a_member_outside_the_family_is_refused() -> None:
    actor = learner().actor_of(0)
    with pytest.raises(OptionError, match="balances from 1 to 5"):
        actor.at(7.0)
