"""What `from paperworks.language import …` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import paperworks.language


def test_every_public_name_is_there() -> None:
    for name in paperworks.language.__all__:
        assert getattr(paperworks.language, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Polcy"):
        paperworks.language.Polcy  # noqa: B018


def test_reading_data_does_not_load_torch() -> None:
    code = "import sys; from paperworks.language import read; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
