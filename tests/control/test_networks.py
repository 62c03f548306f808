"""Nets side by side are nets alone: the same start, the same outputs, the same training."""

from __future__ import annotations

import copy

import pytest
import torch

from paperworks.control.networks import Critics, Perceptrons, follow


def test_a_net_does_not_depend_on_its_company() -> None:
    together = Perceptrons((3, 8, 2), [0, 1, 2], "actor")
    x = torch.randn(3, 5, 3)
    for place, seed in enumerate((0, 1, 2)):
        alone = Perceptrons((3, 8, 2), [seed], "actor")
        torch.testing.assert_close(together(x)[place], alone(x[place : place + 1])[0])
    assert not torch.equal(Perceptrons((3, 8, 2), [0], "value")(x[:1]), Perceptrons((3, 8, 2), [0], "actor")(x[:1]))


def test_it_is_the_perceptron_of_torch() -> None:
    nets = Perceptrons((3, 8, 8, 2), [4], "actor")
    layers: list[torch.nn.Module] = []
    for weight, bias in nets.net(0):
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T, bias
        layers += [linear, torch.nn.ReLU()]
    x = torch.randn(1, 6, 3)
    torch.testing.assert_close(nets(x)[0], torch.nn.Sequential(*layers[:-1])(x[0]))
    bound = 1 / 3**0.5
    assert nets.weights[0].abs().max() <= bound and nets.weights[0].abs().max() > 0.8 * bound


def test_twin_critics_differ_and_the_first_is_the_first() -> None:
    critics = Critics(2, 1, (8,), [0, 1])
    states, actions = torch.randn(2, 5, 2), torch.randn(2, 5, 1)
    found = critics(states, actions)
    assert found.shape == (2, 2, 5) and not torch.equal(found[:, 0], found[:, 1])
    torch.testing.assert_close(critics.first(states, actions), found[:, 0])


def test_a_target_follows() -> None:
    source = Perceptrons((1, 1), [0], "a")
    target = copy.deepcopy(source)
    with torch.no_grad():
        source.weights[0].fill_(1.0)
        target.weights[0].fill_(0.0)
    follow(target, source, 0.25)
    assert target.weights[0].item() == pytest.approx(0.25)
