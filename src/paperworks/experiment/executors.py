"""Where jobs run: in this process, or in parallel spawned ones. A cluster joins by meeting `Executor`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol


class Job(Protocol):
    """Something submitted."""

    def result(self) -> Any:
        """What the function returned; raises what it raised."""


class Executor(Protocol):
    """The one seam between the runner and the machines: functions and arguments must be picklable."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Job:
        """Queues a call."""

    def as_completed(self, jobs: Collection[Any]) -> Iterator[Any]:
        """The jobs in the order in which they end."""

    def shutdown(self, *, cancel: bool = False) -> None:
        """Frees everything; with `cancel` running jobs are stopped rather than awaited."""


class SerialExecutor:
    """Runs each job in this process when it is waited for."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Job:
        return _LaterCall(function, arguments)

    def as_completed(self, jobs: Collection[Any]) -> Iterator[Any]:
        for job in jobs:
            job.run()
            yield job

    def shutdown(self, *, cancel: bool = False) -> None:
        """Nothing is left running."""


class ProcessExecutor:
    """Runs jobs in `workers` spawned processes with `threads` torch threads each.

    The workers leave Ctrl-C to the parent, and end by themselves when the parent is killed.
    """

    def __init__(self, workers: int, threads: int = 1) -> None:
        self._workers, self._threads = workers, threads
        self._pool = self._new_pool()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Job:
        with _interrupts_ignored():  # the workers that this starts inherit it
            try:
                return self._pool.submit(_call, self._threads, function, arguments)
            except BrokenProcessPool:  # a worker died, and with it every job under way; go on with new workers
                self._pool.shutdown(wait=False)
                self._pool = self._new_pool()
                return self._pool.submit(_call, self._threads, function, arguments)

    def as_completed(self, jobs: Collection[Any]) -> Iterator[Any]:
        return concurrent.futures.as_completed(jobs)

    def shutdown(self, *, cancel: bool = False) -> None:
        # The pool has no public way to stop running calls before Python 3.14.
        processes = list((getattr(self._pool, "_processes", None) or {}).values()) if cancel else []
        self._pool.shutdown(wait=not cancel, cancel_futures=cancel)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()

    def _new_pool(self) -> concurrent.futures.ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return concurrent.futures.ProcessPoolExecutor(
            self._workers, context, _begin_worker, (self._threads, os.getpid())
        )


class _LaterCall:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function, self._arguments = function, arguments
        self._value: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._value = self._function(*self._arguments)
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin_worker(threads: int, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # read by libraries that are loaded from here on
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    # A killed parent cannot stop its workers, and they would wait for work for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if "torch" in sys.modules:  # loaded with the function's module; too late for the environment
        from paperworks.core.devices import set_threads

        set_threads(threads)
    return function(*arguments)
