"""Comparisons on a model small enough to train here: what is equal, what is kept, what is refused before training."""

import dataclasses
import json
from pathlib import Path

import pytest

from paperworks.core.errors import DataError, ModelError, OptionError, RewardError, RunError
from paperworks.language.comparison.cell import load_policy, planned_steps, rows_for, training_options
from paperworks.language.comparison.comparison import compare_job, default_folder
from paperworks.language.comparison.grid import START
from paperworks.language.comparison.job import CompareJob, MeasureOptions, halves, job_from_config, read_rows
from paperworks.language.objectives import DPO, KTO, SFT, registry
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.train_job import DataSource
from paperworks.language.training import Plan, TrainOptions

OBJECTIVES = '''
from dataclasses import dataclass
from typing import ClassVar
from paperworks.core.errors import DataError
from paperworks.language.objectives import PairObjective

@dataclass(frozen=True)
class Mine(PairObjective):
    """A linear loss."""
    name: ClassVar[str] = "mine"
    scale: float = 1.0
    def loss(self, pair):
        return -self.scale * self.margin(pair)

@dataclass(frozen=True)
class Nan(PairObjective):
    """A loss that is no number."""
    name: ClassVar[str] = "nan-loss"
    def loss(self, pair):
        return self.margin(pair) * float("nan")

@dataclass(frozen=True)
class Refusing(PairObjective):
    """Rows never suit it."""
    name: ClassVar[str] = "refusing"
    def prepare(self, dataset, policy, *, seed, held_out=False):
        raise DataError("no row suits")
    def loss(self, pair):
        return self.margin(pair)
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer) -> str:
    policy = fresh_policy(TinySpec(layers=1, width=16, heads=2, context=128), tokenizer)
    return str(policy.save(tmp_path_factory.mktemp("m") / "model"))


@pytest.fixture
def job(tmp_path, monkeypatch, model) -> CompareJob:
    """Two objectives, two seeds, two steps on 24 pairs; 8 of them held out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry._DEFAULT, "_classes", dict(registry._DEFAULT._classes))  # user objectives go again
    good, bad = generate_reviews(24, 1, clauses=(1, 1)), generate_reviews(24, 2, clauses=(1, 1))
    rows = [
        {"prompt": f"{number}. {g.prompt}", "chosen": g.response, "rejected": b.response + " No."}
        for number, (g, b) in enumerate(zip(good, bad, strict=True))
    ]
    Path("prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("mine.py").write_text(OBJECTIVES)
    training = TrainOptions(steps=2, batch_size=8, micro_batch=8, learning_rate=1e-2)
    measure = MeasureOptions(seeds=2, samples=2, max_new_tokens=6)
    return CompareJob(
        ("dpo", "kto"),
        model,
        DataSource("prefs.jsonl"),
        ("length",),
        measure=measure,
        training=training,
        held_out=8,
        device="cpu",
    )


def cell_files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("cells/*/*/*/*.json")}


def metrics(folder: Path, arm: str, seed: int = 0) -> dict:
    (path,) = folder.glob(f"cells/A/*/{arm}/{seed}.json")
    return json.loads(path.read_text())["metrics"]


def test_every_arm_is_measured_row_by_row_against_the_same_start(job):
    found = compare_job(job, workers=1)
    assert found.folder == default_folder(job) and found.folder.name.startswith("compare-dpo-kto-")
    assert len(cell_files(found.folder)) == 6
    start, dpo = metrics(found.folder, START), metrics(found.folder, "dpo")
    for cell in (start, dpo):
        assert len(cell["tokens"]) == len(cell["log_ratio"]) == len(cell["rewards"]["length"]) == 8 * 2
        assert len(cell["accuracy_log_ratio"]) == 8
    assert set(start["log_ratio"]) == {0.0} and set(start["accuracy_log_ratio"]) == {0.5}
    assert dpo["margin"] == pytest.approx([0.1 * m for m in _log_ratio_margins(job, found.folder)], abs=1e-4)
    assert dpo["margin_at_start"] == pytest.approx([0.0] * 8, abs=1e-5)
    assert dpo["steps"] == found.plan.steps == 2
    assert found.findings.best is not None and not found.failures
    assert (found.folder / "report.html").is_file() and (found.folder / "run.yaml").is_file()
    assert json.loads((found.folder / "results.json").read_text())["best"]["objective"] in ("dpo", "kto")


def _log_ratio_margins(job: CompareJob, folder: Path) -> list[float]:
    """Trained as the cell trains, with nothing of the cell but that."""
    from paperworks.language.evaluation import score_rows
    from paperworks.language.training import train

    rows = read_rows(job)
    policy, start = Policy.load(job.model, device="cpu"), Policy.load(job.model, device="cpu")
    train(policy, DPO(), rows.training, dataclasses.replace(job.training, seed=0, select="last"))
    return list(score_rows(policy, rows.held_out, ("chosen", "rejected"), reference=start).margins().values)


def test_the_same_command_goes_on_with_what_is_missing_and_gives_the_same_numbers(job):
    folder = compare_job(job, workers=1).folder
    before, first = cell_files(folder), metrics(folder, "kto", 1)
    (lost,) = folder.glob("cells/A/*/kto/1.json")
    lost.unlink()
    compare_job(job, workers=1)
    after = cell_files(folder)
    assert {name for name in after if before[name] != after[name]} == {str(lost.relative_to(folder))}
    again = metrics(folder, "kto", 1)
    assert all(again[name] == first[name] for name in first if name not in ("train_seconds",))
    more = dataclasses.replace(job, measure=dataclasses.replace(job.measure, seeds=3))
    assert compare_job(more, workers=1).folder == folder
    kept = cell_files(folder)
    assert len(kept) == 9 and all(kept[name] == after[name] for name in after)


def test_its_run_yaml_repeats_it(job):
    from paperworks.core.options import load_yaml

    swept = dataclasses.replace(job, sweep={"beta": "0.1,1"}, set={"kto.beta": "0.2"}, lora=LoraOptions(rank=2))
    folder = compare_job(swept, workers=1).folder
    again = job_from_config(load_yaml(folder / "run.yaml"))
    assert again.config() == swept.config() and again.points() == swept.points()
    assert len(cell_files(folder)) == 2 * (1 + 2 + 1)
    assert set(metrics(folder, "dpo beta=1")["fingerprints"]) == {"rows", "code"}


def test_steps_and_pairs_a_step_are_equal_for_every_schema(job):
    rows = read_rows(job)
    assert planned_steps(dataclasses.replace(job, training=TrainOptions(epochs=2, batch_size=6)), 16) == 6
    for objective, each in ((DPO, 1), (SFT, 1), (KTO, 2)):
        options = training_options(job, objective, 16, 1)
        plan = Plan(len(rows_for(objective, rows.training)), options)
        assert (plan.steps, len(plan.rows(0)), options.select, options.seed) == (2, 8 * each, "last", 1)


def test_adapters_start_alike_in_all_arms_of_a_seed(job):
    job = dataclasses.replace(job, lora=LoraOptions(rank=2))
    same, other = (load_policy(job, seed, with_adapters=True).model.state_dict() for seed in (0, 1))
    again = load_policy(job, 0, with_adapters=True).model.state_dict()
    adapters = [name for name in same if "lora_A" in name]
    assert adapters and all((same[name] == again[name]).all() for name in adapters)
    assert not any((same[name] == other[name]).all() for name in adapters)


def test_a_diverged_training_is_recorded_and_a_failed_one_reported(job):
    job = dataclasses.replace(job, objectives=("dpo", "nan-loss", "refusing"), objective_file="mine.py")
    found = compare_job(job, workers=1)
    assert {point.objective for point in found.findings.chosen} == {"dpo"}
    assert list(found.findings.diverged) == ["nan-loss seed 0", "nan-loss seed 1"]
    assert {failure.arm for failure in found.failures} == {"refusing"}
    page = (found.folder / "report.html").read_text()
    assert "nan-loss: every training diverged." in page and "refusing: every training failed" in page
    with pytest.raises(RunError, match=r"^refusing seed 0 failed \(and 1 more\): no row suits; see "):
        found.raise_failures()


def test_prompts_and_rows_may_come_from_files_of_their_own(job):
    Path("prompts.txt").write_text("The plot was\nThe cast was\nThe plot was\n")
    Path("eval.jsonl").write_text("".join(Path("prefs.jsonl").read_text().splitlines(keepends=True)[:5]))
    rows = read_rows(dataclasses.replace(job, eval_data="eval.jsonl", eval_prompts="prompts.txt"))
    assert (len(rows.training), len(rows.held_out), rows.prompts) == (24, 5, ("The plot was", "The cast was"))
    one_seed = dataclasses.replace(job.measure, seeds=1)
    found = compare_job(dataclasses.replace(job, eval_data="eval.jsonl", measure=one_seed), workers=1)
    assert "5 of 5 evaluation prompts also stand among the training rows" in found.plan.notes


def test_halves_keep_equal_prompts_together_and_are_balanced():
    keys = ["a", "b", "c", "d", "e", "f", "a"]
    found = dict(zip(keys, halves(keys), strict=True))
    assert sum(found.values()) == 3
    assert halves(keys)[0] == halves(keys)[6]
    assert halves(list(reversed(keys))) == list(reversed(halves(keys)))


def test_what_cannot_work_is_refused_before_training(job, tmp_path):
    raising = "def fails(prompts, responses):\n    raise ValueError('no')\n"
    Path("bad.py").write_text(raising + "def few(prompts, responses):\n    return [1.0]\n")
    adapter = Policy.load(job.model, device="cpu").with_lora(LoraOptions(rank=2)).save(tmp_path / "adapter")
    cases: list[tuple[dict, type[Exception], str]] = [
        ({"objectives": ()}, OptionError, "name the objectives"),
        ({"objectives": ("dpoo",)}, OptionError, "did you mean 'dpo'"),
        ({"sweep": {"betta": "1"}}, OptionError, "did you mean 'beta'"),
        ({"rewards": ("bad.py:fails",)}, RewardError, "raised ValueError: no"),
        ({"rewards": ("bad.py:few",)}, RewardError, "expected 2 numbers"),
        ({"rewards": ("length", "length")}, OptionError, "given twice"),
        ({"held_out": 0}, OptionError, "--held-out above 0"),
        ({"held_out": 2, "sweep": {"beta": "0.1,1"}}, DataError, "2 different prompts .* at least 4"),
        ({"data": DataSource("-")}, OptionError, "standard input"),
        ({"data": DataSource("missing.jsonl")}, DataError, "missing.jsonl"),
        ({"model": "no-such-model"}, ModelError, "no-such-model"),
        ({"model": str(adapter)}, OptionError, "merge it into its model"),
        ({"training": TrainOptions(max_length=4)}, DataError, "raise --max-length"),
    ]
    for changes, error, message in cases:
        with pytest.raises(error, match=message):
            compare_job(dataclasses.replace(job, **changes), "out", workers=1)
    with pytest.raises(OptionError, match="--workers 0"):
        compare_job(job, "out", workers=0)
    assert not list(Path("out").glob("cells/*"))


def test_a_folder_of_something_else_is_left_alone(job):
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    with pytest.raises(RunError, match="no comparison"):
        compare_job(job, "full", workers=1)
    one_seed = dataclasses.replace(job, measure=dataclasses.replace(job.measure, seeds=1))
    compare_job(one_seed, "out", workers=1)
    other = dataclasses.replace(one_seed, training=TrainOptions(steps=3))
    with pytest.raises(RunError, match=r"other settings \(training\)"):
        compare_job(other, "out", workers=1)


def test_options_that_every_comparison_fixes_are_refused(job):
    with pytest.raises(OptionError, match=r"training\.select cannot be chosen"):
        job_from_config({**job.config(), "training": {"select": "best"}})


@pytest.mark.slow
def test_processes_load_the_users_own_objective_and_reward_again(job):
    Path("rewards.py").write_text("def words(prompts, responses):\n    return [len(r.split()) for r in responses]\n")
    own = {
        "objectives": ("mine",),
        "objective_file": "mine.py",
        "rewards": ("rewards.py:words",),
        "sweep": {"scale": "1,2"},
    }
    parallel = compare_job(dataclasses.replace(job, **own), "parallel", workers=2)
    serial = compare_job(dataclasses.replace(job, **own), "serial", workers=1)
    assert not parallel.failures
    for arm in ("mine scale=1", "mine scale=2"):
        one, other = metrics(parallel.folder, arm), metrics(serial.folder, arm)
        assert one["rewards"] == other["rewards"] and one["margin"] == pytest.approx(other["margin"], abs=1e-4)
