"""What counts as an e-mail address: one mailbox, as people have them. No mail server or name server is asked."""

from __future__ import annotations

import re

from paperworks.core.errors import OptionError

_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def checked_address(text: str) -> str:
    """One mailbox, its domain in lower case and ASCII (IDNA). Raises OptionError for lists, names, quotes, controls."""
    address = text.strip(" ")
    local, at, domain = address.rpartition("@")
    problem = OptionError("that is no e-mail address; expected one like name@example.org")
    if not at or len(address) > 254 or len(local) > 64 or not _LOCAL_PART.fullmatch(local):
        raise problem
    try:
        plain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise problem from None
    labels = plain.split(".")
    if len(f"{local}@{plain}") > 254 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise problem
    if len(labels) < 2 and plain != "localhost":  # name@gmail, a slip of the hand
        raise problem
    return f"{local}@{plain}"
