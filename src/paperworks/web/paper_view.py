"""All that a paper's page shows, put together from its card, its recorded result, its sources and the run store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from paperworks.catalog import Card, Catalog, Evidence
from paperworks.catalog.commands import commands, methods
from paperworks.catalog.evidence import PACKAGE, results_folder
from paperworks.catalog.record import (
    VERDICT_RULE,
    arm_rows,
    circumstances,
    metric_title,
    published_rows,
    read_record,
    seed_counts,
)
from paperworks.catalog.related import Related, related
from paperworks.catalog.run_results import claim_counts
from paperworks.catalog.source_texts import ObjectiveText, objectives_in
from paperworks.core.errors import RunError
from paperworks.core.runs import RunRecord, RunStore
from paperworks.web.listing import Verdict, verdict_of

MOST_RUNS = 8


@dataclass(frozen=True)
class PartView:
    """One part of a recorded experiment: its tables by setting, and its figures."""

    name: str
    title: str
    claims: Sequence[Mapping[str, Any]]
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]  # setting, columns, rows
    figures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PaperView:
    """A paper's page. `problem` says why its record cannot be shown; `parts` is empty then."""

    card: Card
    evidence: Evidence
    verdict: Verdict
    commands: Sequence[str]
    python: str
    methods: Sequence[str]
    related: Related
    runs: Sequence[tuple[RunRecord, Mapping[str, int]]]
    record: Mapping[str, Any] | None = None
    parts: Sequence[PartView] = ()
    published: Sequence[Sequence[str]] = ()
    facts: str = ""
    problem: str = ""
    rule: str = VERDICT_RULE.replace("*", "")


def record_path(slug: str) -> Path:
    """Where the recorded result of a paper is, if there is one."""
    return results_folder() / f"{slug}.json"


def paper_view(catalog: Catalog, slug: str, figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> PaperView:
    """The page of one paper; `figures` are those of its record by part. Raises OptionError for an unknown paper."""
    card = catalog.card(slug)
    problem, record = "", None
    try:
        record = read_record(record_path(slug))
    except RunError as error:
        problem = str(error)
    evidence = catalog.evidence(slug)
    runs = RunStore().list("run", slug, limit=MOST_RUNS)
    return PaperView(
        card=card,
        evidence=evidence,
        verdict=verdict_of(evidence),
        commands=commands(card) if card.usable else (),
        python=python_lines(card) if card.usable else "",
        methods=methods(card) if card.usable else (),
        related=related(card, catalog.cards()),
        runs=[(run, claim_counts(run)) for run in runs],
        record=record,
        parts=[_part(part, record["claims"], figures.get(part["name"], ())) for part in record["parts"]]
        if record
        else (),
        published=published_rows(record) if record else (),
        facts=f"{seed_counts(record['seeds'])}. {circumstances(record)}" if record else "",
        problem=problem,
    )


def python_lines(card: Card) -> str:
    """The Python that applies the paper: its objectives where it has some, and its experiment."""
    lines = []
    own = [each for each in _objectives() if card.arxiv and f"arXiv {card.arxiv}" in each.docstring]
    if own:
        lines += [f"from paperworks.language.objectives import {', '.join(each.class_name for each in own)}", ""]
        for each in own:
            options = ", ".join(f"{option.name}={option.default}" for option in each.options if option.default)
            lines.append(f"{each.name.replace('-', '_')} = {each.class_name}({options})")
        lines.append("")
    return "\n".join(
        [
            *lines,
            "from paperworks.experiment import run_experiment",
            "from paperworks.papers import experiment_of",
            "",
            f'results = run_experiment(experiment_of("{card.slug}"), budget="smoke")',
        ]
    )


@cache
def _objectives() -> tuple[ObjectiveText, ...]:
    return objectives_in(PACKAGE / "language" / "objectives")


def _part(
    part: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]
) -> PartView:
    columns = ["arm", *(metric_title(metric) for metric in part["metrics"])]
    tables = [(setting["name"], columns, arm_rows(setting["arms"], part["metrics"])) for setting in part["settings"]]
    own = [claim for claim in claims if claim["part"] == part["name"]]
    return PartView(part["name"], part["title"], own, tables, figures)
