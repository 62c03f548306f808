"""Wide nets in chunks give the numbers of one batched product a layer: outputs, gradients, gradients of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from paperworks.control import wide
from paperworks.control.networks import Critics, Perceptrons

SIZES, NETS, ROWS = (5, 64, 48, 2), 3, 700  # more than a chunk, and not a multiple of one


def batched(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.baddbmm(bias, x, weight)
        x = x.relu() if number + 1 < len(weights) else x
    return x


@pytest.fixture
def nets() -> Perceptrons:
    return Perceptrons(SIZES, range(NETS), "wide")


def inputs() -> Tensor:
    return torch.randn(NETS, ROWS, SIZES[0], generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_outputs_and_gradients(nets: Perceptrons) -> None:
    x, parameters = inputs(), [*nets.weights, *nets.biases]
    assert wide.suits(x, list(nets.weights))
    outputs = [way(x, list(nets.weights), list(nets.biases)) for way in (wide.perceptrons, batched)]
    torch.testing.assert_close(*outputs)
    ours, plain = (torch.autograd.grad(output.square().sum(), [x, *parameters]) for output in outputs)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-5)


def test_a_net_does_not_depend_on_its_company(nets: Perceptrons) -> None:
    x = inputs().detach()
    for place in range(NETS):
        alone = Perceptrons(SIZES, [place], "wide")
        assert torch.equal(nets(x)[place], alone(x[place : place + 1])[0])


def test_gradients_of_frozen_nets_reach_the_input_alone(nets: Perceptrons) -> None:
    x = inputs()
    (wanted,) = torch.autograd.grad(nets(x).sum(), [x])
    frozen = nets(x, frozen=True).sum()
    (found,) = torch.autograd.grad(frozen, [x], retain_graph=True)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(RuntimeError, match="to not have been used"):
        torch.autograd.grad(frozen, [nets.weights[0]])


def test_gradients_of_gradients(nets: Perceptrons) -> None:
    """Fisher-vector products and gradient penalties ask for them."""
    x, weights, biases = inputs(), list(nets.weights), list(nets.biases)
    found = []
    for way in (wide.perceptrons, batched):
        (first,) = torch.autograd.grad(way(x, weights, biases).tanh().sum(), [x], create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), weights))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    assert all(each.abs().max() > 0 for each in found[0])


def test_transforms_of_torch_look_through(nets: Perceptrons) -> None:
    x, direction = inputs().detach(), torch.ones(NETS, ROWS, SIZES[0])
    weights, biases = list(nets.weights), list(nets.biases)
    (_, found), (_, wanted) = (
        torch.func.jvp(way, (x,), (direction,)) for way in (nets, lambda given: batched(given, weights, biases))
    )
    torch.testing.assert_close(found, wanted)


def test_few_rows_and_other_devices_are_left_to_batched_products(nets: Perceptrons) -> None:
    assert not wide.suits(torch.zeros(NETS, 8, 5), list(nets.weights))
    assert not wide.suits(torch.zeros(NETS, ROWS, 5, device="meta"), list(nets.weights))


def test_critics_hand_it_on() -> None:
    critics = Critics(3, 2, (64, 64), [0, 1])
    states, actions = torch.randn(2, 600, 3), torch.randn(2, 600, 2).requires_grad_()
    torch.testing.assert_close(critics.first(states, actions, frozen=True), critics(states, actions)[:, 0])
    with pytest.raises(RuntimeError, match="to not have been used"):
        torch.autograd.grad(critics(states, actions, frozen=True).sum(), list(critics.parameters()))
