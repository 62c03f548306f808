"""Figures are well-formed SVG, safe beside one another in a page, stable, and keep a colour with a name."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from paperworks.core import plots
from paperworks.core.plots import (
    Curve,
    IntervalRow,
    colours,
    field,
    frontier,
    heatmap,
    histogram,
    intervals,
    lines,
    save,
    scatter,
)
from paperworks.core.statistics import Interval, bootstrap_mean

HOSTILE = '<script>alert("1")</script> & $\\frac{$'


def figures(name: str) -> dict[str, str]:
    rows = [
        IntervalRow(name, bootstrap_mean([1.0, 2.0]), [1.0, 2.0]),
        IntervalRow("b", Interval(1, math.nan, math.nan, 1)),
    ]
    return {
        "lines": lines(
            {name: Curve([1, 2], [1, 2], [0, 1], [2, 3]), "b": Curve([1, 2], [2, 1])}, name, name, title=name
        ),
        "intervals": intervals(rows, name, title=name, zero_line=True),
        "frontier": frontier({name: [(0.1, 1.0), (1.0, 2.0), (2.0, 1.5)], "b": [(0.0, 0.0)]}, title=name),
        "scatter": scatter({name: [(0.0, 1.0), (1.0, 0.0)], "b": [(0.5, 0.5)]}, name, name, title=name),
        "histogram": histogram({name: [0.0, 1.0, 1.0], "b": [2.0]}, name, title=name),
        "heatmap": heatmap([name, "b"], [name, "b"], [[math.nan, 0.25], [0.75, math.nan]], title=name),
        "field": field(
            [0, 1], [0, 1], [[-1.0, 1.0], [0.5, math.nan]], name, name, title=name, outlines={name: [[1.0, -1.0]] * 2}
        ),
    }


@pytest.mark.parametrize("kind", ["lines", "intervals", "frontier", "scatter", "histogram", "heatmap", "field"])
def test_every_figure_is_well_formed_whatever_the_names(kind):
    svg = figures(HOSTILE)[kind]
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"].startswith("<script>")
    assert "<script" not in svg
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_names_inside_figures_do_not_meet_and_references_stay_inside():
    identities: list[str] = []
    for svg in figures("a").values():
        root = ElementTree.fromstring(svg)
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        targets = [value for e in root.iter() for key, value in e.attrib.items() if key.endswith("href")]
        targets += [e.attrib["clip-path"][4:-1] for e in root.iter() if "clip-path" in e.attrib]
        assert targets
        assert {target.removeprefix("#") for target in targets} <= set(own)
        identities += set(own)
    assert len(identities) == len(set(identities))


def test_figures_carry_no_ballast():
    svg = figures("a")["intervals"]
    assert "<!--" not in svg
    assert "\n " not in svg
    assert re.search(r"[1-9]\.\d{3}", svg) is None


def test_figures_of_a_page_share_the_outlines_of_letters():
    known: dict[str, str] = {}
    first, second = (plots.with_shared_glyphs(figures("a")[kind], known) for kind in ("lines", "intervals"))
    assert first == figures("a")["lines"]
    assert len(second) < len(figures("a")["intervals"])
    both = ElementTree.fromstring(f"<page>{first}{second}</page>")
    names = [element.attrib["id"] for element in both.iter() if "id" in element.attrib]
    assert len(names) == len(set(names))
    for element in both.iter():
        for key, value in element.attrib.items():
            assert not key.endswith("href") or value.removeprefix("#") in names


def test_the_same_data_give_the_same_text():
    assert figures("a") == figures("a")


def test_ink_follows_the_page():
    svg = figures("a")["lines"]
    assert "currentColor" in svg
    assert "<style" not in svg
    assert plots._INK not in svg


@pytest.mark.parametrize(
    "svg",
    [
        lambda: lines({}, "x", "y"),
        lambda: intervals([], "x"),
        lambda: frontier({"a": []}),
        lambda: histogram({"a": [math.nan]}, "x"),
        lambda: heatmap([], [], []),
        lambda: lines({"a": Curve([0.01, 1], [math.nan, math.nan])}, "beta", "y", log_x=True),
        lambda: intervals([IntervalRow("a", Interval(math.nan, math.nan, math.nan, 0), [math.nan])], "x"),
    ],
)
def test_figures_of_nothing_are_figures(svg):
    ElementTree.fromstring(svg())


def test_a_name_keeps_its_colour_and_no_two_share_one():
    names = ["dpo", "cdpo", "rdpo", "ipo", "slic", "simpo", "kto", "orpo", "rpo", "ln-dpo", "sft", "best"]
    chosen = colours(names)
    assert len(set(chosen.values())) == len(names)
    assert set(list(chosen.values())[:6]) == set(plots.PALETTE[:6])
    assert colours(["dpo"])["dpo"] == chosen["dpo"] == colours(["dpo", "other"])["dpo"]


def test_given_colours_are_used():
    svg = lines({"a": Curve([1, 2], [1, 2])}, "x", "y", colours_by_name={"a": "#123abc"})
    assert "#123abc" in svg


def test_a_saved_figure_stands_alone(tmp_path):
    save(figures("a")["lines"], tmp_path / "a.svg")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_ticks_are_put_where_values_were_chosen():
    curve = {"a": Curve([0.02, 0.5], [1, 2])}
    assert lines(curve, "beta", "y", log_x=True, x_ticks=[0.02, 0.5]) != lines(curve, "beta", "y", log_x=True)
