"""What trained networks say of the log that they learned from stands in the report of the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paperworks.cli.main import main


def test_a_run_of_a2pr_reports_the_quality_of_its_data(
    arrays: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn_figures: None
) -> None:
    np.savez(tmp_path / "log.npz", **arrays)  # type: ignore[arg-type]
    widths = [f"--{name}=8" for name in ("hidden", "critic-hidden", "vae-hidden")]
    command = ["train", "a2pr", "--data", str(tmp_path / "log.npz"), "--steps", "4", "--batch-size", "16", *widths]
    assert main([*command, "--seeds", "2", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    (section,) = json.loads((tmp_path / "run" / "results.json").read_text())["sections"]
    shares = [float(value.rstrip("%")) for name, value in section["facts"].items() if name.startswith("states")]
    assert section["title"] == "Quality of the data" and sum(shares) == pytest.approx(100, abs=0.2)
    assert "Quality of the data" in (tmp_path / "run" / "report.html").read_text()
    assert main([*command, "--mask", "-1", "--out", str(tmp_path / "other")]) == 2
    assert "mask" in capsys.readouterr().err
