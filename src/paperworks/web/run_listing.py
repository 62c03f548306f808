"""The list of runs: what the address of the page asks for, and the runs and jobs that answer it. No HTML is made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from urllib.parse import urlencode

from paperworks.catalog.run_results import result_text
from paperworks.core.jobs import Job, JobQueue
from paperworks.core.runs import RunRecord, RunStore
from paperworks.web.run_view import verdict_counts

A_PAGE = 50
MOST_STOPPED = 5  # jobs that were stopped or failed, below those that go on
FILTERS = ("verb", "status", "name")


@dataclass(frozen=True)
class RunQuery:
    """What is asked for. A page that is no number counts as the first: an address typed by hand must not fail."""

    verb: str = ""
    status: str = ""
    name: str = ""
    other: str = ""  # id of a run that another is to be chosen for, to compare the two
    page: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> RunQuery:
        """The query in an address's parameters."""
        words = {field.name: parameters.get(field.name, "").strip()[:300] for field in fields(cls)}
        page = words.pop("page")
        number = int(page) if page.isascii() and page.isdecimal() and len(page) < 8 else 1
        return cls(**words, page=max(1, number))

    def address(self, **changes: str | int) -> str:
        """The address of this query with some of it changed."""
        changed = replace(self, **changes)  # type: ignore[arg-type]  # of the fields' own types
        given = {name: value for name, value in vars(changed).items() if value and (name, value) != ("page", 1)}
        return "/runs" + (f"?{urlencode(given)}" if given else "")

    @property
    def is_filtered(self) -> bool:
        return any((self.verb, self.status, self.name))


@dataclass(frozen=True)
class RunItem:
    """One run of the list: the verdicts of its claims where it has some, else what came out in a few words."""

    record: RunRecord
    counts: Mapping[str, int]
    result: str

    @classmethod
    def of(cls, record: RunRecord) -> RunItem:
        """The item of a run."""
        return cls(record, verdict_counts(record), result_text(record))


@dataclass(frozen=True)
class RunListing:
    """A page of the runs that answer a query, newest first, and how many each value of a filter would find."""

    query: RunQuery
    items: Sequence[RunItem]
    total: int  # that answer the query
    known: int  # in all
    counts: Mapping[str, Mapping[str, int]]
    jobs: Sequence[Job]

    @property
    def has_older(self) -> bool:
        return self.query.page * A_PAGE < self.total


def run_listing(store: RunStore, queue: JobQueue, query: RunQuery) -> RunListing:
    """Answers a query; a page behind the last is the last."""
    records = store.list()
    chosen = filtered(records, query)
    last = max(1, -(-len(chosen) // A_PAGE))
    query = replace(query, page=min(query.page, last))
    begin = (query.page - 1) * A_PAGE
    items = [RunItem.of(record) for record in chosen[begin : begin + A_PAGE]]
    counts = {name: _counts(filtered(records, replace(query, **{name: ""})), name) for name in FILTERS}  # type: ignore[arg-type]
    return RunListing(query, items, len(chosen), len(records), counts, open_jobs(queue))


def filtered(records: Iterable[RunRecord], query: RunQuery) -> list[RunRecord]:
    """The runs that have what the query asks for."""
    wanted = {name: getattr(query, name) for name in FILTERS if getattr(query, name)}
    return [record for record in records if all(getattr(record, name) == value for name, value in wanted.items())]


def open_jobs(queue: JobQueue) -> list[Job]:
    """Jobs that go on or wait for their turn, then the last ones that were stopped or failed: they can be taken up again."""
    jobs = queue.list()
    stopped = [job for job in jobs if job.has_ended and job.status != "finished"]
    return [*(job for job in jobs if not job.has_ended), *stopped[:MOST_STOPPED]]


def _counts(records: Iterable[RunRecord], name: str) -> dict[str, int]:
    return dict(sorted(Counter(getattr(record, name) for record in records).items()))
