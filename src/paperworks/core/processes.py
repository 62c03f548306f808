"""Whether a process that wrote its number down is still there: numbers are used again, so its start time counts too."""

from __future__ import annotations

import os
from pathlib import Path


def process_is_alive(pid: int, identity: str = "") -> bool:
    """Whether that process of this machine is running; with its `identity`, not another that got its number later."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    now = process_identity(pid)
    if now is None:
        return False
    return not identity or not now or now == identity


def process_identity(pid: int | None = None) -> str | None:
    """What tells a process (default: this one) from all others of this machine: its boot and its start time.

    None when it has ended, "" where the system does not say (no /proc).
    """
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        fields = Path(f"/proc/{os.getpid() if pid is None else pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return ""
    state, start_time = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return None if state == "Z" else f"{boot[:8]}-{start_time}"  # a zombie has ended; its parent has not looked yet
