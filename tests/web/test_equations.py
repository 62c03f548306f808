"""Formulas: those of every card are set, and nothing but a formula comes out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from paperworks.catalog import Catalog
from paperworks.web.equations import mathml, with_formulas

CARDS = Catalog.open().cards()


@pytest.mark.parametrize("card", CARDS, ids=[card.slug for card in CARDS])
def test_every_formula_of_a_card_is_set(card):
    inline = [piece for equation in card.equations for piece in equation.where.split("$")[1::2]]
    assert card.equations, "a paper's page shows its method in formulas"
    assert all(equation.where.count("$") % 2 == 0 for equation in card.equations)
    for tex in (*(equation.tex for equation in card.equations), *inline):
        shown = mathml(tex)
        assert shown.startswith("<math"), tex
        assert not re.search(r"\\[A-Za-z]|[&](?!amp;|lt;|gt;|#)", "".join(ElementTree.fromstring(shown).itertext())), (
            tex
        )


def test_a_fraction_is_a_fraction():
    root = ElementTree.fromstring(mathml(r"\frac{a}{b}", block=True))
    assert root.get("display") == "block"
    assert root.find(".//{*}mfrac") is not None


def test_what_is_no_formula_is_shown_as_text():
    assert mathml(r"\text{<script>alert(1)</script>}") == (r"<code>\text{&lt;script&gt;alert(1)&lt;/script&gt;}</code>")
    assert mathml(r"\frac{a}").startswith(("<code>", "<math"))


def test_attributes_are_those_of_formulas():
    assert "href" not in mathml(r"\href{javascript:alert(1)}{x}") or mathml(
        r"\href{javascript:alert(1)}{x}"
    ).startswith("<code>")


def test_a_text_keeps_its_letters_between_formulas():
    shown = with_formulas("a < b where $x$ is <i>one</i>")
    assert shown.startswith("a &lt; b where <math") and shown.endswith("is &lt;i&gt;one&lt;/i&gt;")
