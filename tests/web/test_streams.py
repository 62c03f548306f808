"""A job followed: whole lines, each once, from where one left off, its files read once for all who follow."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from paperworks.core.jobs import JobQueue
from paperworks.web import streams
from paperworks.web.streams import Streams


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(streams, "SECONDS_BETWEEN_LOOKS", 0.01)
    return JobQueue()


@pytest.fixture
def job(queue, tmp_path):
    job = queue.submit(["run", "a"], "run", "a", tmp_path / "a")
    queue.claim(most=1)
    return queue.began(job.id)


def of(kind, events):
    """What events of a kind carry."""
    found = [re.findall(r"^data: (.*)$", event, re.MULTILINE) for event in events if f"event: {kind}\n" in event]
    return [json.loads(data[0]) for data in found]


async def collect(stream):
    return [event async for event in stream]


def test_a_job_that_has_ended_is_told_whole_and_the_stream_ends(queue, job):
    queue.log(job.id).write_text("one\ntwo, and no end of line")
    queue.progress(job.id).write_text('{"bars": [],\n "said": []}')
    queue.end(job.id, 2, "what was wrong")
    events = asyncio.run(collect(Streams(queue).follow(queue.get(job.id))))
    assert "".join(of("log", events)) == "one\ntwo, and no end of line"
    assert of("progress", events) == [{"bars": [], "said": []}]
    assert of("state", events)[-1] == {"status": "failed", "has_ended": True, "error": "what was wrong"}


def test_lines_arrive_whole_as_they_are_printed(queue, job):
    async def follow():
        stream = Streams(queue).follow(job)
        task = asyncio.create_task(collect(stream))
        for piece in ("fir", "st\nsec", "ond\n"):
            await asyncio.sleep(0.05)
            with queue.log(job.id).open("a") as log:
                log.write(piece)
        await asyncio.sleep(0.05)
        queue.end(job.id, 0)
        return await task

    assert of("log", asyncio.run(follow())) == ["first\n", "second\n"]


def test_one_goes_on_where_one_left_off(queue, job):
    queue.log(job.id).write_text("eins\nzwei ä\ndrei\n")
    queue.end(job.id, 0)
    first = asyncio.run(collect(Streams(queue).follow(queue.get(job.id))))
    end = int(re.findall(r"^id: (\d+)$", first[-1], re.MULTILINE)[0])
    assert end == len("eins\nzwei ä\ndrei\n".encode())
    again = asyncio.run(collect(Streams(queue).follow(queue.get(job.id), place=len("eins\n"))))
    assert "".join(of("log", again)) == "zwei ä\ndrei\n"


def test_a_place_that_the_log_has_not_begins_it_anew(queue, job):
    queue.log(job.id).write_text("short\n")
    queue.end(job.id, 0)
    events = asyncio.run(collect(Streams(queue).follow(queue.get(job.id), place=10**9)))
    assert of("log", events) == ["short\n"]


def test_of_a_long_log_the_end_is_told(queue, job, monkeypatch):
    monkeypatch.setattr(streams, "LONGEST_LOG", 100)
    queue.log(job.id).write_text("".join(f"line {number}\n" for number in range(1000)))
    queue.end(job.id, 0)
    text = "".join(of("log", asyncio.run(collect(Streams(queue).follow(queue.get(job.id))))))
    assert text.endswith("line 999\n") and len(text) <= 100


def test_many_who_follow_share_one_look_at_the_files(queue, job, monkeypatch):
    looks = []
    as_always = JobQueue.get
    monkeypatch.setattr(JobQueue, "get", lambda self, job_id: looks.append(1) or as_always(self, job_id))

    async def follow():
        shared = Streams(queue)
        tasks = [asyncio.create_task(collect(shared.follow(job))) for _ in range(200)]
        await asyncio.sleep(0.1)
        assert shared.followers == 200
        queue.end(job.id, 0)
        told = await asyncio.gather(*tasks)
        assert shared.followers == 0
        return told

    told = asyncio.run(follow())
    assert all(of("state", events)[-1]["status"] == "finished" for events in told)
    assert len(looks) < 200


def test_a_server_that_stops_ends_its_streams(queue, job):
    async def follow():
        shared = Streams(queue)
        task = asyncio.create_task(collect(shared.follow(job)))
        await asyncio.sleep(0.05)
        shared.close()
        return await asyncio.wait_for(task, 5)

    assert of("state", asyncio.run(follow()))[-1]["status"] == "running"
