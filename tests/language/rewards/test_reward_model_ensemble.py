"""Ensembles of reward models in one: members with top layers of their own, or heads alone; trained, saved, used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from paperworks.core.errors import ModelError
from paperworks.language.data import Dataset, Preference
from paperworks.language.objectives.member_rewards import bootstrap_weights
from paperworks.language.objectives.reward_modelling import BradleyTerry
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.ensemble import EnsembleReward
from paperworks.language.rewards.model import RewardModel
from paperworks.language.rewards.model_forward import packed, padded
from paperworks.language.rewards.model_reward import standardise_members
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.text_model import LoraOptions
from paperworks.language.training import TrainOptions, train

torch.set_num_threads(1)
Backbone = Callable[[str], Path]
PROMPTS = [prompt for prompt, _ in generate_reviews(6, 3)]
RESPONSES = [response for _, response in generate_reviews(6, 4)]
ROWS = [Preference(p, f"{r} It is great.", f"{r} It is awful.") for p, r in generate_reviews(32, 1, clauses=(1, 1))]
QUICK = TrainOptions(steps=4, batch_size=8, micro_batch=4, learning_rate=3e-3, select="last")


def made(folder: Path, members: int = 3, **options: object) -> RewardModel:
    model = RewardModel.load(folder, device="cpu", lora=options.pop("lora", None))  # type: ignore[arg-type]
    model.make_ensemble(members, **options)  # type: ignore[arg-type]
    return model


def member_scores(model: RewardModel) -> torch.Tensor:
    return model.member_scores(model.encode(PROMPTS, RESPONSES))


@pytest.mark.parametrize(("name", "layers"), [("llama", 1), ("gpt2", 1), ("llama", 0), ("bloom", 0), ("bert", 0)])
def test_every_path_gives_every_members_score(backbone: Backbone, name: str, layers: int) -> None:
    from paperworks.language.logprobs import Tree

    model = made(backbone(name), layers=layers)
    scores = member_scores(model)
    assert scores.shape == (6, 3)
    assert (scores[:, 0] - scores[:, 1]).abs().max() > 1e-4  # heads drawn on their own
    encoded = model.encode(PROMPTS, RESPONSES)
    trees = [Tree(each.prompt, [each.response]) for each in encoded]
    with torch.no_grad():
        assert padded(model, trees) == pytest.approx(scores.float(), abs=1e-5)
        if model.method == "packed":
            assert packed(model, trees) == pytest.approx(scores.float(), abs=1e-5)


def test_training_scores_have_the_members_in_a_responses_place(backbone: Backbone) -> None:
    from paperworks.language.logprobs import Tree

    model = made(backbone("llama"), layers=1)
    trees = [Tree(each.prompt, [each.response]) for each in model.encode(PROMPTS, RESPONSES)]
    with torch.no_grad():
        found = model.scores(trees)
    assert found.values.view(6, 3) == pytest.approx(member_scores(model).float(), abs=1e-5)
    assert found.sums() == pytest.approx(member_scores(model).sum(1).float(), abs=1e-5)


def test_only_what_is_the_members_own_trains_above_a_frozen_part(backbone: Backbone) -> None:
    model = made(backbone("llama"), layers=1, freeze_shared=True)
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    train(model, BradleyTerry(ensemble=3, member_layers=1, freeze_shared=True), Dataset(tuple(ROWS)), QUICK)
    moved = {name for name, value in model.base.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("model.layers.1.", "model.norm", "score")) for name in moved)
    first, second = model.tops
    assert not torch.equal(first.layers[0].mlp.up_proj.weight, second.layers[0].mlp.up_proj.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("layers", [0, 1])
def test_members_train_and_are_saved_with_their_scales(backbone: Backbone, layers: int, tmp_path: Path) -> None:
    model = RewardModel.load(backbone("llama"), device="cpu")
    objective = BradleyTerry(ensemble=3, member_layers=layers, freeze_shared=False)
    options = TrainOptions(steps=25, batch_size=16, micro_batch=16, learning_rate=5e-3, select="last")
    result = train(model, objective, Dataset(tuple(ROWS)), options, held_out=Dataset(tuple(ROWS[:8])))
    assert result.held_out["accuracy"] == 1 and "member_disagreement" in result.held_out
    line = standardise_members(model, ROWS, what="training pairs")
    assert "3 members standardised on 64 responses of training pairs" in line
    model.save(tmp_path / "model")
    reward = load_reward(str(tmp_path / "model"), device="cpu")
    assert isinstance(reward, EnsembleReward) and reward.rule == "mean"
    texts = [row.chosen for row in ROWS] + [row.rejected for row in ROWS]
    z = reward.member_scores([row.prompt for row in ROWS] * 2, texts)
    assert z.mean(1) == pytest.approx([0] * 3, abs=1e-4) and z.std(1) == pytest.approx([1] * 3, abs=1e-4)
    if layers:  # the first member is an ordinary reward model to everyone
        alone = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
        assert alone.config.num_labels == 1
        assert torch.equal(alone.score.weight, model.base.score.weight)  # type: ignore[union-attr]


def test_an_interrupted_ensemble_goes_on_to_the_same_weights(backbone: Backbone, tmp_path: Path) -> None:
    objective, rows = BradleyTerry(ensemble=2, member_layers=1), Dataset(tuple(ROWS))

    def run(folder: Path, stop: int | None) -> RewardModel:
        class Stop(Exception): ...

        def on_step(step: int, steps: int, values: object) -> None:
            if step == stop:
                raise Stop

        for resume in (False, True):
            model = RewardModel.load(backbone("llama"), device="cpu")
            options = TrainOptions(steps=4, batch_size=8, learning_rate=3e-3, select="last", save_every=1)
            try:
                train(
                    model, objective, rows, options, folder=folder, resume=resume, on_step=None if resume else on_step
                )
                break
            except Stop:
                continue
        return model

    whole, resumed = run(tmp_path / "whole", None), run(tmp_path / "resumed", 3)
    assert torch.equal(member_scores(whole), member_scores(resumed))


def test_adapters_carry_the_heads_of_an_ensemble(backbone: Backbone, tmp_path: Path) -> None:
    model = made(backbone("llama"), lora=LoraOptions(rank=2))
    assert (model.members, model.own_layers) == (3, 0)
    before = member_scores(model)
    model.save(tmp_path / "adapter")
    again = RewardModel.load(tmp_path / "adapter", device="cpu")
    assert torch.allclose(member_scores(again), before, atol=1e-6)
    with pytest.raises(ModelError, match="members share adapters"):
        made(backbone("llama"), layers=1, lora=LoraOptions(rank=2))


def test_bootstrap_weights_are_poisson_and_fixed_by_the_draw() -> None:
    draws = torch.randint(1 << 24, (20_000,), generator=torch.Generator().manual_seed(0)).float()
    weights = bootstrap_weights(draws, 3)
    assert torch.equal(weights, bootstrap_weights(draws, 3))
    assert weights.mean(0) == pytest.approx(torch.ones(3), abs=0.03)
    assert weights.var(0) == pytest.approx(torch.ones(3), abs=0.05)
    assert torch.corrcoef(weights.T)[0, 1].abs() < 0.03
    assert bootstrap_weights(torch.tensor([float("nan")]), 2).tolist() == [[1, 1]]


def test_one_member_is_the_plain_model() -> None:
    assert BradleyTerry() == BradleyTerry(ensemble=1)
    assert not BradleyTerry().needs_tokens and BradleyTerry().numbers == ("margin",)


def test_what_cannot_be_an_ensemble_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected between 1 and 1"):
        made(backbone("llama"), layers=2)
    with pytest.raises(ModelError, match="cannot be divided"):
        made(backbone("bert"), layers=1)
    single = RewardModel.load(backbone("llama"), device="cpu")
    single.save(tmp_path / "trained")
    with pytest.raises(ModelError, match="has a trained head already"):
        made(tmp_path / "trained")
    saved = made(backbone("llama"), layers=1)
    saved.save(tmp_path / "three")
    with pytest.raises(ModelError, match="has 3 members with 1 layers"):
        made(tmp_path / "three", 4)
    rows = Dataset(tuple(ROWS))
    with pytest.raises(ModelError, match="train it with --ensemble 3"):
        train(RewardModel.load(tmp_path / "three", device="cpu"), BradleyTerry(), rows, QUICK)
    facts = tmp_path / "three" / "ensemble.json"
    facts.write_text(json.dumps({"members": 1}))
    with pytest.raises(ModelError, match=r"ensemble.json: damaged"):
        RewardModel.load(tmp_path / "three", device="cpu")
    facts.write_text(json.dumps({"members": 3, "layers": 1}))
    (tmp_path / "three" / "members.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"members.safetensors: damaged or missing"):
        RewardModel.load(tmp_path / "three", device="cpu")
