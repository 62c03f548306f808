"""Paper pages: up to date with their sources, complete in what they show, harmless whatever a text contains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paperworks.catalog import Catalog
from paperworks.catalog.pages import main, pages, paper_page
from paperworks.catalog.source_texts import objectives_in
from paperworks.core.errors import RunError

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "papers"


def record(**changes: Any) -> dict[str, Any]:
    metric = {"name": "gap", "label": "value gap", "unit": "nats", "higher_is_better": False, "format": ".2f"}
    numbers = {"mean": 0.123, "low": 0.1, "high": 0.15, "n": 5, "values": [0.1, 0.15]}
    diverged = {"mean": None, "low": None, "high": None, "n": 5, "values": [None]}
    arms = [
        {"name": "rdpo", "label": "rDPO", "role": "method", "metrics": {"gap": numbers}},
        {"name": "dpo", "label": "DPO", "role": "baseline", "metrics": {"gap": diverged}},
    ]
    part = {"name": "A", "title": "Exact", "metrics": [metric], "settings": [{"name": "flip=0.3", "arms": arms}]}
    claim = {"verdict": "not shown", "text": "rDPO beats DPO", "evidence": "rDPO − DPO: -0.01 [-0.03, +0.01]"}
    whole = {
        "date": "2026-11-24",
        "budget": "small",
        "seeds": {"A": [0, 1, 2, 3, 4]},
        "parts": [part],
        "claims": [claim],
        "differences": "smaller model",
        "notes": "",
        "compute_s": 300.0,
        "versions": {"torch": "2.13.0"},
        "hardware": {"processor": "a processor", "cores": 2, "gpus": []},
    }
    return {**whole, **changes}


def test_the_pages_in_the_repository_are_those_that_the_sources_give() -> None:
    made = pages()
    stale = [name for name, text in made.items() if not (PAGES / name).is_file() or (PAGES / name).read_text() != text]
    extra = {path.name for path in PAGES.glob("*.md")} - made.keys()
    assert not stale and not extra, f"run `make docs`: {sorted(stale)} are out of date, {sorted(extra)} are left over"


def test_every_paper_is_in_the_index_and_built_ones_have_a_link() -> None:
    made = pages()
    rows = [line for line in made["index.md"].splitlines() if line.startswith("| ")]
    for card in Catalog.open().cards():
        first = f"| [{card.slug}]({card.slug}.md) |" if card.usable else f"| {card.slug} |"
        assert sum(row.startswith(first) for row in rows) == 1
        assert (f"{card.slug}.md" in made) == card.usable


def test_a_page_shows_verdicts_numbers_and_circumstances_of_the_record() -> None:
    page = paper_page(Catalog.open().card("rdpo"), record(), ())
    assert "| ○ not shown | rDPO beats DPO | rDPO − DPO: -0.01 \\[-0.03, +0.01\\] |" in page
    assert "| rDPO (method) | 0.12 [0.10, 0.15] |" in page
    assert "| DPO (baseline) | – |" in page
    assert "Recorded 2026-11-24 with the budget `small`, 5 seeds" in page
    assert "smaller model" in page
    assert "a processor, 2 cores" in page


def test_without_a_record_the_page_claims_nothing() -> None:
    page = paper_page(Catalog.open().card("rdpo"), None, ())
    assert "No run has been recorded yet" in page
    assert "holds" not in page.split("## The claim, and what was found")[1].split("## The paper's own")[0]


def test_an_objective_appears_on_the_page_of_the_paper_that_its_docstring_cites() -> None:
    page = pages()["rdpo.md"]
    assert "### The objective `rdpo`" in page
    assert "### The objective `dpo`" not in page
    assert "| `--flip-rate` | `0.1` |" in page
    assert "| `--beta` | `0.1` |" in page, "inherited from DPO"


def test_text_is_shown_letter_by_letter() -> None:
    page = paper_page(Catalog.open().card("rdpo"), record(notes="a|b <i> *c* `d` [e](f) π_θ(y_w|x)"), ())
    assert r"a|b &lt;i> \*c\* \`d\` \[e\](f) π\_θ(y\_w|x)" in page
    table = paper_page(
        Catalog.open().card("rdpo"), record(claims=[{"verdict": "holds", "text": "p(a|b)", "evidence": ""}]), ()
    )
    assert r"| ✓ holds | p(a\|b) |" in table


@pytest.mark.parametrize(
    "content", ["{}", "[]", "{", json.dumps({"claims": [{"verdict": "won"}], "parts": [], "seeds": {}})]
)
def test_a_damaged_record_is_one_error_and_no_page(tmp_path: Path, content: str) -> None:
    (tmp_path / "rdpo.json").write_text(content)
    with pytest.raises(RunError, match=r"rdpo\.json"):
        pages(results=tmp_path)


def test_options_come_with_help_and_inherited_ones_first(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(
        'class Base(Objective):\n    name: ClassVar[str] = "base"\n    beta: float = option(0.1, "strength", above=0)\n'
    )
    (tmp_path / "second.py").write_text(
        'class Child(Base):\n    """Doc."""\n    name: ClassVar[str] = "child"\n    rate: int = 3\n'
    )
    child = {each.name: each for each in objectives_in(tmp_path)}["child"]
    assert child.docstring == "Doc."
    assert [(option.name, option.default, option.help) for option in child.options] == [
        ("beta", "0.1", "strength"),
        ("rate", "3", ""),
    ]


def test_writing_twice_changes_nothing_and_old_pages_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone.md").write_text("a paper that was removed")
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / "gone.md").exists()
    capsys.readouterr()
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("up to date\n")


def test_docstrings_become_prose_with_their_formulas_set_apart() -> None:
    page = pages()["rdpo.md"]
    assert "[(1 - eps) l(m) - eps l(-m)] / (1 - 2 eps)        language/objectives/rdpo.py, RobustDPO\n```" in page
    assert "`max_margin_warn`" in page
