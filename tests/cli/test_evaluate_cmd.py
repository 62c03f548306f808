"""`paperworks evaluate`: the measures that the data allow, with intervals; mistakes cost one line and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.cli.main import main
from paperworks.core.runs import RunStore
from paperworks.language.data import read
from paperworks.language.evaluation import perplexity, preference_accuracy, sample_report
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards import load_reward
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models") / "small"
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=128), tokenizer).save(folder)


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    policy = Policy.load(model, lora=LoraOptions(rank=2), device="cpu")
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    return policy.save(model.parent / "adapter")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = zip(generate_reviews(12, 1), generate_reviews(12, 2), strict=True)
    made = [{"prompt": a.prompt, "chosen": a.response, "rejected": b.response} for a, b in rows]
    return write(tmp_path / "pairs.jsonl", made)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], model: Path) -> Callable[..., Outcome]:
    """Runs the command and returns (exit code, standard output, standard error)."""

    def run(*arguments: object, use: Path | None = model) -> Outcome:
        words = ["evaluate", "--device", "cpu", "--max-new-tokens", "6", *map(str, arguments)]
        code = main([*words, "--model", str(use)] if use else words)
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


@pytest.fixture
def figures(evaluate: Callable[..., Outcome]) -> Callable[..., dict[str, Any]]:
    """The figures of a run by name, from its JSON."""

    def run(*arguments: object, **options: Any) -> dict[str, Any]:
        code, out, err = evaluate(*arguments, "--json", "--quiet", **options)
        assert code == 0, err
        return {figure["name"]: figure for figure in json.loads(out)["figures"]}

    return run


# ------------------------------------------------------------------------------------------------------------- what is measured


def test_pairs_give_accuracy_and_perplexity(figures: Any, pairs: Path, model: Path) -> None:
    found = figures("--data", pairs)
    assert list(found) == ["accuracy", "margin", "perplexity"]
    policy, rows = Policy.load(model, device="cpu"), read(pairs, "preference")
    accuracy = preference_accuracy(policy, rows).interval
    assert {name: found["accuracy"][name] for name in ("mean", "low", "high", "n")} == vars(accuracy)
    fluency = perplexity(policy, read(pairs, "demonstration")).interval
    assert found["perplexity"]["mean"] == pytest.approx(fluency.mean, rel=1e-6)
    assert found["perplexity"]["of"] == "12 chosen responses"


def test_a_reference_adds_the_divergence_and_scores_by_log_ratio(figures: Any, pairs: Path, model: Path) -> None:
    found = figures("--data", pairs, "--reference", model)
    assert list(found) == ["accuracy", "margin", "perplexity", "kl", "kl_per_token", "tokens", "at_cap"]
    assert (found["accuracy"]["mean"], found["kl"]["mean"]) == (0.5, 0.0)
    assert "log-ratio to" in found["accuracy"]["label"]


def test_an_adapter_is_measured_against_the_model_beneath_it(figures: Any, pairs: Path, adapter: Path) -> None:
    found = figures("--data", pairs, use=adapter)
    policy = Policy.load(adapter, device="cpu")
    wanted = preference_accuracy(policy, read(pairs, "preference"), reference=policy.reference()).interval
    assert found["accuracy"]["mean"] == wanted.mean
    assert found["kl"]["mean"] != 0.0
    assert "(adapters off)" in found["kl"]["label"]
    without = figures("--data", pairs, "--reference", "none", use=adapter)
    assert list(without) == ["accuracy", "margin", "perplexity"]


def test_rewards_are_those_of_the_models_samples(figures: Any, pairs: Path, model: Path) -> None:
    found = figures(
        "--data", pairs, "--reward", "length", "lexicon", "--samples", 2, "--seed", 4, "--metrics", "reward,length"
    )
    assert list(found) == ["reward length", "reward lexicon", "tokens", "at_cap"]
    prompts = list(dict.fromkeys(row.prompt for row in read(pairs, "preference")))
    report = sample_report(
        Policy.load(model, device="cpu"), None, prompts, [load_reward("length")], 2, seed=4, max_new_tokens=6
    )
    assert found["reward length"]["mean"] == report.reward("length").interval.mean
    assert found["tokens"]["of"] == f"{2 * len(prompts)} samples of {len(prompts)} prompts"


def test_prompts_alone_give_lengths(figures: Any, evaluate: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.jsonl", [{"prompt": f"The film {number}"} for number in range(5)])
    assert list(figures("--data", path)) == ["tokens", "at_cap"]
    _, out, _ = evaluate("--data", path, "--sample-rows", 3, "--quiet")
    assert "3 samples of 3 prompts" in out and "note: sampled from the first 3 of 5 prompts" in out


def test_demonstrations_give_perplexity(figures: Any, tmp_path: Path) -> None:
    rows = [{"prompt": review.prompt, "response": review.response} for review in generate_reviews(6, 3)]
    found = figures("--data", write(tmp_path / "rows.jsonl", rows))
    assert list(found) == ["perplexity"] and found["perplexity"]["of"] == "6 responses"


def test_feedback_gives_the_perplexity_of_what_was_liked(figures: Any, evaluate: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"P{i}", "response": f" was {i}.", "label": i < 2} for i in range(5)]
    found = figures("--data", write(tmp_path / "rows.jsonl", rows))
    assert found["perplexity"]["of"] == "2 desirable responses"
    code, _, err = evaluate("--data", write(tmp_path / "rows.jsonl", rows[2:]), "--quiet")
    assert code == 2 and "no desirable responses" in err


def test_normalised_scores_are_a_token(figures: Any, pairs: Path, model: Path) -> None:
    found = figures("--data", pairs, "--normalise", "--metrics", "accuracy")
    wanted = preference_accuracy(Policy.load(model, device="cpu"), read(pairs, "preference"), normalise=True).interval
    assert found["accuracy"]["mean"] == wanted.mean
    assert found["margin"]["unit"] == "nats a token"


# ------------------------------------------------------------------------------------------------------------------ output


def test_the_table_has_a_line_a_measure(evaluate: Any, pairs: Path) -> None:
    code, out, err = evaluate("--data", pairs)
    assert code == 0
    assert "preference accuracy by log-probability" in out and "12 pairs" in out and "95% interval" in out
    assert "12 preference rows" in err


def test_a_run_folder_keeps_every_row_and_can_be_repeated(
    evaluate: Any, pairs: Path, tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "run"
    code, out, _ = evaluate("--data", pairs, "--reference", model, "--reward", "length", "--seed", 3, "--out", folder)
    assert code == 0 and f"kept in {folder}" in out
    results = json.loads((folder / "results.json").read_text())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and rows[0]["where"] == f"{pairs}:1"
    mean = sum(row["chosen_logp"] - row["rejected_logp"] for row in rows) / 12
    assert mean != 0 and {"chosen_reference_logp", "chosen_tokens"} <= set(rows[0])
    assert {"prompt", "text", "logp", "reference_logp", "tokens", "finished", "rewards"} <= set(samples[0])
    record = RunStore().get(folder)
    assert (record.verb, record.status, record.seed) == ("evaluate", "finished", 3)
    _, out, _ = evaluate("--config", folder / "run.yaml", "--json", use=None)
    assert json.loads(out)["figures"] == results["figures"]


def test_an_existing_folder_is_kept_unless_told(evaluate: Any, pairs: Path, tmp_path: Path) -> None:
    assert evaluate("--data", pairs, "--out", tmp_path / "run")[0] == 0
    code, _, err = evaluate("--data", pairs, "--out", tmp_path / "run")
    assert code == 2 and "--overwrite" in err
    assert evaluate("--data", pairs, "--out", tmp_path / "run", "--overwrite")[0] == 0


def test_columns_can_be_named_and_rows_limited(figures: Any, tmp_path: Path) -> None:
    rows = [{"q": f"P{i}", "good": f" a{i}", "bad": f" b{i}"} for i in range(4)]
    path = write(tmp_path / "rows.jsonl", rows)
    found = figures("--data", path, "--map", "prompt=q", "--map", "chosen=good", "--map", "rejected=bad", "--limit", 3)
    assert found["accuracy"]["of"] == "3 pairs"


# ---------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "acuracy"], "unknown metric 'acuracy' (did you mean 'accuracy'?)"),
        (["--metrics", "reward"], "metric reward needs a reward: --reward NAME"),
        (["--metrics", "kl"], "metric kl needs a reference: --reference MODEL"),
        (
            ["--schema", "prompt", "--metrics", "accuracy"],
            "metric accuracy needs rows with prompt, chosen and rejected",
        ),
        (["--schema", "prompt", "--metrics", "perplexity"], "metric perplexity needs rows with responses"),
        (["--schema", "pairs"], "unknown schema 'pairs'"),
        (["--reward", "sentimnt"], "unknown reward 'sentimnt' (did you mean 'sentiment'?)"),
        (["--reference", "nowhere"], "no model called 'nowhere'"),
        (["--samples", "0"], "samples"),
        (["--max-length", "3"], "the prompt has"),
        (
            ["--metrics", "kl", "--reference", "SELF", "--temperature", "0.5"],
            "KL is measured on samples at temperature 1",
        ),
        (["--format", "xml"], "unknown format 'xml'"),
        (["--sampels", "3"], "unknown option --sampels (did you mean '--samples'?)"),
    ],
)
def test_mistakes_cost_one_line(evaluate: Any, pairs: Path, model: Path, arguments: list[str], message: str) -> None:
    words = [str(model) if word == "SELF" else word for word in arguments]
    code, out, err = evaluate("--data", pairs, "--quiet", *words)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("paperworks: error: ") and err.count("\n") == 1


def test_missing_options_and_files_are_named(evaluate: Any, pairs: Path) -> None:
    code, _, err = evaluate("--data", pairs, use=None)
    assert code == 2 and "give the model to measure: --model" in err
    code, _, err = evaluate()
    assert code == 2 and "--data FILE" in err
    code, _, err = evaluate("--data", "missing.jsonl", "--quiet")
    assert code == 2 and "missing.jsonl" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "P", "chosen": "a", "rejected": "b"}\n{"prompt": "P", "chosen": "a"}\n', ":2: field 'rejected'"),
        ('{"prompt": "P", "chosen": "a", "rejected": "a"}\n', "chosen equals rejected"),
        ('{"prompt": "P", "chosen": "a", "rejected": "b"}\nnot json\n', ":2: "),
        ("", "0 rows"),
        ('{"question": "P"}\n', "field 'prompt'"),
    ],
)
def test_bad_rows_are_named(evaluate: Any, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    code, _, err = evaluate("--data", path, "--quiet")
    assert code == 2 and message in err and err.count("\n") == 1


def test_bad_rows_can_be_skipped(figures: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "P", "chosen": "a", "rejected": "b"}\nnot json\n')
    assert figures("--data", path, "--bad-rows", "skip")["accuracy"]["of"] == "1 pairs"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no idea')", "raised ValueError: no idea"),
        ("return [float('nan')] * len(responses)", "expected a finite number; got nan"),
        ("return [1.0]", "numbers, one a response; got 1"),
    ],
)
def test_a_broken_reward_costs_one_line(evaluate: Any, pairs: Path, tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"def fn(prompts, responses):\n    {body}\n")
    code, _, err = evaluate("--data", pairs, "--metrics", "reward", "--reward", f"{tmp_path}/mine.py:fn", "--quiet")
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_failed_run_is_recorded_as_failed(evaluate: Any, pairs: Path, tmp_path: Path) -> None:
    evaluate("--data", pairs, "--max-length", 3, "--out", tmp_path / "run", "--quiet")
    record = RunStore().get(tmp_path / "run")
    assert record.status == "failed" and "the prompt has" in (record.error or "")


def test_standard_input_needs_its_schema(evaluate: Any) -> None:
    code, _, err = evaluate("--data", "-", "--quiet")
    assert code == 2 and "say what it holds with --schema" in err
