"""MkDocs hook: the page of every built paper joins the navigation, so that adding a paper changes no configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Adds docs/papers/<slug>.md to the section "Papers"."""
    papers = next(entry["Papers"] for entry in config["nav"] if "Papers" in entry)
    pages = sorted(path.stem for path in Path(config["docs_dir"], "papers").glob("*.md") if path.stem != "index")
    papers.extend({slug: f"papers/{slug}.md"} for slug in pages)
    return config
