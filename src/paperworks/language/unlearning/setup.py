"""What an unlearning run takes beside the rows to forget: rows to keep, answers in place, and what is measured on the way.

Read by `train_job`; from Python `assemble` and `UnlearningEvaluator` do the same without files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Forget, QuestionAnswer, Retain
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.unlearning.data import assemble, read_alternatives
from paperworks.language.unlearning.evaluator import UnlearningEvaluator
from paperworks.language.unlearning.logs import read_log
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets

if TYPE_CHECKING:
    from paperworks.language.train_job import DataSource


@dataclass(frozen=True)
class UnlearningSetup:
    """Files and floors of an unlearning run; paths are read like the rows to forget (same format and mapping)."""

    retain: str | None = option(None, "rows to keep: one is drawn beside each row to forget", metavar="FILE")
    idk: str | None = option(
        None, "answers to give in place of what is forgotten, one a line (default: a built-in list)", metavar="FILE"
    )
    eval_forget: str | None = option(
        None, "questions to have forgotten, with perturbed answers: measured every epoch", metavar="FILE"
    )
    eval_retain: str | None = option(None, "questions to keep, with perturbed answers", metavar="FILE")
    eval_authors: str | None = option(None, "questions about real authors, with perturbed answers", metavar="FILE")
    eval_facts: str | None = option(None, "questions about the world, with perturbed answers", metavar="FILE")
    retain_log: str | None = option(
        None, "log of a model trained without the rows to forget, for forget quality", metavar="FILE"
    )
    keep_floor: float = option(0.9, "keep weights whose utility is at least this share of the start's", low=0, high=1)
    utility_floor: float = option(
        0.0, "stop when utility falls below this share of the start's; 0: never", low=0, high=1
    )
    eval_limit: int = option(300, "most questions of each set measured", low=1)
    eval_max_new_tokens: int = option(200, "most tokens of a generated answer", low=1)
    eval_rouge: bool = option(True, "generate answers for ROUGE-L; without, evaluation is much faster")

    def __post_init__(self) -> None:
        check_ranges(self)
        others = ("eval_retain", "eval_authors", "eval_facts", "retain_log")
        given = next((name for name in others if getattr(self, name) is not None), None)
        if self.eval_forget is None and (given or self.utility_floor):
            name = (given or "utility_floor").replace("_", "-")
            raise OptionError(f"--{name} goes with --eval-forget FILE, the questions to have forgotten")

    def rows(
        self, forget: Dataset[Forget], source: DataSource, objective: UnlearningObjective, seed: int
    ) -> Dataset[Any]:
        """The rows to train on (see `assemble`)."""
        retain = None if self.retain is None else self._like(source, self.retain, {"forget": "retain"}).read(Retain)
        alternatives = None if self.idk is None else read_alternatives(self.idk)
        return assemble(forget, retain, alternatives, seed=seed, objective=objective)

    def evaluator(self, source: DataSource) -> UnlearningEvaluator | None:
        """What measures the model at every evaluation; None without questions."""
        if self.eval_forget is None:
            return None
        paths = {"forget": self.eval_forget, "retain": self.eval_retain}
        paths |= {"real_authors": self.eval_authors, "world_facts": self.eval_facts}
        sets = {
            name: self._like(source, path, {"forget": "answer"}).read(QuestionAnswer)
            for name, path in paths.items()
            if path is not None
        }
        measure = UnlearningOptions(
            limit=self.eval_limit, max_new_tokens=self.eval_max_new_tokens, rouge=self.eval_rouge
        )
        log = None if self.retain_log is None else read_log(self.retain_log)
        return UnlearningEvaluator(UnlearningSets(**sets), measure, log, self.keep_floor, self.utility_floor)

    @staticmethod
    def _like(source: DataSource, path: str, renamed: Mapping[str, str]) -> DataSource:
        """Another file read as the rows to forget are, with fields under the other schema's names."""
        mapping = {renamed.get(name, name): column for name, column in source.mapping.items()}
        return dataclasses.replace(source, path=path, mapping=mapping, limit=None)
