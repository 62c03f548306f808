import torch

from paperworks.language.data import ScoredGroup
from paperworks.language.objectives import GroupLogps, ResponseLogps
from paperworks.language.testbeds.scored_groups import (
    OffPolicyGradient,
    best_of_each,
    load_rows,
    ranked_pairs,
    save_rows,
)

ROWS = [
    ScoredGroup("p", (" a", " b", " c", " d"), (0.5, 2.0, 2.0, -1.0)),
    ScoredGroup("q", (" e", " f"), (1.0, 1.0)),
    ScoredGroup("r", (" g", " h", " g", " i"), (3.0, 1.0, 3.0, 2.0)),
]


def test_rows_come_back_as_they_were(tmp_path) -> None:
    save_rows(tmp_path / "groups.jsonl", ROWS)
    assert load_rows(tmp_path / "groups.jsonl") == ROWS


def test_the_best_of_a_group_is_the_first_of_its_highest_scores() -> None:
    assert [row.response for row in best_of_each(ROWS)] == [" b", " e", " g"]


def test_pairs_are_best_with_worst_and_ties_are_left_out() -> None:
    pairs = [(row.chosen, row.rejected) for row in ranked_pairs(ROWS)]
    assert pairs == [(" b", " d"), (" c", " a"), (" g", " h"), (" g", " i")]


def test_the_off_policy_gradient_weighs_by_the_regularised_score_alone() -> None:
    ratios = torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64, requires_grad=True)
    response = ResponseLogps(ratios, torch.ones(3), torch.zeros(3, dtype=torch.float64), row=torch.tensor([0, 0, 1]))
    scores = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    loss = OffPolicyGradient(beta=0.5).loss(GroupLogps(response, scores, torch.ones(2, dtype=torch.float64)))
    gradient = torch.autograd.grad(loss.sum(), ratios)[0]
    expected = -(scores - 0.5 * ratios.detach()) / torch.tensor([2.0, 2.0, 1.0])
    assert torch.allclose(gradient, expected)
