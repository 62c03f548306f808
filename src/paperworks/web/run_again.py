"""A run once more: the command line that repeats it from its run.yaml into a new folder. Nothing here starts it."""

from __future__ import annotations

import re
from pathlib import Path

from paperworks.core.errors import OptionError, RunError
from paperworks.core.runs import RunRecord
from paperworks.web.orders import VERBS, Order
from paperworks.web.rooms import Rooms


def again(shared: Rooms, record: RunRecord) -> Order:
    """The command line that repeats a run.

    Its run.yaml names data, models, and files of Python, so it must lie under the server's own folders. Raises OptionError
    where it does not, or for a verb that the page does not start; RunError where there is no run.yaml.
    """
    config = record.folder / "run.yaml"
    if record.verb not in VERBS:
        raise OptionError(
            f"{record.verb} is not started from here; type: paperworks {record.verb} --config {config} --out NEWFOLDER"
        )
    if not config.is_file():
        raise RunError(f"run {record.id}: its run.yaml is gone, so it cannot be repeated; fill in the form anew")
    real = config.resolve()
    if not any(real.is_relative_to(root) for root in shared.folders.roots):
        raise OptionError(
            f"{record.folder}: not under the folders of this server, so it is not repeated from here; start the server with "
            f"--folder DIR, or type: paperworks {record.verb} --config {config} --out NEWFOLDER"
        )
    return Order(record.verb, record.name, (record.verb, f"--config={real}"), free_folder(shared, record.folder.name))


def free_folder(shared: Rooms, name: str) -> Path:
    """A folder for runs of this server, named like another with a number behind it, that no run and no open job has."""
    runs = shared.settings.runs
    taken = {job.folder for job in shared.queue.list() if not job.has_ended}
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:120] or "run"
    counted = re.fullmatch(r"(.+)-[0-9]{1,3}", plain)
    if counted and (runs / counted[1]).exists():  # the second of that one: this is its third
        plain = counted[1]
    number = 2
    while (folder := (runs / f"{plain}-{number}").absolute()) in taken or folder.exists():
        number += 1
    return folder
