"""The repository keeps its word: what README and guides tell people to type exists, and every built paper has its proof."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import paperworks
from paperworks.catalog import Catalog
from paperworks.catalog.evidence import read_recorded
from paperworks.cli.main import VERBS, main
from paperworks.experiment.verdict import FEW_SEEDS

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BUILT = [card.slug for card in Catalog.open().cards() if card.usable]


def commands(program: str) -> list[str]:
    """Every command line of `program` in a code block of the guides, or in a table, once each."""
    found: dict[str, None] = {}
    for guide in GUIDES:
        text = guide.read_text()
        blocks = [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
        lines = [line for block in blocks for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            words = (
                shlex.split(line.split("…")[0].replace("\\|", "|"), comments=True) if line.count('"') % 2 == 0 else []
            )
            if len(words) > 1 and words[0].removeprefix(".venv/bin/") == program:
                found[shlex.join(words[1:])] = None
    return list(found)


def text_files() -> Iterator[Path]:
    yield from (
        path for path in ROOT.glob("*") if path.is_file() and path.suffix in ("", ".md", ".toml", ".txt", ".yml")
    )
    for folder in (".ci", "benchmarks", "docs", "examples", "results", "src", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".png", ".gz") and path != Path(__file__):
                yield path


@pytest.mark.parametrize("command", commands("paperworks"))
def test_every_command_in_the_guides_exists_with_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    verb, rest = words[0], words[1:]
    if verb in ("VERB", "--version"):
        return
    assert verb in VERBS
    first_option = next((at for at, word in enumerate(rest) if word.startswith("-")), len(rest))
    positional = [word for word in rest[:first_option] if word not in ("OBJECTIVE", "NAME")]
    own = ["--objective-file", str(ROOT / "examples/my_objective.py")] if "--objective-file" in rest else []
    assert main([verb, *positional, *own, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (word for word in rest if re.match(r"--[a-z]", word)):
        name = option.split("=")[0].split("|")[0]
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown), f"paperworks {verb} has no {name}"


def test_every_make_target_in_the_guides_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {words.split()[0] for words in commands("make")}
    assert {"demo", "test", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_between_guides_lead_somewhere(guide: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", guide.read_text()):
        if "://" not in target:
            assert (guide.parent / target).exists(), target


@pytest.mark.parametrize("slug", BUILT)
def test_every_built_paper_has_a_page_and_recorded_evidence(slug: str) -> None:
    assert (ROOT / "docs" / "papers" / f"{slug}.md").is_file(), "run `make docs`"
    recorded = read_recorded(ROOT / "results" / f"{slug}.json")
    assert recorded is not None, f"run `paperworks run {slug} --record`"
    assert not recorded.problem
    assert recorded.claims
    assert recorded.budget != "smoke"
    assert recorded.seeds >= FEW_SEEDS


def test_the_guides_name_every_objective() -> None:
    from paperworks.language.objectives.registry import Registry

    names = Registry().names()  # a registry of its own: other tests register objectives of users in the shared one
    for guide in ("docs/objectives.md", "docs/data-formats.md"):
        text = (ROOT / guide).read_text()
        assert [name for name in names if not re.search(rf"[`\s]{name}[`\s]", text)] == [], guide


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(rb"(?<![\w.:/])/(?:work|root|home|Users)/")
    assert [str(path.relative_to(ROOT)) for path in text_files() if place.search(path.read_bytes())] == []


def test_setting_up_names_no_host() -> None:
    for name in ("Makefile", "constraints.txt", ".ci/run"):
        assert "://" not in (ROOT / name).read_text()


def test_licence_and_version_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert project["project"]["dynamic"] == ["version"], "the version stands in paperworks/__init__.py alone"
    assert f"## [{paperworks.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "src/paperworks/py.typed").is_file()


def test_continuous_integration_runs_what_a_desk_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert "make test" in script.read_text()
