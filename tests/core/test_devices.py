"""Devices and number formats by name; cores within a container's quota."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from paperworks.core import devices
from paperworks.core.devices import cores, peak_memory_bytes, pick_device, pick_dtype, set_threads
from paperworks.core.errors import OptionError


def test_cpu_is_always_there_and_auto_finds_something():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device() == pick_device("auto")


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "'gpu' is not a device"), ("cuda:99", "is not here"), ("cpuu", "did you mean 'cpu'")]
)
def test_a_device_that_is_not_there_is_an_option_error(name, message):
    with pytest.raises(OptionError, match=message):
        pick_device(name)


def test_number_formats():
    assert pick_dtype("auto", "cpu") == torch.float32
    assert pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert pick_dtype("float16", "cuda") == torch.float16
    with pytest.raises(OptionError, match="did you mean 'bfloat16'"):
        pick_dtype("bfloat", "cpu")
    with pytest.raises(OptionError, match="float16 needs a GPU"):
        pick_dtype("fp16", "cpu")


def test_threads_are_set_and_never_zero():
    before = torch.get_num_threads()
    set_threads(0)
    assert torch.get_num_threads() == 1
    set_threads(before)


def test_cores_respect_affinity_and_quota(tmp_path, monkeypatch):
    assert 1 <= cores() <= (os.cpu_count() or 1)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert devices._container_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices._container_quota(tmp_path) is None
    assert devices._container_quota(tmp_path / "none") is None
    monkeypatch.setattr(devices, "_container_quota", lambda: 0.5)
    assert cores() == 1


def test_peak_memory_grows_by_what_is_held():
    before = peak_memory_bytes()
    block = np.ones(100_000_000, dtype=np.uint8)
    assert peak_memory_bytes() >= before
    assert peak_memory_bytes() > block.nbytes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc's malloc")
def test_memory_that_is_freed_is_kept_for_the_next_step():
    """Two large arrays that come and go together: their pages are faulted in once, not every time."""
    program = (
        "import resource; from paperworks.core.devices import keep_freed_memory; {}\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "step = lambda: (bytearray(b'x') * (16 << 20), bytearray(b'x') * (16 << 20), bytearray(b'x') * (16 << 20))\n"
        "for _ in range(3): step()\n"
        "before = faults()\n"
        "for _ in range(10): step()\n"
        "print(faults() - before)"
    )
    counted = [
        int(subprocess.run([sys.executable, "-c", program.format(call)], capture_output=True, check=True).stdout)
        for call in ("", "keep_freed_memory()")
    ]
    assert counted[1] < 1000 < counted[0]
