"""The command line, in this process."""

import pytest


@pytest.fixture(autouse=True)
def quick_figures(undrawn_figures: None) -> None:
    """Commands write reports; how a figure looks is not what is tested here."""
