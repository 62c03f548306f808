"""What the machine offers: device, number format, cores, memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    import torch

_DTYPE_NAMES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}


def pick_device(name: str = "auto") -> torch.device:
    """The torch device: "auto" is a GPU where there is one (CUDA, then Apple's MPS), else the CPU.

    Raises OptionError for an unknown name or a device that is not here.
    """
    import torch

    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(
            f"device: {name!r} is not a device{did_you_mean(name, ('auto', 'cpu', 'cuda', 'mps'))}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"device: {name!r} is not here ({torch.cuda.device_count()} CUDA devices); use 'auto' or 'cpu'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("device: 'mps' is not here; use 'auto' or 'cpu'")
    return device


def pick_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """The number format of weights and activations: "auto" is bfloat16 where a GPU computes in it, else float32.

    Raises OptionError for an unknown name, and for float16 on a CPU, which computes in it slower than in float32.
    """
    import torch

    kind = torch.device(device).type
    if name == "auto":
        return torch.bfloat16 if kind == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in _DTYPE_NAMES:
        raise OptionError(f"dtype: {name!r} is not a number format{did_you_mean(name, ('auto', *_DTYPE_NAMES))}")
    if _DTYPE_NAMES[name] == "float16" and kind == "cpu":
        raise OptionError("dtype: float16 needs a GPU; use float32 or bfloat16 on a CPU")
    return getattr(torch, _DTYPE_NAMES[name])


def set_threads(count: int) -> None:
    """Lets torch use `count` threads within an operation in this process."""
    import torch

    torch.set_num_threads(max(1, count))


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where the C library can (glibc).

    Tensors of some megabytes that come and go with every step are otherwise given back to the system and taken anew, page
    by page.
    """
    trim_threshold, mmap_threshold, most = -1, -3, 32 << 20  # glibc maps what is larger than 32 MB, whatever it is told
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_threshold, most)


def cores() -> int:
    """Processor cores that this process may use: its affinity, bounded by a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def peak_memory_bytes(device: Any = None) -> int:
    """Peak memory of this process so far: its allocations on `device` when that is a CUDA device, else host memory."""
    if device is not None and str(device).startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:  # unlike ru_maxrss, VmHWM does not include what the parent had before exec
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _container_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores granted by a cgroup (version 2, then 1), or None where there is no bound."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        granted = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return granted / int((root / "cpu/cpu.cfs_period_us").read_text()) if granted > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
