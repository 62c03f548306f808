"""axe-core in a page: what would keep people from reading or using it, by the WCAG 2.1 rules of level A and AA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
GRAVE = ("serious", "critical")


def barriers(page: Page) -> list[str]:
    """One line for each serious or critical finding: the rule, where, and what axe says. Skips where axe is not installed."""
    if not SCRIPT.is_file():
        pytest.skip("axe-core is not installed: npm ci --ignore-scripts, in tests/browser")
    page.evaluate(SCRIPT.read_text(encoding="utf-8"))  # as a debugger does, which the page's policy does not concern
    found = page.evaluate("rules => axe.run(document, {runOnly: rules, iframes: false})", RULES)
    return [
        f"{violation['id']}: {' '.join(map(str, node['target']))}: {' '.join(node['failureSummary'].split())}"
        for violation in found["violations"]
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
