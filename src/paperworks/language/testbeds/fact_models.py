"""Tiny models that know a world of invented people, and the twin of each that never read about those to forget.

Both begin at one base, which has learnt the language of the questions and some true facts, and are fitted by the same
recipe in an order drawn from the same seed: what sets them apart is the forget set. Everything goes through the parts
that users use (`train`, `SFT`). Fitted once, then loaded from the folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from paperworks.core.files import file_lock
from paperworks.core.options import to_mapping
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.objectives.sft import SFT
from paperworks.language.policy import Policy
from paperworks.language.testbeds import facts
from paperworks.language.testbeds.facts import FactWorld
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.training import TrainOptions, train


@dataclass(frozen=True)
class FactSpec:
    """Sizes of a world and of its models, and how they are fitted. The defaults take a minute a world on one core."""

    forget: int = 6  # people
    retain: int = 42
    held_out: int = 12
    layers: int = 2
    width: int = 96
    heads: int = 4
    vocabulary: int = 1024
    context: int = 128
    lesson_people: int = 100  # of the base, in no world
    lesson_epochs: float = 12.0
    epochs: float = 15.0
    batch_size: int = 48
    lesson_rate: float = 4e-3
    learning_rate: float = 3e-3
    base_seed: int = 0  # the base is one for all worlds

    @property
    def key(self) -> str:
        """Names the spec in file names."""
        return hashlib.sha256(repr(to_mapping(self)).encode()).hexdigest()[:10]


SMOKE = FactSpec(
    forget=2, retain=4, held_out=1, width=32, vocabulary=512, lesson_people=8, lesson_epochs=2.0, epochs=3.0
)
"""A world and models that are there in a few seconds and know next to nothing."""


@dataclass(frozen=True)
class FactModels:
    """A world and the folders of its models, which `load` reads afresh: whoever trains one changes only his own copy."""

    world: FactWorld
    target_folder: Path
    retain_only_folder: Path

    def target(self) -> Policy:
        """The model fitted to everybody: the one to make forget."""
        return _load(self.target_folder, "target")

    def retain_only(self) -> Policy:
        """The model fitted to everybody but the people to forget: what a perfect unlearning would look like."""
        return _load(self.retain_only_folder, "retain-only")


def make_models(folder: str | Path, seed: int, spec: FactSpec = FactSpec()) -> FactModels:
    """The world of a seed and its two models, fitted on first use and kept in `folder`.

    The base lies in the folder too, once for all seeds; several processes may ask at once. True facts are repeated while
    fitting, because a model of this size would forget them otherwise.
    """
    place = Path(folder)
    world = facts.make_world(seed, forget=spec.forget, retain=spec.retain, held_out=spec.held_out)
    own = place / f"facts-{spec.key}-{seed}"
    known = (world.real_authors, world.world_facts)
    with file_lock(place / f"facts-{spec.key}-{seed}.lock"):
        for name, questions in (("target", (world.forget, world.kept)), ("retain-only", (world.kept,))):
            if not (own / name / "config.json").is_file():
                policy = _load(_ensure_base(place, spec), name)
                rows = facts.demonstrations(*questions, *known)
                _fit(policy, rows, spec, spec.epochs, spec.learning_rate, seed)
                policy.save(own / name)
    return FactModels(world, own / "target", own / "retain-only")


def _ensure_base(place: Path, spec: FactSpec) -> Path:
    folder = place / f"facts-{spec.key}-base"
    with file_lock(place / f"facts-{spec.key}-base.lock"):
        if not (folder / "config.json").is_file():
            rows = facts.lessons(spec.base_seed, people=spec.lesson_people)
            tokenizer = byte_level_tokenizer([f"{row.prompt}{row.response}" for row in rows], spec.vocabulary)
            size = TinySpec(
                layers=spec.layers,
                width=spec.width,
                heads=spec.heads,
                vocabulary=spec.vocabulary,
                context=spec.context,
                seed=spec.base_seed,
            )
            policy = fresh_policy(size, tokenizer, name="base")
            _fit(policy, rows, spec, spec.lesson_epochs, spec.lesson_rate, spec.base_seed)
            policy.save(folder)
    return folder


def _fit(
    policy: Policy, rows: Dataset[Demonstration], spec: FactSpec, epochs: float, learning_rate: float, seed: int
) -> None:
    options = TrainOptions(
        epochs=epochs,
        batch_size=spec.batch_size,
        micro_batch=spec.batch_size,
        learning_rate=learning_rate,
        select="last",
        seed=seed,
    )
    train(policy, SFT(), rows, options)


def _load(folder: Path, name: str) -> Policy:
    policy = Policy.load(folder, device="cpu")
    policy.name = name
    return policy
