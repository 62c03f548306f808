"""A page holds what was put in, escapes it all, and asks for nothing from outside."""

import re
from html.parser import HTMLParser

import pytest

from paperworks.core.plots import Curve, lines
from paperworks.core.report import Finding, Page

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}"


class Reader(HTMLParser):
    """Collects tags, attributes and text as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def full_page(name: str) -> Page:
    return (
        Page(name, name)
        .text(f"first `{name}`\n\nsecond")
        .section(name, name)
        .note(name)
        .callout(name, [name])
        .callout(name, [name, name], kind="warning")
        .table([name, "n"], [[name, 1], ["b", 2]], caption=name, highlight=[(0, 1)], right=["n"])
        .figure(lines({name: Curve([1, 2], [1, 2])}, name, name), name)
        .section("Claims")
        .verdicts([Finding(name, "holds", name, name), Finding("c", "not tested")])
        .section("Facts")
        .facts({name: name})
        .commands([name])
    )


def test_hostile_names_are_text_everywhere():
    reader = Reader(full_page(HOSTILE).render())
    assert not {"img", "script"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert reader.text.count(HOSTILE) >= 18
    assert "49" not in re.sub(r"\d\d:\d\d", "", reader.text)


def test_nothing_is_loaded_from_outside():
    html = full_page("a").render()
    links = [value for name, value in Reader(html).attributes if name in ("src", "href", "xlink:href", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []


def test_content_is_there_in_order():
    page = (
        Page("rDPO")
        .section("Results", "One.\n\nTwo with `code`.")
        .table(["arm", "gap"], [["dpo", "0.4"], ["rdpo", "0.1"]], highlight=[(1, 1)], right=["gap"])
    )
    html = page.render()
    assert "<p>One.</p>" in html
    assert "Two with <code>code</code>." in html
    assert re.search(r'<td class="right bold">\s*0.1</td>', html)
    assert html.index("dpo") < html.index("0.1")


def test_contents_are_listed_when_there_are_several_sections():
    assert "<nav" not in Page("a").section("One").render()
    html = full_page("a").render()
    anchors = re.findall(r'<a href="#([\w-]+)"', html)
    assert len(anchors) == 3
    assert all(f'<section id="{anchor}">' in html for anchor in anchors)


def test_a_verdict_is_marked_by_word_and_sign_not_by_colour_alone():
    text = Reader(
        Page("a").verdicts([Finding("x", "holds"), Finding("y", "reversed"), Finding("z", "not shown")]).render()
    ).text
    assert "✓ holds x" in text
    assert "✗ reversed y" in text
    assert "○ not shown z" in text


@pytest.mark.parametrize("svg", ["<b>no</b>", "<svg><script>1</script></svg>", '<svg onload="alert(1)"></svg>', "<svg"])
def test_a_figure_must_be_plain_svg(svg):
    with pytest.raises(ValueError, match="a figure is SVG text without scripts"):
        Page("a").figure(svg)


def test_save_writes_the_page(tmp_path):
    path = Page("ü").save(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
