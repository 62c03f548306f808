"""`paperworks train npo-rt …`: unlearning from the command line, what it leaves, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

QUICK = ("--quiet", "--steps", 3, "--batch-size", 4, "--learning-rate", 0.01)


def questions(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Where does person {number} live?",
            "answer": f" In a house by the river, number {number}.",
            "paraphrased_answer": f" By the river, at number {number}.",
            "perturbed_answer": [" In a tent.", f" On boat {number}.", " In the woods."],
        }
        for number in range(first, first + count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def forget(tmp_path: Path) -> Path:
    return write(tmp_path / "forget.jsonl", questions(0, 6))


@pytest.fixture
def retain(tmp_path: Path) -> Path:
    return write(tmp_path / "retain.jsonl", questions(50, 4))


@pytest.fixture
def unlearn(command: Any, small_model: Path, forget: Path, retain: Path, tmp_path: Path) -> Callable[..., Any]:
    """`paperworks train OBJECTIVE` on both files, quick, into tmp_path/out unless told otherwise."""

    def run(objective: str = "npo-rt", *more: object, files: tuple[object, ...] | None = None) -> Any:
        given = ("--forget", forget, "--retain", retain) if files is None else files
        out = () if "--out" in more else ("--out", tmp_path / "out")
        return command("train", objective, "--model", small_model, *QUICK, *given, *out, *more)

    return run


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def end(folder: Path) -> dict[str, Any]:
    """What two runs that are the same have in common."""
    found, timed = results(folder), {"rows_per_second"}
    return {
        "weights": {n: v.numpy().tobytes() for n, v in load_file(folder / "model" / "model.safetensors").items()},
        "metrics": [{key: value for key, value in line.items() if key not in timed} for line in metrics(folder)],
        **{name: found[name] for name in ("steps", "history", "best_step", "stopped", "held_out", "warnings")},
    }


# --------------------------------------------------------------------------------------------------------- what it leaves


def test_it_leaves_a_run_that_says_what_was_done(unlearn: Any, tmp_path: Path) -> None:
    outcome = unlearn()
    assert outcome.code == 0 and outcome.err == ""
    out = tmp_path / "out"
    for name in ("run.yaml", "run.json", "report.html", "figures/loss.svg", "model/README.md"):
        assert (out / name).stat().st_size > 0, name
    found = results(out)
    assert (found["objective"], found["steps"], found["training_rows"]) == ("npo-rt", 3, 10)
    assert found["data"]["schema"] == "forget (6) and retain (4)"
    assert found["data"]["source"].endswith("forget.jsonl + " + str(tmp_path / "retain.jsonl"))
    assert found["held_out_rows"] == 0 and found["history"] == []
    first, last = metrics(out)[0], metrics(out)[-1]
    assert first["forget"] == pytest.approx(13.862944, abs=1e-3)  # (2 / beta) log 2: the model is its reference
    assert first["loss"] == pytest.approx(first["forget"] + first["retain"], abs=1e-4)
    assert last["forget"] < first["forget"] and last["adaptive_weight"] < first["adaptive_weight"]
    assert last["forget_nll"] > first["forget_nll"]
    settings = yaml.safe_load((out / "run.yaml").read_text())
    assert settings["data"]["path"].endswith("forget.jsonl")
    assert settings["unlearning"]["retain"].endswith("retain.jsonl")


def test_the_model_is_an_ordinary_one(unlearn: Any, small_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert unlearn().code == 0
    folder = tmp_path / "out" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = questions(0, 1)[0]
    prompt, answer = (tokenizer(row[name], add_special_tokens=False).input_ids for name in ("question", "answer"))
    likely = []
    for source in (small_model, folder):
        with torch.no_grad():
            logits = AutoModelForCausalLM.from_pretrained(source)(torch.tensor([prompt + answer])).logits[0]
        logps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        likely.append(float(logps.gather(1, torch.tensor(answer)[:, None]).sum()))
    assert likely[1] < likely[0] - 1  # it was made to forget that


def test_what_to_do_next_is_said(command: Any, small_model: Path, forget: Path, tmp_path: Path) -> None:
    words = ("train", "ga", "--model", small_model, "--forget", forget, "--steps", 1, "--out", tmp_path / "out")
    assert "paperworks evaluate unlearning --model" in command(*words, "--quiet").out


@pytest.mark.parametrize(
    "objective", ["ga", "grad-diff", "ga-kl", "ga-forget-kl", "npo", "npo-kl", "idk", "dpo-idk-rt", "kto-idk", "kto-idk-kl"]
)  # fmt: skip
def test_every_kind_trains_from_the_same_files(objective: str, unlearn: Any, tmp_path: Path) -> None:
    outcome = unlearn(objective)
    assert outcome.code == 0, outcome.err
    found = results(tmp_path / "out")
    assert found["steps"] == 3
    uses_retain = objective not in ("ga", "ga-forget-kl", "npo", "kto-idk")
    assert found["training_rows"] == (10 if uses_retain else 6)
    assert any("row to keep" in kind for kind in found["data"]["noted"]) == (not uses_retain)
    assert any("alternative" in kind for kind in found["data"]["noted"]) == ("idk" in objective)


@pytest.mark.parametrize("objective", ["ga", "npo"])
def test_rows_to_keep_may_be_left_out_where_nothing_needs_them(
    objective: str, unlearn: Any, forget: Path, tmp_path: Path
) -> None:
    assert unlearn(objective, files=("--data", forget)).code == 0  # --forget by its other name
    assert results(tmp_path / "out")["data"]["schema"] == "forget"


def test_answers_to_give_instead_come_from_a_file(unlearn: Any, tmp_path: Path) -> None:
    losses = []
    for name, answer in (("short", "No."), ("long", "That is nothing that I could tell you about.")):
        (tmp_path / f"{name}.txt").write_text(answer + "\n")
        assert unlearn("idk", "--idk", tmp_path / f"{name}.txt", "--out", tmp_path / name).code == 0
        found = results(tmp_path / name)
        assert not any("built-in" in kind for kind in found["data"]["noted"])
        losses.append(found["first"]["alternative_nll_per_token"])
    assert losses[0] != losses[1]


def test_adapters_are_saved_as_adapters(unlearn: Any, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    assert unlearn("npo-kl", "--lora", "--lora-rank", 2).code == 0
    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert metrics(tmp_path / "out")[-1]["kl_per_token"] > 0


def test_fields_of_other_names_are_found_in_both_files(unlearn: Any, tmp_path: Path) -> None:
    files = []
    for name, first in (("forget", 0), ("retain", 50)):
        rows = [{"ask": row["question"], "say": row["answer"]} for row in questions(first, 4)]
        files += [f"--{name}", write(tmp_path / f"mapped-{name}.jsonl", rows)]
    assert unlearn("npo-rt", "--map", "prompt=ask", "--map", "forget=say", files=tuple(files)).code == 0
    assert results(tmp_path / "out")["training_rows"] == 8


# ------------------------------------------------------------------------------------------------- measured on the way


@pytest.fixture(scope="module")
def retain_log(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the log of a model that was never trained on the rows to forget."""
    from paperworks.cli.main import main

    folder = tmp_path_factory.mktemp("retain-only")
    rows = write(folder / "forget.jsonl", questions(0, 6))
    words = ["--model", small_model, "--forget", rows, "--out", folder / "log", "--max-new-tokens", 2, "--quiet"]
    assert main(["evaluate", "unlearning", *map(str, words)]) == 0
    return folder / "log"


@pytest.fixture
def measured(forget: Path, retain: Path, retain_log: Path) -> tuple[object, ...]:
    files = ("--eval-forget", forget, "--eval-retain", retain, "--retain-log", retain_log)
    return (*files, "--eval-max-new-tokens", 2, "--eval-every", 1)


def test_quality_and_utility_are_measured_and_decide(unlearn: Any, measured: Any, tmp_path: Path) -> None:
    assert unlearn("npo-rt", *measured, "--no-eval-rouge", "--keep-floor", 0).code == 0
    found = results(tmp_path / "out")
    assert [entry["step"] for entry in found["history"]] == [0, 1, 2, 3]
    names = {"utility", "forget_quality", "log10_forget_quality", "forget_truth_ratio", "retain_probability"}
    assert all(names <= entry.keys() for entry in found["history"])
    assert not any("rouge" in name for name in found["history"][0])
    assert found["history"][0]["forget_quality"] == pytest.approx(1.0)  # the log is of the model that it starts from
    qualities = [entry["log10_forget_quality"] for entry in found["history"]]
    assert found["best_step"] == qualities.index(max(qualities))
    assert found["held_out"]["step"] == found["best_step"]
    assert "utility" in (tmp_path / "out" / "report.html").read_text()


def test_answers_are_generated_unless_told_not_to(unlearn: Any, measured: Any, tmp_path: Path) -> None:
    assert unlearn("npo-rt", *measured, "--eval-limit", 2).code == 0
    assert "forget_rouge" in results(tmp_path / "out")["history"][0]


def test_every_epoch_is_measured_unless_told_otherwise(unlearn: Any, forget: Path, tmp_path: Path) -> None:
    outcome = unlearn("npo-rt", "--eval-forget", forget, "--no-eval-rouge", "--steps", 5)
    assert outcome.code == 0
    found = results(tmp_path / "out")  # six rows in steps of four: two steps an epoch
    assert [entry["step"] for entry in found["history"]] == [0, 2, 4, 5]
    assert found["best_step"] == 5  # without a log of a retain-only model the latest weights that are of use


@pytest.fixture
def collapsing(forget: Path, tmp_path: Path) -> tuple[object, ...]:
    """Gradient ascent at a rate that ruins the model, measured on echoes, which a model of random weights is best at."""
    echoes = [
        {"question": f"Echo {w}?", "answer": f" {w} {w} {w}", "perturbed_answer": [" In a tent.", " On a boat."]}
        for w in ("river", "house", "road")
    ]
    files = ("--eval-forget", forget, "--eval-retain", write(tmp_path / "echoes.jsonl", echoes))
    quick = ("--eval-every", 1, "--no-eval-rouge", "--steps", 12, "--learning-rate", 0.03)
    return (*files, *quick, "--utility-floor", 0.5)


def test_training_ends_when_the_model_is_of_no_more_use(unlearn: Any, collapsing: Any, tmp_path: Path) -> None:
    assert unlearn("ga", *collapsing).code == 0
    found = results(tmp_path / "out")
    assert 0 < found["steps"] < 12 and "fell below 0.5" in found["stopped"]
    utilities = [entry["utility"] for entry in found["history"]]
    assert utilities[-1] < 0.5 * utilities[0] <= min(utilities[:-1])
    assert found["best_step"] < found["steps"] and len(metrics(tmp_path / "out")) == found["steps"]
    assert any(found["stopped"] in note for note in found["notes"])


# ---------------------------------------------------------------------------------------------------- going on, repeating


def test_a_run_that_failed_goes_on_to_the_same_end(
    unlearn: Any, command: Any, measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from paperworks.core import checkpoints
    from paperworks.core.errors import RunError

    options = (*measured, "--save-every", 1, "--lora", "--lora-dropout", 0.3, "--no-eval-rouge")
    assert unlearn("npo-kl", *options, "--out", tmp_path / "whole").code == 0

    def fails_at_two(folder: Path, model: Any, optimiser: Any, state: Any) -> None:
        if state["step"] == 2:
            raise RunError("the disk went away")
        really(folder, model, optimiser, state)

    really = checkpoints.save_checkpoint
    with monkeypatch.context() as fault:
        fault.setattr(checkpoints, "save_checkpoint", fails_at_two)
        assert "went away" in unlearn("npo-kl", *options).refused()
    assert command("train", "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    found, wanted = results(tmp_path / "out"), results(tmp_path / "whole")
    for name in ("steps", "history", "best_step", "held_out"):
        assert found[name] == wanted[name], name
    adapters = [load_file(tmp_path / out / "model" / "adapter_model.safetensors") for out in ("whole", "out")]
    assert {n: v.tolist() for n, v in adapters[0].items()} == {n: v.tolist() for n, v in adapters[1].items()}


def test_resuming_a_run_that_stopped_early_changes_nothing(
    unlearn: Any, command: Any, collapsing: Any, tmp_path: Path
) -> None:
    assert unlearn("ga", *collapsing).code == 0
    before = end(tmp_path / "out")
    assert before["stopped"]
    assert command("train", "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    assert end(tmp_path / "out") == before


def test_its_configuration_repeats_it(unlearn: Any, command: Any, measured: Any, tmp_path: Path) -> None:
    assert unlearn("kto-idk-rt", *measured, "--no-eval-rouge", "--beta", 0.3).code == 0
    config = tmp_path / "out" / "run.yaml"
    assert command("train", "--config", config, "--out", tmp_path / "again", "--quiet").code == 0
    assert end(tmp_path / "again") == end(tmp_path / "out")
    assert (tmp_path / "again" / "run.yaml").read_text() == config.read_text()


def test_other_rows_to_keep_are_another_run(unlearn: Any, command: Any, retain: Path, tmp_path: Path) -> None:
    assert unlearn().code == 0
    write(retain, questions(70, 4))
    line = command("train", "--resume", "--out", tmp_path / "out", "--quiet").refused()
    assert "the training rows are not those" in line


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def refuse(unlearn: Any, tmp_path: Path) -> Callable[..., str]:
    """The one line of a run that is refused; nothing is left behind."""

    def run(*words: object, **named: Any) -> str:
        line: str = unlearn(*words, **named).refused()
        assert not (tmp_path / "out").exists()
        return line

    return run


def test_prompts_in_both_files_are_named(refuse: Any, forget: Path, tmp_path: Path) -> None:
    both = [*questions(60, 2), {**questions(3, 1)[0], "answer": " Nowhere."}, questions(0, 1)[0]]
    retain = write(tmp_path / "both.jsonl", both)
    line = refuse("npo-rt", files=("--forget", forget, "--retain", retain))
    assert "2 of 6 prompts to forget are also among those to keep, 1 with the same answer" in line
    assert f"{forget}:1 = {retain}:4" in line and f"{forget}:4 = {retain}:3" in line


def test_they_are_named_even_where_rows_to_keep_are_not_trained_on(refuse: Any, forget: Path) -> None:
    assert "6 of 6 prompts" in refuse("ga", files=("--forget", forget, "--retain", forget))


def test_an_empty_file_of_rows_to_forget(refuse: Any, retain: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    line = refuse("npo-rt", files=("--forget", empty, "--retain", retain))
    assert "empty.jsonl" in line and "0 rows" in line


def test_an_empty_file_of_rows_to_keep(refuse: Any, forget: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    line = refuse("npo-rt", files=("--forget", forget, "--retain", empty))
    assert "empty.jsonl" in line and "0 rows" in line


@pytest.mark.parametrize("objective", ["npo-rt", "npo-kl", "idk", "grad-diff", "kto-idk-rt"])
def test_rows_to_keep_must_be_given_where_they_are_needed(objective: str, refuse: Any, forget: Path) -> None:
    line = refuse(objective, files=("--forget", forget))
    assert f"{objective} needs rows to keep" in line and "--retain FILE" in line


def test_rows_to_forget_must_be_given(refuse: Any, retain: Path) -> None:
    assert "give the rows to forget: --forget FILE" in refuse("npo-rt", files=("--retain", retain))


def test_rows_to_forget_are_given_once(refuse: Any, forget: Path, retain: Path) -> None:
    line = refuse("npo-rt", files=("--forget", forget, "--data", forget, "--retain", retain))
    assert "--forget and --data name the same thing" in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--retain-log", "log"), "--retain-log goes with --eval-forget"),
        (("--eval-retain", "rows.jsonl"), "--eval-retain goes with --eval-forget"),
        (("--utility-floor", 0.5), "--utility-floor goes with --eval-forget"),
    ],
)
def test_what_is_measured_needs_questions_to_have_forgotten(words: Any, named: str, refuse: Any) -> None:
    assert named in refuse("npo-rt", *words)


def test_a_retain_only_log_that_is_not_there_says_how_to_make_one(refuse: Any, forget: Path) -> None:
    line = refuse("npo-rt", "--eval-forget", forget, "--retain-log", "nowhere")
    assert "nowhere: no such file or folder" in line
    assert "paperworks evaluate unlearning --model RETAIN_ONLY --forget FILE --out DIR" in line


def test_a_log_of_other_questions_is_refused_before_training(refuse: Any, retain: Path, retain_log: Path) -> None:
    line = refuse("npo-rt", "--eval-forget", retain, "--retain-log", retain_log)
    assert "a log of another forget set" in line


def test_questions_without_wrong_answers_are_named(refuse: Any, tmp_path: Path) -> None:
    rows = questions(0, 3)
    del rows[1]["perturbed_answer"]
    line = refuse("npo-rt", "--eval-forget", write(tmp_path / "plain.jsonl", rows))
    assert "plain.jsonl:2: field 'perturbed_answer': missing" in line


def test_a_floor_under_utility_needs_questions_to_keep(refuse: Any, forget: Path) -> None:
    line = refuse("npo-rt", "--eval-forget", forget, "--utility-floor", 0.5)
    assert "utility_floor=0.5 needs rows that the model is to keep" in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--keep-floor", 2), "keep_floor=2"),
        (("--utility-floor", -1), "utility_floor=-1"),
        (("--retain-weight", -1), "retain_weight"),
        (("--forget-weight", 0), "forget_weight"),
        (("--beta", 0), "beta"),
        (("--kl-on", "everything"), "everything"),
        (("--idk", "nowhere.txt"), "nowhere.txt"),
        (("--degree-weight", 0.1), "unknown option --degree-weight"),
        (("--held-out-rows", 3), "unknown option --held-out-rows"),
    ],
)
def test_options_out_of_range_or_unknown(words: Any, named: str, refuse: Any) -> None:
    assert named in refuse("npo-rt", *words)


def test_a_bad_row_is_named_by_file_and_line(refuse: Any, forget: Path, tmp_path: Path) -> None:
    rows = questions(50, 3)
    del rows[2]["answer"]
    line = refuse("npo-rt", files=("--forget", forget, "--retain", write(tmp_path / "bad.jsonl", rows)))
    assert "bad.jsonl:3: field 'retain': missing" in line
