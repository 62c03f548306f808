"""Versions, hardware and revision are read without loading anything heavy."""

import subprocess
import sys

from paperworks.core.surroundings import git_revision, hardware, surroundings, versions


def test_revision_of_a_repository_and_of_none(tmp_path):
    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    revision = git_revision(tmp_path)
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == revision + "+changes"


def test_versions_and_hardware():
    assert versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "numpy"} <= versions().keys()
    assert hardware()["cores"] >= 1
    assert hardware()["processor"]
    assert surroundings().keys() == {"versions", "hardware", "git_revision", "arguments", "working_folder"}


def test_nothing_heavy_is_loaded():
    program = (
        "import sys; from paperworks.core import runs, options, files, progress, surroundings\n"
        "surroundings.surroundings()\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
