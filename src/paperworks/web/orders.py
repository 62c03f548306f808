"""From a filled-in form to a job: the command line it stands for, checked by the command itself, put into the queue."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paperworks.core.errors import OptionError
from paperworks.core.jobs import Job
from paperworks.core.runs import default_folder
from paperworks.web.children import answer_of
from paperworks.web.forms import Typed, words
from paperworks.web.rooms import Rooms

VERBS = ("run", "train", "compare")
CHECK_SECONDS = 120.0


@dataclass(frozen=True)
class Order:
    """A command line that may be run: `arguments` are those behind `paperworks`, without the folder of the run."""

    verb: str
    name: str
    arguments: tuple[str, ...]
    folder: Path

    @property
    def whole(self) -> tuple[str, ...]:
        """The arguments with the folder."""
        return (*self.arguments, f"--out={self.folder}")

    def command_line(self) -> str:
        """What one would type for it in a terminal."""
        return shlex.join(["paperworks", *self.arguments])


async def order(shared: Rooms, verb: str, names: Sequence[str], typed: Typed) -> Order:
    """The command line of a filled-in form.

    `names` are the paper of `run`, the method of `train`, what `compare` compares. Raises OptionError for anything that
    the command's description refuses; what only the command itself can tell, `check` asks.
    """
    command = await command_of(shared, verb, names)
    description = await shared.descriptions.of(command)
    options = words(description, typed, shared.folders)
    arguments = (verb, *names, *options)
    name = "-".join(names)
    if verb == "run":
        folder = shared.settings.runs / f"{names[0]}-{typed.first('budget') or 'small'}"
    elif verb == "compare":  # the same command goes on where it was stopped
        digest = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:8]
        folder = shared.settings.runs / f"compare-{name[:80]}-{digest}"
    else:
        folder = default_folder(verb, name, within=shared.settings.runs)
    return Order(verb, name, arguments, folder)


async def command_of(shared: Rooms, verb: str, names: Sequence[str]) -> str:
    """Under which name the command's options are described. Raises OptionError for an unknown paper or method."""
    if verb not in VERBS:
        raise OptionError(f"the verb {verb!r} has no form here (known: {', '.join(VERBS)})")
    if verb == "run":
        if len(names) != 1:
            raise OptionError("run: expected one paper")
        card = shared.freshness.catalog().card(names[0])
        if not card.usable:
            raise OptionError(f"{card.slug}: its experiment is not in this version yet, only its card")
        return "run"
    methods = await shared.descriptions.methods()
    for name in names:
        if name not in methods:
            raise OptionError(f"no method named {name!r}; the form of `compare` lists them")
    if verb == "train":
        if len(names) != 1:
            raise OptionError("train: expected one method")
        return f"train {names[0]}"
    if not names:
        raise OptionError("compare: choose what to compare")
    if len(set(names)) < len(names):
        raise OptionError("compare: a method is there twice; name each once")
    is_of_control = {methods[name]["family"] == "log" for name in names}
    if len(is_of_control) > 1:
        raise OptionError("compare: control policies from logs are compared among themselves; choose one kind")
    return "compare td3-bc" if is_of_control == {True} else "compare"


async def check(shared: Rooms, wanted: Order) -> None:
    """Lets the command itself check everything that it checks before it computes. Raises RunError with what it says."""
    words = ("paperworks", *wanted.whole, "--dry-run")
    await answer_of(*words, what="checking the options", seconds=CHECK_SECONDS, folder=shared.settings.runs)


async def place(shared: Rooms, wanted: Order) -> Job:
    """Checks an order and puts it into the queue. Raises RunError where it is refused, or its folder is taken."""
    await check(shared, wanted)
    return shared.queue.submit(wanted.whole, wanted.verb, wanted.name, wanted.folder)
