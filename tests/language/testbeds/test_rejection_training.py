"""Training on pairs of rejection sampling: where pairs come from, what they prefer, nets that do not meet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.language.objectives.rso import RSO
from paperworks.language.testbeds import rejection_training
from paperworks.language.testbeds.decoders import mean_scores_of
from paperworks.language.testbeds.list_completion import PROMPT
from paperworks.language.testbeds.rejection_training import ANY, Scale, World

SMALL = Scale(20, 10, 40, 5, prompts=6, candidates=24, steps=3, batch=4, judged=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    for seed in (1, 2):
        rejection_training.make_world(seed, SMALL).save(folder / f"{seed}")
    return rejection_training.load_worlds([folder / "1", folder / "2"], [1, 2])


def scored(world: World, pairs: torch.Tensor) -> torch.Tensor:
    """The ranker's scores, [seeds, pairs, two]."""
    return mean_scores_of(world.ranker, pairs.flatten(1, 2), PROMPT).unflatten(1, (-1, 2))


def test_scores_are_the_ranker_s_and_gold_has_a_unit(world: World) -> None:
    again = mean_scores_of(world.ranker, world.candidates.flatten(1, 2), PROMPT)
    assert torch.allclose(again, world.scores.flatten(1), atol=1e-4)
    gold = world.gold(rejection_training._traits(world.candidates.flatten(1, 2)))
    assert gold.std(1).tolist() == pytest.approx([1.0, 1.0], abs=0.3)


def test_pairs_of_candidates_prefer_what_the_ranker_prefers_and_answer_one_prompt(world: World) -> None:
    pairs = rejection_training.paired(world, "candidates", 0.5, SMALL)
    assert pairs.shape[:3] == (2, 6 * 4, 2)
    assert bool((pairs[:, :, 0, :PROMPT] == pairs[:, :, 1, :PROMPT]).all())
    chosen, rejected = scored(world, pairs).unbind(-1)
    assert bool((chosen >= rejected - 1e-5).all())


def test_a_small_beta_accepts_the_best_and_a_large_one_anything(world: World) -> None:
    spread = float(world.scores.std())
    means = [
        float(scored(world, rejection_training.paired(world, "candidates", beta, SMALL)).mean())
        for beta in (0.01 * spread, ANY)
    ]
    assert means[0] > means[1] + 0.5 * spread
    assert means[1] == pytest.approx(float(world.scores.mean()), abs=0.5 * spread)


def test_direct_pairs_are_the_human_ones_as_many_as_of_candidates(world: World) -> None:
    assert torch.equal(rejection_training.paired(world, "direct", ANY, SMALL), world.human[:, :24])


def test_a_net_learns_the_same_alone_and_among_others(world: World, tmp_path: Path) -> None:
    pairs = rejection_training.paired(world, "candidates", 0.5, SMALL)
    losses = [RSO(gamma=0.05), RSO(gamma=0.2, loss_type="hinge")]
    together = rejection_training.train_on_pairs(world, [pairs, pairs], losses, [1e-2, 1e-3], SMALL)
    second = World(
        (2,),
        *(getattr(world, name).take([1]) for name in ("policy", "ranker")),
        *(getattr(world, name)[1:] for name in ("unit", "human", "candidates", "scores", "accuracy")),
    )
    alone = rejection_training.train_on_pairs(second, [pairs[1:]], losses[1:], [1e-3], SMALL)
    assert torch.allclose(together.parameters["head"][3], alone.parameters["head"][0], atol=1e-5)
    of_all, of_one = (rejection_training.judged(*each, SMALL) for each in ((world, together), (second, alone)))
    assert float(of_all["gold_win"][3]) == float(of_one["gold_win"][0])


def test_imitation_of_the_best_raises_the_ranker_s_score(world: World) -> None:
    best = rejection_training.chosen_answers(world, None)
    above = rejection_training.chosen_answers(world, 0.7)
    assert [len(each) for each in best] == [6, 6]
    for place, each in enumerate(above):
        scores = world.scores[place]
        limit = scores.min() + 0.7 * (scores.max() - scores.min())
        assert len(each) == int((scores > limit).sum())
    nets = rejection_training.imitate_chosen(world, best, [1e-2], SMALL)
    own, start = (
        torch.stack([net.scored(each[None], PROMPT)[0].mean() for net, each in zip(nets, best)])
        for nets in ([nets.take([0]), nets.take([1])], [world.policy.take([0]), world.policy.take([1])])
    )
    assert bool((own > start).all())
