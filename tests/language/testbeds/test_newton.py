import torch

from paperworks.language.testbeds.newton import minimise


def test_a_quadratic_is_solved_exactly_for_every_problem() -> None:
    target = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
    found = minimise(lambda x: ((x - target) ** 2).sum(-1), torch.zeros_like(target), tolerance=1e-12)
    assert torch.allclose(found.point, target, atol=1e-12)
    assert found.converged(1e-12)


def test_a_saddle_is_left_and_a_flat_direction_does_no_harm() -> None:
    # x^4/4 - x^2/2 has minima at +-1; the second unknown does not matter
    start = torch.tensor([[0.01, 7.0]], dtype=torch.float64)
    found = minimise(lambda x: x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2, start)
    assert torch.allclose(found.point, torch.tensor([[1.0, 7.0]], dtype=torch.float64), atol=1e-8)


def test_a_loss_without_minimum_is_reported_as_not_converged() -> None:
    found = minimise(lambda x: -x.sum(-1), torch.zeros(1, 2, dtype=torch.float64), max_steps=5)
    assert not found.converged(1e-6)
    assert found.gradient_norm.item() == 1.0


def test_a_problem_does_not_depend_on_its_neighbours() -> None:
    scale = torch.tensor([1.0, 100.0], dtype=torch.float64)

    def loss(weight: torch.Tensor):
        return lambda x: (weight * torch.nn.functional.softplus(x[:, 0])) - 0.3 * weight * x[:, 0]

    together = minimise(loss(scale), torch.zeros(2, 1, dtype=torch.float64))
    alone = minimise(loss(scale[:1]), torch.zeros(1, 1, dtype=torch.float64))
    assert torch.equal(together.point[:1], alone.point)
