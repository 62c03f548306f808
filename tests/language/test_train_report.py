"""report.html of a training run: made from the folder alone, whole by itself, and nothing in it is taken for markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperworks.core.errors import PaperworksError
from paperworks.language.train_report import write_report

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def folder(path: Path, *, name: str = "dpo", **more: Any) -> Path:
    """A run folder as training leaves it, every text of it `name` where that makes sense."""
    entry = {"loss": 0.6, "accuracy": 0.7, "margin": 0.1}
    results = {
        "objective": name, "options": {"beta": 0.1, "text": name},
        "data": {"source": name, "warnings": [name]},
        "training_rows": 9, "held_out_rows": 2, "steps": 2, "best_step": 2, "seconds": 1.5,
        "held_out": {"step": 2, **entry}, "history": [{"step": 0, **entry, "loss": 0.7}, {"step": 2, **entry}],
        "warnings": [name], "notes": [name], "held_out_values": {"margin": [0.2, -0.1]}, **more,
    }  # fmt: skip
    path.mkdir(exist_ok=True)
    (path / "results.json").write_text(json.dumps(results))
    (path / "run.json").write_text(json.dumps({"wall_s": 2, "versions": {"torch": name}, "hardware": {"cpu": name}}))
    (path / "run.yaml").write_text(
        yaml.safe_dump({"model": name, "lora": {"targets": name}, "training": {"seed": 3, "note": name}})
    )
    (path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, **entry, "grad_norm": 1.0}) + "\n" for n in (1, 2))
    )
    return path


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.seen.append((tag, dict(attributes)))


def test_a_name_full_of_markup_stays_a_name(tmp_path: Path) -> None:
    plain = Tags(write_report(folder(tmp_path / "plain")).read_text())
    text = write_report(folder(tmp_path / "hostile", name=HOSTILE)).read_text()
    hostile = Tags(text)
    assert [tag for tag, _ in hostile.seen] == [tag for tag, _ in plain.seen]
    assert not [
        tag for tag, attributes in hostile.seen if tag == "img" or any(name.startswith("on") for name in attributes)
    ]
    assert "&lt;script&gt;alert(" in text


def test_the_report_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path)).read_text()
    for tag, attributes in Tags(text).seen:
        assert tag not in ("link", "iframe", "object"), tag
        assert not re.match(r"(https?:)?//", attributes.get("src") or ""), attributes


def test_before_and_after_and_every_figure(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path)).read_text()
    assert "0.7000" in text and "0.6000" in text and "2 held-out rows; weights of step 2 of 2" in text
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"loss.svg", "accuracy.svg", "margin.svg", "grad_norm.svg", "margins.svg"}


def test_without_held_out_rows_it_says_so(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, history=[], held_out={}, held_out_values={})).read_text()
    assert "No rows were held out" in text and not (tmp_path / "figures" / "margins.svg").exists()


def test_a_measure_that_was_not_a_number_is_a_dash(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, held_out={"step": 2, "loss": 0.6, "accuracy": None})).read_text()
    assert "–" in text


def test_the_last_line_of_metrics_may_be_half(tmp_path: Path) -> None:
    with (folder(tmp_path) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert write_report(tmp_path).is_file()


@pytest.mark.parametrize("name", ["results.json", "run.json", "run.yaml"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{ [")])
def test_a_damaged_folder_is_named(name: str, damage: Any, tmp_path: Path) -> None:
    damage(folder(tmp_path) / name)
    with pytest.raises(PaperworksError, match=re.escape(str(tmp_path / name))):
        write_report(tmp_path)
