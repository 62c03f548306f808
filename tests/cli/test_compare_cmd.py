"""`paperworks compare`: from the command line to a table, a report and the next command; mistakes are one line."""

import json
import shlex
from pathlib import Path

import pytest

from paperworks.cli import train_cmd
from paperworks.cli.main import main
from paperworks.core.runs import RunStore
from paperworks.language.objectives import registry
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.train_job import job_from_config


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    reviews = generate_reviews(200, 0)
    tokenizer = byte_level_tokenizer([prompt + response for prompt, response in reviews], 300)
    policy = fresh_policy(TinySpec(layers=1, width=16, heads=2, context=128), tokenizer)
    return str(policy.save(tmp_path_factory.mktemp("m") / "model"))


@pytest.fixture
def compare(tmp_path, monkeypatch, model):
    """Runs `paperworks compare OBJECTIVES… …` on 16 pairs, two steps, one seed, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry._DEFAULT, "_classes", dict(registry._DEFAULT._classes))  # user objectives go again
    pairs = zip(generate_reviews(16, 1, clauses=(1, 1)), generate_reviews(16, 2, clauses=(1, 1)), strict=True)
    rows = [
        {"prompt": f"{number}. {good.prompt}", "chosen": good.response, "rejected": bad.response + "!"}
        for number, (good, bad) in enumerate(pairs)
    ]
    Path("prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = f"--model {model} --data prefs.jsonl --held-out 6 --steps 2 --batch-size 4 --learning-rate 0.01 --seeds 1"

    def run(*words: str) -> int:
        return main(["compare", *words, *common.split(), "--max-new-tokens", "4", "--workers", "1", "--device", "cpu"])

    return run


def test_a_comparison_prints_a_table_a_bottom_line_and_what_to_do_next(compare, capsys, model):
    assert compare("dpo", "ipo", "--reward", "length", "--sweep", "dpo.beta=0.1,1", "--set", "ipo.tau=0.5") == 0
    captured = capsys.readouterr()
    (record,) = RunStore().list()
    assert (record.verb, record.name, record.status) == ("compare", "dpo-ipo", "finished")
    tuning = "Unequal tuning: settings tried are dpo 2, ipo 1"
    for words in ("wins vs untrained", "ipo (tau=0.5)", "KL ", "note: One seed", tuning):
        assert words in captured.out
    assert f"next    paperworks report {record.id} --open\n        paperworks train " in captured.out
    assert f"--model {model} --data prefs.jsonl --steps 2 --batch-size 4 --learning-rate 0.01" in captured.out
    assert "4/4 (100%)" in captured.err
    assert "Bottom line" in (record.folder / "report.html").read_text()


def test_a_verifier_judges_and_trains(compare, capsys):
    rows = [{**json.loads(line), "wanted": "x"} for line in Path("prefs.jsonl").read_text().splitlines()]
    Path("prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert compare("dpo", "rloo", "--reward", "exact:wanted", "--train-reward", "length", "--quiet") == 0
    assert "exact:wanted" in capsys.readouterr().out
    assert compare("rloo", "--reward", "exact:missing", "--quiet") == 2
    assert "missing" in capsys.readouterr().err


def test_the_next_command_trains_with_what_was_compared(compare, capsys, model):
    adapters = ("--lora", "--lora-rank", "2", "--map", "prompt=prompt", "--warmup", "0.5")
    assert compare("rdpo", "--sweep", "learning_rate=0.1,0.2", "--set", "rdpo.flip_rate=0.2", *adapters, "--quiet") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "paperworks train" in line)
    args = train_cmd.parse(shlex.split(line)[2:])
    job = job_from_config(train_cmd.job_values(args))
    training = job.training
    assert (job.model, job.data.path, job.held_out, job.data.mapping) == (model, "prefs.jsonl", 6, {"prompt": "prompt"})
    assert (job.objective.flip_rate, job.lora.rank, training.select) == (0.2, 2, "last")
    assert (training.steps, training.batch_size, training.warmup) == (2, 4, 0.5) and training.learning_rate in (
        0.1,
        0.2,
    )


def test_the_report_is_made_again_from_the_folder(compare, capsys):
    assert compare("dpo", "--quiet") == 0
    (record,) = RunStore().list()
    (record.folder / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", record.id]) == 0
    assert capsys.readouterr().out.strip() == str(record.folder / "report.html")


def test_json_has_the_findings_and_nothing_else_on_standard_output(compare, capsys):
    assert compare("dpo", "sft", "--json", "--quiet") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert found["best"]["objective"] in ("dpo", "sft") and found["criterion"] == "accuracy"
    assert [each["name"] for each in found["objectives"]] == ["dpo", "sft"]
    assert Path(found["report"]).is_file() and found["plan"]["rows"]["held_out_rows"] == 6


def test_its_run_yaml_repeats_a_comparison(compare, capsys):
    compare("dpo", "--out", "first", "--quiet")
    assert main(["compare", "--config", "first/run.yaml", "--out", "again", "--workers", "1", "--quiet"]) == 0
    (first,), (again,) = (list(Path(name).glob("cells/A/*/dpo/0.json")) for name in ("first", "again"))
    one, other = (json.loads(path.read_text())["metrics"] for path in (first, again))
    assert one["log_ratio"] == other["log_ratio"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dpoo"], "unknown objective 'dpoo' (did you mean 'dpo'?)"),
        ([], "compare: name the objectives"),
        (
            ["dpo", "--sweep", "betta=1,2"],
            "--sweep betta: none of the objectives has this option (did you mean 'beta'?)",
        ),
        (["dpo", "--sweep", "beta"], "--sweep beta: expected NAME=VALUE"),
        (["dpo", "--set", "beta=-1"], "beta=-1.0 is out of range"),
        (["dpo", "--sweeep", "beta=1"], "unknown option --sweeep (did you mean '--sweep'?)"),
        (["dpo", "--select", "best"], "unknown option --select"),
        (["dpo", "--reward", "lenght"], "unknown reward 'lenght' (did you mean 'length'?)"),
        (["dpo", "--lora-rank", "4"], "--lora-rank goes with --lora"),
        (["dpo", "--objective-file", "none.py"], "none.py: no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(compare, capsys, words, message):
    assert compare(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith("paperworks: error: ")
    assert not Path("runs").exists()


def test_seeds_below_one_are_refused(compare, capsys):
    assert main(["compare", "dpo", "--model", "tiny", "--data", "prefs.jsonl", "--seeds", "0"]) == 2
    assert "seeds=0 is out of range" in capsys.readouterr().err


def test_a_failed_objective_is_said_and_exits_2_with_the_others_reported(compare, capsys):
    Path("own.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from paperworks.language.objectives import PairObjective\n"
        "@dataclass(frozen=True)\nclass Broken(PairObjective):\n"
        '    name: ClassVar[str] = "broken"\n'
        "    def loss(self, pair):\n        raise KeyError('x')\n"
    )
    assert compare("dpo", "broken", "--objective-file", "own.py", "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("paperworks: error: broken seed 0 failed: KeyError: 'x'; see ")
    assert "dpo (default options)" in captured.out and "broken: every training failed" in captured.out
    assert RunStore().list()[0].status == "failed"
