"""Models of invented people: fitted once, alike but for the forget set, and each load a copy of its own."""

import dataclasses

import pytest
import torch

from paperworks.language.testbeds import facts
from paperworks.language.testbeds.fact_models import SMOKE, FactSpec, make_models

TINY = dataclasses.replace(SMOKE, forget=1, retain=2, held_out=0, lesson_people=2, lesson_epochs=0.2, epochs=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(folder):
    return make_models(folder, 5, TINY)


def weights(policy):
    return torch.cat([parameter.flatten() for parameter in policy.model.parameters()])


def test_the_world_is_that_of_the_seed_and_the_spec(models) -> None:
    assert models.world == facts.make_world(5, forget=1, retain=2, held_out=0)


def test_both_models_share_a_tokenizer_and_differ_in_weights(models) -> None:
    target, retain_only = models.target(), models.retain_only()
    assert target.tokenizer.get_vocab() == retain_only.tokenizer.get_vocab()
    assert not torch.equal(weights(target), weights(retain_only))
    assert (target.name, retain_only.name) == ("target", "retain-only")


def test_models_are_fitted_once(models, folder) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(before) == 3  # the base, and two
    assert torch.equal(weights(make_models(folder, 5, TINY).target()), weights(models.target()))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_training_a_loaded_model_leaves_the_next_one_as_it_was(models) -> None:
    first = models.target()
    with torch.no_grad():
        next(first.model.parameters()).zero_()
    assert not torch.equal(weights(models.target()), weights(first))


def test_other_specs_have_other_folders(models, folder) -> None:
    assert FactSpec().key != TINY.key
    assert TINY.key in models.target_folder.as_posix()
