"""Vectors of queries from a process of its own, so that the server never loads torch: started with the first query, and kept.

One query is in the process at a time. A process that died, or does not answer, is replaced with the next query. One that is
still loading goes on loading when those who asked have waited long enough: on a busy machine a later query finds it ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperworks.catalog.meaning import SIZE
from paperworks.core.errors import ModelError

COMMAND = (sys.executable, "-m", "paperworks.catalog.meaning")
SECONDS_TO_WAIT = 20.0  # a query, for its turn and its answer
SECONDS_TO_LOAD = 120.0  # until the first answer of a process
SECONDS_TO_ANSWER = 5.0  # later
KEPT = 512  # vectors of the last queries
STOPPING = "the server is stopping; search again when it is back"
MOST_LETTERS = 1000  # of a query; the encoder reads fewer


class QueryEncoder:
    """Queries to vectors. One a server, closed with it; `seconds` are those to wait, to load and to answer, in this order."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        seconds: tuple[float, float, float] = (SECONDS_TO_WAIT, SECONDS_TO_LOAD, SECONDS_TO_ANSWER),
    ) -> None:
        self._command = command
        self._to_wait, self._to_load, self._to_answer = seconds
        self._turn = asyncio.Lock()
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._process: asyncio.subprocess.Process | None = None
        self._has_answered = False
        self._exchange: asyncio.Task[None] | None = None
        self._is_closed = False

    async def encode(self, query: str) -> NDArray[np.float32]:
        """The vector [384] of a query, float32, of length 1.

        Raises ModelError where the encoder cannot be loaded, or does not answer in time.
        """
        query = " ".join(query.split())[:MOST_LETTERS]
        if query not in self._kept:
            try:
                async with asyncio.timeout(self._to_wait):
                    await self._asked(query)
            except TimeoutError:
                raise ModelError("search by meaning is not ready yet; search again in a moment") from None
        self._kept.move_to_end(query)
        return self._kept[query]

    async def close(self) -> None:
        """Ends the process. Later queries are refused."""
        self._is_closed = True
        if self._exchange is not None:
            self._exchange.cancel()
            await asyncio.wait({self._exchange})
        await self._end()

    async def _asked(self, query: str) -> None:
        async with self._turn:
            if self._exchange is not None and not self._exchange.done():
                await asyncio.wait({self._exchange})  # whoever asked that has gone, but its answer comes first
            if query in self._kept:
                return
            if self._is_closed:
                raise ModelError(STOPPING)
            # A task of its own: an exchange broken off between question and answer would leave the answer to the next.
            self._exchange = asyncio.create_task(self._exchanged(query))
            self._exchange.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.wait({self._exchange})
            if self._exchange.cancelled():
                raise ModelError(STOPPING)
            self._exchange.result()

    async def _exchanged(self, query: str) -> None:
        """Asks the process and keeps its answer. Whatever goes wrong in between, the process is not used again."""
        try:
            async with asyncio.timeout(self._to_answer if self._is_ready() else self._to_load):
                answer = await self._answer(query)
        except TimeoutError:
            await self._end()
            raise ModelError("search by meaning did not answer in time; search again") from None
        except (OSError, ValueError):  # it died, or what it says is no answer
            await self._end()
            raise ModelError("the process of the search by meaning ended; search again") from None
        except asyncio.CancelledError:
            await self._end()
            raise
        if isinstance(answer, dict):
            raise ModelError(str(answer.get("error")))
        self._has_answered = True
        self._kept[query] = np.asarray(answer, dtype=np.float32)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _is_ready(self) -> bool:
        return self._has_answered and self._process is not None and self._process.returncode is None

    async def _answer(self, query: str) -> list[float] | dict[str, object]:
        if self._process is None or self._process.returncode is not None:
            self._has_answered = False
            self._process = await _started(self._command)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(query).encode() + b"\n")
        await self._process.stdin.drain()
        answer = json.loads(await self._process.stdout.readline())  # nothing, at its end, is not JSON
        if isinstance(answer, dict) or (isinstance(answer, list) and len(answer) == SIZE):
            return answer
        raise ValueError("neither a vector nor an error")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _started(command: Sequence[str]) -> asyncio.subprocess.Process:
    # It needs nothing that this program's variables say, and some of them are secrets.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAPERWORKS_")}
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},  # one sentence is too little for several threads
        start_new_session=True,  # a Ctrl-C in the server's terminal is the server's
    )  # fmt: skip
