"""Logs of evaluations, question by question: ours (`unlearning-log.json`), and those that TOFU's evaluation publishes.

A retain-only model's log is what forget quality is measured against. Knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.core.errors import RunError
from paperworks.core.files import read_json, write_json_atomic
from paperworks.language.unlearning.measured_sets import SET_NAMES, MeasuredItem, MeasuredSet, SetName
from paperworks.language.unlearning.measures import Averaging
from paperworks.language.unlearning.outcome import UnlearningReport

FORMAT = "paperworks unlearning log, version 1"
FILE_NAME = "unlearning-log.json"
_TOFU_FILES: Mapping[str, SetName] = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
_TOFU_TOGETHER = "eval_log_aggregated.json"
_TOFU_KEYS = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss")
HOW_TO_MAKE_ONE = (
    "make one from a model trained without the forget set, by the same recipe: "
    "paperworks evaluate unlearning --model RETAIN_ONLY --forget FILE --out DIR, then give --retain-log DIR"
)


@dataclass(frozen=True)
class UnlearningLog:
    """The measured sets of one model; a log made elsewhere may have the forget set alone, or only numbered questions."""

    model: str
    sets: Mapping[SetName, MeasuredSet]
    source: str = ""

    def report(self, retain_log: UnlearningLog | None = None) -> UnlearningReport:
        """The outcome that the log's numbers give. Raises RunError (see `retain_only_set`)."""
        if "forget" not in self.sets:
            raise RunError(f"{self.source}: has no forget set")
        if retain_log is None:
            return UnlearningReport(self.model, self.sets)
        forget = self.sets["forget"]
        retain_only = retain_only_set(retain_log, [item.key for item in forget.items], forget.averaging)
        return UnlearningReport(self.model, self.sets, retain_only, retain_log.model)

    def under(self, averaging: Averaging) -> UnlearningLog:
        """The same losses with the truth ratio's other mean."""
        sets = {name: dataclasses.replace(measured, averaging=averaging) for name, measured in self.sets.items()}
        return dataclasses.replace(self, sets=sets)


def log_of(report: UnlearningReport) -> UnlearningLog:
    """The log that `write_log` would write, without a file between."""
    return UnlearningLog(report.model, report.sets, report.model)


def retain_only_set(log: UnlearningLog, keys: Sequence[str], averaging: Averaging = "geometric") -> MeasuredSet:
    """The retain-only model's items for the forget set's questions of these keys (`question_key`), in their order.

    Questions are matched by their keys where the log has them, else by their number. Raises RunError for a log of another
    forget set, or without one.
    """
    if "forget" not in log.sets:
        raise RunError(f"{log.source}: has no forget set; {HOW_TO_MAKE_ONE}")
    items = log.sets["forget"].items
    if all(keys) and all(item.key for item in items):
        by_key = {item.key: item for item in items}
        lacking = sum(key not in by_key for key in keys)
        if lacking:
            raise RunError(
                f"{log.source}: a log of another forget set: it lacks {lacking} of the {len(keys)} questions here "
                f"(it has {len(items)}); {_other_set(len(items), len(keys))}"
            )
        items = tuple(by_key[key] for key in keys)
    elif len(items) != len(keys):
        raise RunError(
            f"{log.source}: a log of another forget set: it has {len(items)} questions, here are {len(keys)}; "
            f"{_other_set(len(items), len(keys))}"
        )
    return MeasuredSet("forget", items, averaging)


def _other_set(logged: int, here: int) -> str:
    limit = f"give --limit {logged} where it was made with that, or " if logged < here else ""
    return f"{limit}evaluate the retain-only model on this --forget file"


# ------------------------------------------------------------------------------------------------------------------- ours


def write_log(report: UnlearningReport, path: str | Path) -> Path:
    """Writes the log of a report: numbers and keys of questions, without their texts. Raises RunError."""
    sets = {
        name: {"averaging": measured.averaging, "items": [_item_as_dict(item) for item in measured.items]}
        for name, measured in report.sets.items()
    }
    write_json_atomic(path, {"format": FORMAT, "model": report.model, "sets": sets})
    return Path(path)


_LOGGED = ("key", "where", "nll", "paraphrased_nll", "perturbed_nll", "tokens", "rouge")


def _item_as_dict(item: MeasuredItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in _LOGGED}


def read_log(path: str | Path) -> UnlearningLog:
    """A log: ours, one of TOFU's files, or a folder with one of either.

    Raises RunError, which for a log that is not there says how to make one.
    """
    place = _log_in(Path(path))
    content = read_json(place)
    if not isinstance(content, dict):
        raise RunError(f"{place}: not a log of an unlearning evaluation; {HOW_TO_MAKE_ONE}")
    if str(content.get("format", "")).startswith("paperworks unlearning log"):
        return _ours(content, place)
    if set(content) & set(_TOFU_FILES):
        sets = {
            name: _tofu_set(content[file], name, f"{place}: {file}")
            for file, name in _TOFU_FILES.items()
            if file in content
        }
        return UnlearningLog(_name_of(place), sets, str(place))
    if "avg_paraphrased_loss" in content or "average_perturb_loss" in content:
        name = _TOFU_FILES.get(place.name, "forget")
        return UnlearningLog(_name_of(place), {name: _tofu_set(content, name, str(place))}, str(place))
    raise RunError(f"{place}: not a log of an unlearning evaluation; {HOW_TO_MAKE_ONE}")


def _log_in(path: Path) -> Path:
    if not path.exists():
        raise RunError(f"{path}: no such file or folder; {HOW_TO_MAKE_ONE}")
    if path.is_file():
        return path
    for name in (FILE_NAME, _TOFU_TOGETHER, "eval_log_forget.json"):
        if (path / name).is_file():
            return path / name
    several = sorted(path.glob(f"*/{FILE_NAME}"))
    if len(several) == 1:
        return several[0]
    if several:
        named = ", ".join(str(each.parent) for each in several)
        raise RunError(f"{path}: has the logs of {len(several)} models; name the retain-only one's folder ({named})")
    raise RunError(f"{path}: has no log of an unlearning evaluation ({FILE_NAME}); {HOW_TO_MAKE_ONE}")


def _ours(content: Mapping[str, Any], place: Path) -> UnlearningLog:
    if content["format"] != FORMAT:
        raise RunError(f"{place}: written by another version ({content['format']}); evaluate the model again")
    try:
        sets = {
            name: MeasuredSet(
                name,
                tuple(
                    MeasuredItem(**{**item, "perturbed_nll": tuple(item["perturbed_nll"])}) for item in each["items"]
                ),
                each["averaging"],
            )
            for name in SET_NAMES
            if (each := content["sets"].get(name)) is not None
        }
        log = UnlearningLog(str(content["model"]), sets, str(place))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{place}: a damaged log ({type(error).__name__}: {error}); evaluate the model again") from None
    for measured in sets.values():
        _check(measured, str(place))
    return log


# ------------------------------------------------------------------------------------------------------------------ TOFU's


def _tofu_set(content: Any, name: SetName, place: str) -> MeasuredSet:
    """A set of TOFU's logs: a mapping or list a measure, over the questions' numbers."""
    columns = {
        key: _column(content, key, place)
        for key in (*_TOFU_KEYS, "num_token_gt", "rougeL_recall", "generated_text")
        if isinstance(content, dict) and key in content
    }
    missing = [key for key in _TOFU_KEYS if key not in columns]
    if missing:
        raise RunError(f"{place}: not one of TOFU's logs: {', '.join(missing)} missing; {HOW_TO_MAKE_ONE}")
    keys = list(columns["avg_paraphrased_loss"])
    for other, column in columns.items():
        if set(column) != set(keys):
            raise RunError(f"{place}: damaged: {other} has {len(column)} questions, avg_paraphrased_loss {len(keys)}")
    try:
        measured = MeasuredSet(name, tuple(_tofu_item(columns, key, place) for key in keys))
    except (TypeError, ValueError, IndexError) as error:
        raise RunError(f"{place}: damaged ({error}); fetch it again") from None
    _check(measured, place)
    return measured


def _column(content: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    column = content[key]
    if isinstance(column, dict):
        return column
    if isinstance(column, list):
        return {str(number): value for number, value in enumerate(column)}
    raise RunError(f"{place}: damaged: {key} is neither a list nor a mapping; fetch it again")


def _tofu_item(columns: Mapping[str, Mapping[str, Any]], key: str, place: str) -> MeasuredItem:
    texts = columns["generated_text"][key] if "generated_text" in columns else None
    return MeasuredItem(
        nll=float(columns["avg_gt_loss"][key]),
        paraphrased_nll=float(columns["avg_paraphrased_loss"][key]),
        perturbed_nll=tuple(map(float, columns["average_perturb_loss"][key])),
        tokens=int(columns["num_token_gt"][key]) if "num_token_gt" in columns else None,
        rouge=float(columns["rougeL_recall"][key]) if "rougeL_recall" in columns else None,
        where=f"{place}: question {key}",
        question="" if texts is None else str(texts[0]),
        generated=None if texts is None else str(texts[1]),
        answer="" if texts is None else str(texts[2]),
    )


def _check(measured: MeasuredSet, place: str) -> None:
    """Raises RunError for a set that cannot be compared with: empty, not numbers, or NaN."""
    if not len(measured):
        raise RunError(f"{place}: the {measured.name} set is empty; {HOW_TO_MAKE_ONE}")
    for number, item in enumerate(measured.items, start=1):
        losses: Sequence[Any] = (item.nll, item.paraphrased_nll, *item.perturbed_nll)
        if not all(isinstance(loss, (int, float)) and math.isfinite(loss) for loss in losses):
            raise RunError(
                f"{place}: {measured.name} question {number} has a loss that is no finite number; evaluate it again"
            )
        if not item.perturbed_nll:
            raise RunError(f"{place}: {measured.name} question {number} has no perturbed answers; evaluate it again")


def _name_of(place: Path) -> str:
    parent = place.resolve().parent.name
    return f"{parent}/{place.name}" if parent else place.name
