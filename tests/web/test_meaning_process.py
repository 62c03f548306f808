"""The process that encodes queries: started when needed, kept, replaced, and never answering another's query."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from paperworks.core.errors import ModelError
from paperworks.web.meaning_process import KEPT, QueryEncoder

# Stands for the encoder: a query's vector begins with its length; each start and each query is written down.
CHILD = """
    import json, os, sys, time
    log = open(sys.argv[1], "a", buffering=1)
    print("started", file=log)
    {before}
    for line in sys.stdin:
        query = json.loads(line)
        print(query, file=log)
        if query == "die":
            sys.exit(1)
        if query == "hang":
            time.sleep(60)
        if query == "wait":
            time.sleep(0.2)
        answer = {{"error": "cannot be loaded"}} if query == "fail" else [len(query)] + [0] * 383
        print("gibberish" if query == "gibberish" else json.dumps(answer), flush=True)
"""
Use = Callable[[QueryEncoder], Awaitable[None]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def use(log: Path, what: Use, before: str = "", seconds: tuple[float, float, float] = (20, 20, 20)) -> list[str]:
    """Does `what` with an encoder that is closed afterwards. Returns what its processes wrote down."""

    async def with_encoder() -> None:
        program = textwrap.dedent(CHILD).format(before=before)
        encoder = QueryEncoder([sys.executable, "-c", program, str(log)], seconds)
        try:
            await what(encoder)
        finally:
            await encoder.close()

    asyncio.run(with_encoder())
    return log.read_text().splitlines() if log.exists() else []


async def refused(encoder: QueryEncoder, query: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        await encoder.encode(query)


def test_nothing_is_started_before_the_first_query(log: Path) -> None:
    async def nothing(encoder: QueryEncoder) -> None:
        pass

    assert use(log, nothing) == []


def test_one_process_answers_all_queries_and_each_only_once(log: Path) -> None:
    async def several(encoder: QueryEncoder) -> None:
        for query in ("noisy", "noisy labels", " noisy \n labels", "noisy"):
            vector = await encoder.encode(query)
            assert vector.dtype == np.float32
            assert vector[0] == len(" ".join(query.split()))

    assert use(log, several) == ["started", "noisy", "noisy labels"]


def test_queries_at_the_same_time_get_their_own_answers(log: Path) -> None:
    async def together(encoder: QueryEncoder) -> None:
        words = ["a" * length for length in (5, 3, 9, 3)]
        assert [vector[0] for vector in await asyncio.gather(*map(encoder.encode, words))] == [5, 3, 9, 3]

    assert len(use(log, together)) == 1 + 3


def test_the_oldest_vectors_are_dropped(log: Path) -> None:
    async def many(encoder: QueryEncoder) -> None:
        for number in range(KEPT + 1):
            await encoder.encode(f"query {number}")
        await encoder.encode("query 0")
        await encoder.encode(f"query {KEPT}")

    queries = use(log, many)
    assert queries.count("query 0") == 2
    assert queries.count(f"query {KEPT}") == 1


@pytest.mark.parametrize("trouble", ["die", "gibberish"])
def test_a_process_that_died_or_talks_nonsense_is_replaced(log: Path, trouble: str) -> None:
    async def after_trouble(encoder: QueryEncoder) -> None:
        await encoder.encode("before")
        await refused(encoder, trouble, "ended; search again")
        assert (await encoder.encode("after"))[0] == 5

    assert use(log, after_trouble) == ["started", "before", trouble, "started", "after"]


def test_a_process_that_hangs_is_replaced(log: Path) -> None:
    async def after_hanging(encoder: QueryEncoder) -> None:
        await encoder.encode("before")
        await refused(encoder, "hang", "did not answer in time")
        assert (await encoder.encode("after"))[0] == 5

    assert use(log, after_hanging, seconds=(20, 20, 0.05)) == ["started", "before", "hang", "started", "after"]


def test_a_reason_is_passed_on_and_the_process_kept(log: Path) -> None:
    async def failing(encoder: QueryEncoder) -> None:
        await refused(encoder, "fail", "^cannot be loaded$")
        await encoder.encode("after")

    assert use(log, failing) == ["started", "fail", "after"]


def test_loading_goes_on_when_nobody_waits_any_longer(log: Path) -> None:
    async def impatient(encoder: QueryEncoder) -> None:
        await refused(encoder, "wait", "not ready yet")
        encoder._to_wait = 20
        assert (await encoder.encode("wait, again"))[0] == 11

    assert use(log, impatient, seconds=(0.05, 20, 20)) == ["started", "wait", "wait, again"]


def test_a_query_that_is_broken_off_leaves_its_answer_to_nobody_else(log: Path) -> None:
    async def broken_off(encoder: QueryEncoder) -> None:
        await encoder.encode("before")
        asked = asyncio.create_task(encoder.encode("wait"))
        await asyncio.sleep(0.05)
        asked.cancel()
        assert (await encoder.encode("another"))[0] == 7

    assert use(log, broken_off) == ["started", "before", "wait", "another"]


def test_closing_ends_what_is_going_on_and_refuses_the_rest(log: Path) -> None:
    async def closed(encoder: QueryEncoder) -> None:
        asked = asyncio.create_task(refused(encoder, "hang", "the server is stopping"))
        while not (log.exists() and "hang" in log.read_text()):
            await asyncio.sleep(0.01)
        await encoder.close()
        await asked
        await refused(encoder, "later", "the server is stopping")

    assert use(log, closed) == ["started", "hang"]


def test_the_process_is_told_no_secrets(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERWORKS_TOKEN", "secret")

    async def one(encoder: QueryEncoder) -> None:
        await encoder.encode("query")

    assert "None" in use(log, one, before='print(os.environ.get("PAPERWORKS_TOKEN"), file=log)')
