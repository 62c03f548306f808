"""Ctrl-C as a question asked between two steps of work, so that the step in progress is finished and saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag to look at between steps; the second one acts at once."""
    seen = threading.Event()
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a background job of a shell: leave it so
    if is_ignored or threading.current_thread() is not threading.main_thread():
        yield seen.is_set
        return

    def handle(number: int, frame: Any) -> None:
        if seen.is_set():
            raise KeyboardInterrupt
        seen.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield seen.is_set
    finally:
        signal.signal(signal.SIGINT, before)
