"""What is made of rewards on the command line: ensembles trained, evaluated, combined, and best of n by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.cli.main import main
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models") / "small"
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=128), tokenizer).save(folder)


@pytest.fixture(scope="module")
def pairs(model: Path) -> Path:
    rows = zip(generate_reviews(40, 1), generate_reviews(40, 2), strict=True)
    made = [{"prompt": a.prompt, "chosen": a.response, "rejected": b.response + " No."} for a, b in rows]
    path = model.parent / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture(scope="module")
def ensemble(model: Path, pairs: Path) -> Path:
    """The run folder of three members, trained in one run."""
    folder = model.parent / "ensemble"
    words = ["--model", model, "--data", pairs, "--ensemble", 3, "--member-layers", 1, "--steps", 3, "--out", folder]
    assert main(["train", "reward-model", "--quiet", "--device", "cpu", *map(str, words)]) == 0
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: object) -> Outcome:
        code = main([*map(str, words), "--device", "cpu"])
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


def test_training_leaves_members_and_their_scales(ensemble: Path) -> None:
    facts = json.loads((ensemble / "model" / "ensemble.json").read_text())
    assert (facts["members"], facts["layers"], len(facts["scales"])) == (3, 1, 3)
    assert facts["standardised_on"] == "8 responses of held-out pairs"


def test_evaluation_shows_how_far_members_agree(command: Any, ensemble: Path, pairs: Path, tmp_path: Path) -> None:
    words = ("evaluate", "reward", "--reward", ensemble, "--data", pairs, "--combine", "wco", "--quiet")
    code, out, _ = command(*words, "--json", "--out", tmp_path / "run")
    found = json.loads(out)
    assert code == 0
    names = {figure["name"] for figure in found["figures"]}
    assert {"member_correlation", "members_differ", "member_variance", "variance_error"} <= names
    assert len(found["agreement"]["correlation"]) == 3 and len(found["agreement"]["member_accuracy"]) == 3
    assert "3 members, standardised, combined by wco" in found["notes"]
    assert "Agreement of the members" in (tmp_path / "run" / "report.html").read_text()


def test_several_rewards_are_one_ensemble(command: Any, ensemble: Path, pairs: Path) -> None:
    words = ("evaluate", "reward", "--reward", ensemble, "length", "--data", pairs, "--combine", "uwo", "--quiet")
    code, out, _ = command(*words, "--standardise-on", pairs, "--json")
    assert code == 0
    assert len(json.loads(out)["agreement"]["members"]) == 4
    code, _, err = command(*words)
    assert code == 2 and "no calibration texts for length" in err and "--standardise-on FILE" in err


def test_best_of_n_by_an_ensemble_says_how_sure_it_is(command: Any, model: Path, ensemble: Path) -> None:
    words = ("generate", "--model", model, "--prompt", "The film was", "--best-of", 4, "--max-new-tokens", 8)
    code, out, err = command(*words, "--reward", ensemble, "--combine", "wco", "--json")
    responses = json.loads(out)[0]["responses"]
    assert code == 0
    assert [each["reward"] for each in responses] == sorted((each["reward"] for each in responses), reverse=True)
    assert all(each["variance"] >= 0 for each in responses)
    assert "best of 4 is at most 0.64 nats" in err


def test_rewards_are_calibrated_by_what_generate_wrote(command: Any, model: Path, tmp_path: Path) -> None:
    words = ("generate", "--model", model, "--prompt", "The film was", "--max-new-tokens", 8, "--quiet")
    code, *_ = command(*words, "--n", 12, "--out", tmp_path / "reference.jsonl")
    assert code == 0
    calibrated = ("--reward", "length", "--calibrate", tmp_path / "reference.jsonl", "--inference", "bon")
    code, out, err = command(*words, "--best-of", 3, *calibrated, "--json")
    assert code == 0, err
    assert all(0 <= each["reward"] <= 1 for each in json.loads(out)[0]["responses"])
    code, _, err = command("generate", "--model", model, "--prompt", "Other", "--best-of", 2, *calibrated)
    assert code == 2 and "no reference responses for the prompt 'Other'" in err


def test_lengths_are_priced_in_the_models_tokens(command: Any, model: Path) -> None:
    words = ("generate", "--model", model, "--prompt", "The film was", "--best-of", 3, "--max-new-tokens", 8, "--json")
    _, out, _ = command(*words, "--reward", "lexicon", "--length-penalty", 0.5)
    for response in json.loads(out)[0]["responses"]:
        assert response["reward"] < 1 and (2 * response["reward"]).is_integer()


def test_evaluate_reports_each_reward_unless_they_are_combined(
    command: Any, model: Path, pairs: Path, tmp_path: Path
) -> None:
    words = ("evaluate", "--model", model, "--data", pairs, "--reward", "length", "lexicon", "--sample-rows", 2)
    names = []
    for more in ((), ("--combine", "sum")):
        code, out, _ = command(*words, "--max-new-tokens", 4, "--metrics", "reward", "--quiet", "--json", *more)
        assert code == 0
        names.append([figure["label"] for figure in json.loads(out)["figures"]])
    assert len(names[0]) == 2 and len(names[1]) == 1


@pytest.fixture
def verified(tmp_path: Path) -> Path:
    """Pairs whose rows name the number that an answer has to end with."""
    rows = [{"prompt": f"{n}. Well?", "chosen": "7", "rejected": "8", "wanted": n} for n in range(4)]
    path = tmp_path / "verified.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_verifier_finds_what_its_rows_expect(command: Any, model: Path, verified: Path) -> None:
    """In `generate` and `evaluate` as in training."""
    words = ("--model", model, "--max-new-tokens", 4, "--reward", "number:wanted", "--quiet", "--json")
    code, out, err = command("generate", "--prompts", verified, "--best-of", 2, *words)
    assert code == 0, err
    assert all(each["reward"] in (0, 1) for row in json.loads(out) for each in row["responses"])
    code, out, err = command("evaluate", "--data", verified, "--metrics", "reward", *words)
    assert code == 0, err
    assert [figure["label"] for figure in json.loads(out)["figures"]]
    code, _, err = command("generate", "--prompt", "1. Well?", "--best-of", 2, *words)
    assert code == 2 and "goes with --prompts FILE" in err
    words = ("--model", model, "--reward", "number:nothing", "--quiet")
    code, _, err = command("evaluate", "--data", verified, "--metrics", "reward", *words)
    assert code == 2 and "verified.jsonl:1" in err and "nothing" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--reward", "length", "lexicon"), "say how they become one"),
        (("--reward", "length", "--combine", "wco"), "needs at least 2 members"),
        (("--reward", "length", "--transform", "exp"), "goes with --calibrate"),
    ],
)
def test_mistakes_cost_one_line(command: Any, model: Path, more: tuple[str, ...], message: str) -> None:
    code, _, err = command("generate", "--model", model, "--prompt", "Hi", "--best-of", 2, *more)
    assert code == 2 and message in err and err.count("\n") == 1


def test_reward_options_go_with_a_reward(command: Any, model: Path) -> None:
    code, _, err = command("generate", "--model", model, "--prompt", "Hi", "--combine", "wco")
    assert code == 2 and "--combine goes with --reward" in err
