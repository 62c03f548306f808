"""What is true of a paper here and now: whether its module is installed, and what its experiment showed.

Reads the recorded results and the run store; writes nothing, imports no paper, and never fails because a record is
damaged: it then says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from paperworks.core.errors import PaperworksError

PACKAGE = Path(__file__).resolve().parents[1]
VERDICTS = ("holds", "reversed", "not shown")
_FINISHED_RUNS = """
SELECT name, max(coalesce(ended, started)) FROM runs WHERE verb = 'run' AND status = 'finished' GROUP BY name"""


@dataclass(frozen=True)
class Verdict:
    """One claim of an experiment and what a run showed of it.

    `evidence` is the difference between the two arms in words. `mean`, `low`, `high` are its mean and 95% interval in
    the claimed direction (above 0 speaks for the claim); None where too few seeds gave one.
    """

    text: str
    verdict: str  # holds | reversed | not shown
    evidence: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Recorded:
    """The evidence that `paperworks run SLUG --record` left in `results/`. `problem` says why it cannot be read."""

    date: str = ""
    budget: str = ""
    seeds: int = 0  # of the part of the experiment that has fewest
    claims: tuple[Verdict, ...] = ()
    problem: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many claims came out each way, every verdict named."""
        found = Counter(claim.verdict for claim in self.claims)
        return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


@dataclass(frozen=True)
class Evidence:
    """A paper's experiment as far as it is known here. `run_here` is the date of the last run finished here, or ""."""

    recorded: Recorded | None = None
    run_here: str = ""

    def __str__(self) -> str:
        parts = ["recorded"] if self.recorded else []
        return ", ".join([*parts, "run here"] if self.run_here else parts) or "no"


def counts_text(counts: Mapping[str, int]) -> str:
    """Verdict counts in a few words: "3/4 claims hold, 1 reversed"."""
    text = f"{counts.get('holds', 0)}/{sum(counts.values())} claims hold"
    return f"{text}, {counts['reversed']} reversed" if counts.get("reversed") else text


def is_usable(slug: str) -> bool:
    """Whether `papers/<slug>.py` (hyphens as underscores) is part of this installation. The module isn't imported."""
    module = "paperworks.papers." + slug.replace("-", "_")
    return PathFinder.find_spec(module, [str(PACKAGE / "papers")]) is not None


def evidence_of(slug: str) -> Evidence:
    """What is known of one paper's experiment (`Catalog.evidence` answers the same for all papers faster)."""
    return Evidence(read_recorded(results_folder() / f"{slug}.json"), runs_here().get(slug, ""))


def results_folder() -> Path:
    """`results/` of a checkout, else the copy that the installed package carries. It may not exist."""
    checkout = PACKAGE.parents[1]
    if PACKAGE.parent.name == "src" and (checkout / "pyproject.toml").is_file():
        return checkout / "results"
    return PACKAGE / "_results"


def read_recorded(path: Path) -> Recorded | None:
    """The summary of one `results/<slug>.json`; None where there is none. A damaged one is returned with `problem`."""
    import json

    try:
        record = json.loads(path.read_bytes())
        return Recorded(
            date=str(record["date"])[:10],
            budget=str(record["budget"]),
            seeds=min(map(len, record["seeds"].values()), default=0),
            claims=tuple(_verdict(claim) for claim in record["claims"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        return Recorded(problem=f"{path} cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Recorded(problem=f"{path} is damaged; `paperworks run {path.stem} --record` writes it anew")


def runs_here() -> Mapping[str, str]:
    """Date (YYYY-MM-DD) of the last finished `paperworks run` of each paper on this machine, by slug.

    Empty where nothing was run; also where the run store cannot be read, which `paperworks runs` explains.
    """
    import sqlite3

    from paperworks.core.files import home

    try:
        # Read directly: importing core.runs would cost more than the rest of `paperworks list`, and its lists take the
        # write lock. mode=ro also keeps SQLite from making a store where there is none.
        connection = sqlite3.connect(f"{(home().absolute() / 'runs.sqlite').as_uri()}?mode=ro", uri=True, timeout=1.0)
        try:
            return {name: date[:10] for name, date in connection.execute(_FINISHED_RUNS)}
        finally:
            connection.close()
    except (OSError, PaperworksError, sqlite3.Error):
        return {}


def _verdict(claim: Mapping[str, Any]) -> Verdict:
    if claim["verdict"] not in VERDICTS:
        raise ValueError(claim["verdict"])
    interval = claim["interval"]
    return Verdict(
        text=str(claim["text"]),
        verdict=claim["verdict"],
        evidence=str(claim["evidence"]),
        mean=_number(interval["mean"]),
        low=_number(interval["low"]),
        high=_number(interval["high"]),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
