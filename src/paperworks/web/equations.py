"""TeX as MathML, which browsers set themselves: no script, no font, no network."""

from __future__ import annotations

import functools
import re
from xml.etree import ElementTree

from markupsafe import Markup, escape

_NAMESPACE = "http://www.w3.org/1998/Math/MathML"
# The elements of MathML Core that the converter makes. It passes the letters of \text{…} through as they are, so that
# anything else in what it returns is text that was taken for an element.
_ELEMENTS = re.compile(
    r"math|mrow|mi|mo|mn|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mtable|mtr|mtd|"
    r"mstyle|mpadded|mphantom|mmultiscripts|mprescripts|menclose"
)
_ATTRIBUTES = re.compile(
    r"display|mathvariant|stretchy|fence|form|accent|accentunder|lspace|rspace|minsize|maxsize|symmetric|largeop|"
    r"movablelimits|linethickness|column(align|spacing|lines)|row(spacing|lines)|width|height|depth|displaystyle|"
    r"scriptlevel|separator|notation"
)

ElementTree.register_namespace("", _NAMESPACE)


@functools.lru_cache(maxsize=4096)
def mathml(tex: str, *, block: bool = False) -> Markup:
    """A formula as a MathML element; TeX that cannot be converted is shown as it stands, as code."""
    from latex2mathml.converter import convert

    try:
        root = ElementTree.fromstring(convert(tex, display="block" if block else "inline"))
    except Exception:  # the converter raises what it meets; a formula must not hide the page around it
        return Markup("<code>{}</code>").format(tex)
    for element in root.iter():
        if not _ELEMENTS.fullmatch(element.tag.removeprefix(f"{{{_NAMESPACE}}}")):
            return Markup("<code>{}</code>").format(tex)
        for name in [name for name in element.attrib if not _ATTRIBUTES.fullmatch(name)]:
            del element.attrib[name]
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def with_formulas(text: str) -> Markup:
    """A text with TeX between $…$ as HTML: formulas as MathML, the rest escaped."""
    pieces = text.split("$")
    return Markup("").join(mathml(piece) if at % 2 else escape(piece) for at, piece in enumerate(pieces))
