"""What a result may depend on besides its options: versions, hardware, the revision of the code."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("paperworks", "torch", "transformers", "accelerate", "peft", "datasets", "numpy", "scipy")


def surroundings() -> dict[str, Any]:
    """Versions, hardware, git revision of the working folder, and arguments: what a result may depend on."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "git_revision": git_revision(),
        "arguments": sys.argv[1:],
        "working_folder": str(Path.cwd()),
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on, read without importing them."""
    import importlib.metadata
    import platform

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and (where torch is loaded already) GPUs of this machine."""
    import platform

    from paperworks.core.devices import cores

    found: dict[str, Any] = {"system": platform.platform(), "processor": _processor(), "cores": cores()}
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def git_revision(folder: str | Path = ".") -> str | None:
    """The commit checked out in `folder` ("+changes" where files differ from it), or None outside a repository."""
    import subprocess

    try:
        revision = _git("rev-parse", "HEAD", folder=folder)
        return revision + ("+changes" if _git("status", "--porcelain", "--untracked-files=no", folder=folder) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str, folder: str | Path) -> str:
    import subprocess

    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def _processor() -> str:
    import platform

    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
