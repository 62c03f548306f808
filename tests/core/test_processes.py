"""A process is known by its number and its start."""

import os
import subprocess
import sys

from paperworks.core.processes import process_identity, process_is_alive


def test_this_process_is_alive_and_keeps_its_identity():
    assert process_is_alive(os.getpid())
    assert process_identity() == process_identity(os.getpid())
    assert process_is_alive(os.getpid(), process_identity() or "")


def test_a_later_process_of_the_same_number_is_another():
    assert not process_is_alive(os.getpid(), "00000000-1")


def test_a_process_that_ended_is_not_alive_even_before_its_parent_looks():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # ends when the process does
    while process_identity(process.pid) is not None:
        pass
    assert not process_is_alive(process.pid)  # a zombie
    process.wait()
    assert not process_is_alive(process.pid)
    assert not process_is_alive(10**12)
