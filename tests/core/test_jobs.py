"""The queue of jobs: whose turn it is, what is true of a job whose process died, what may follow on what."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paperworks.core.errors import RunError
from paperworks.core.jobs import MOST_ATTEMPTS, JobQueue


@pytest.fixture
def queue():
    return JobQueue()


def submit(queue, name, tmp_path):
    return queue.submit(["run", name], "run", name, tmp_path / name)


def die(queue, job):
    """Makes a process that is gone the job's."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with queue._database.transaction(writes=True) as database:
        database.execute("UPDATE jobs SET pid = ?, process = 'gone' WHERE id = ?", (ended.pid, job.id))


def test_jobs_are_claimed_in_the_order_of_their_turn_and_no_more_than_allowed(queue, tmp_path):
    first, second = submit(queue, "a", tmp_path), submit(queue, "b", tmp_path)
    assert queue.claim(most=1).id == first.id
    assert queue.claim(most=1) is None
    assert queue.claim(most=2).id == second.id
    assert queue.claim(most=9) is None


def test_a_job_says_how_it_ended(queue, tmp_path):
    ends = {}
    for code in (0, 2):
        job = submit(queue, f"job{code}", tmp_path)
        queue.claim(most=9)
        queue.began(job.id)
        ends[code] = queue.end(job.id, code, "what was wrong" if code else None)
    assert (ends[0].status, ends[0].exit_code, ends[0].error) == ("finished", 0, None)
    assert (ends[2].status, ends[2].exit_code, ends[2].error) == ("failed", 2, "what was wrong")


def test_a_job_whose_process_died_is_told_as_killed_and_taken_up_again_first(queue, tmp_path):
    first, second = submit(queue, "a", tmp_path), submit(queue, "b", tmp_path)
    queue.claim(most=1)
    die(queue, first)
    assert queue.get(first.id).status == "killed"
    assert queue.claim(most=1).id == first.id
    assert queue.get(first.id).attempts == 2
    assert queue.get(second.id).status == "queued"


def test_a_job_that_keeps_dying_is_left_alone_and_resumes_on_demand(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    for _ in range(MOST_ATTEMPTS):
        assert queue.claim(most=1).id == job.id
        die(queue, job)
    assert queue.claim(most=1) is None
    assert queue.get(job.id).status == "killed"
    queue.resume(job.id)
    assert queue.claim(most=1).id == job.id


def test_cancelling_a_queued_job_takes_it_out_and_a_running_one_is_marked(queue, tmp_path):
    running, waiting = submit(queue, "a", tmp_path), submit(queue, "b", tmp_path)
    queue.claim(most=1)
    assert queue.cancel(waiting.id).status == "cancelled"
    marked = queue.cancel(running.id)
    assert (marked.status, marked.is_cancelled) == ("running", True)
    assert queue.end(running.id, 130).status == "cancelled"


def test_a_cancelled_job_whose_process_died_is_not_taken_up_again(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    queue.claim(most=1)
    queue.cancel(job.id)
    die(queue, job)
    assert queue.claim(most=1) is None
    assert queue.get(job.id).status == "cancelled"


def test_one_folder_has_one_job_at_a_time(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    with pytest.raises(RunError, match="has this folder and has not ended"):
        submit(queue, "a", tmp_path)
    queue.cancel(job.id)
    again = submit(queue, "a", tmp_path)
    with pytest.raises(RunError, match=again.id):
        queue.resume(job.id)


def test_only_what_was_stopped_or_failed_resumes(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    with pytest.raises(RunError, match="is queued"):
        queue.resume(job.id)
    with pytest.raises(RunError, match="no job"):
        queue.resume("feed")


def test_an_ended_job_is_forgotten_with_its_log_and_a_running_one_not(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    queue.log(job.id).write_text("printed\n")
    with pytest.raises(RunError, match="cancel it first"):
        queue.forget(job.id)
    queue.cancel(job.id)
    queue.forget(job.id)
    assert not queue.log(job.id).parent.exists()
    assert queue.list() == []


def test_two_servers_never_claim_the_same_job(queue, tmp_path):
    jobs = {submit(queue, f"job{number}", tmp_path).id for number in range(12)}
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        claimed = [job_id for found in pool.map(_claim_all, [str(queue._database.path.parent)] * 3) for job_id in found]
    assert sorted(claimed) == sorted(jobs)


def _claim_all(home):
    queue = JobQueue(Path(home))
    found = []
    while (job := queue.claim(most=99)) is not None:
        found.append(job.id)
        queue.began(job.id)
        queue.end(job.id, 0)
    return found


def test_the_process_of_a_job_runs_its_command_line_and_writes_down_the_end(queue, tmp_path):
    job = queue.submit(["show", "rdpo", "--json"], "show", "rdpo", tmp_path / "folder")
    queue.claim(most=1)
    log = queue.log(job.id)
    with log.open("wb") as out:
        subprocess.run([sys.executable, "-m", "paperworks.cli.work", job.id], stdout=out, stderr=out, check=True)
    assert queue.get(job.id).status == "finished"
    assert '"slug": "rdpo"' in log.read_text()


def test_a_job_with_a_mistake_keeps_its_one_line(queue, tmp_path):
    job = queue.submit(["show", "rdpoo"], "show", "rdpoo", tmp_path / "folder")
    queue.claim(most=1)
    with queue.log(job.id).open("wb") as out:
        code = subprocess.run([sys.executable, "-m", "paperworks.cli.work", job.id], stdout=out, stderr=out).returncode
    assert code == 2
    assert queue.get(job.id).status == "failed"
    assert queue.get(job.id).error == "no paper named 'rdpoo' (did you mean 'rdpo'?)"


def test_a_killed_process_is_seen_at_once(queue, tmp_path):
    job = submit(queue, "a", tmp_path)
    queue.claim(most=1)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with queue._database.transaction(writes=True) as database:
        database.execute("UPDATE jobs SET pid = ?, process = '' WHERE id = ?", (sleeper.pid, job.id))
    assert queue.get(job.id).status == "running"
    os.kill(sleeper.pid, signal.SIGKILL)
    sleeper.wait()
    assert queue.get(job.id).status == "killed"
