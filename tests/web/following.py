"""What the tests of following share: recorded results to change, and real SMTP servers on loopback."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import re
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from paperworks.catalog import Catalog
from paperworks.web import freshness

PUBLIC = "https://papers.example.org"  # where others reach the page
INTERVAL = {"mean": 0.2, "low": 0.1, "high": 0.3}


def record(results: Path, slug: str, verdicts: dict[str, str], date: str = "2026-02-03") -> None:
    """A recorded experiment with these claims and verdicts."""
    results.mkdir(exist_ok=True)
    claims = [
        {"text": text, "verdict": verdict, "evidence": "+0.2", "interval": INTERVAL}
        for text, verdict in verdicts.items()
    ]
    content = {"budget": "small", "date": date, "seeds": {"A": [0, 1, 2]}, "claims": claims}
    (results / f"{slug}.json").write_text(json.dumps(content))


def install_results(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """Makes a folder the one whose records the installation has."""
    as_always = Catalog.open
    monkeypatch.setattr(
        Catalog, "open", classmethod(lambda cls, cards=None, results=results: as_always(cards, results))
    )
    monkeypatch.setattr(freshness, "results_folder", lambda: results)
    monkeypatch.setattr(freshness, "SECONDS", 0.0)


def catalog_of(results: Path) -> Catalog:
    """The installation's cards with the records of a folder."""
    return Catalog.open(results=results)


class Postbox:
    """Takes mails in. Refuses recipients in `refused`; those in `spam` after it read the mail."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refused: set[str] = set()
        self.spam: set[str] = set()
        self.port = 0
        self.was_encrypted: list[bool] = []

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address in self.refused:
            return f"550 no such user: {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session, envelope) -> str:
        if self.spam & set(envelope.rcpt_tos):
            return "554 looks like spam"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.was_encrypted.append(session.ssl is not None)
        return "250 taken"

    def recipients(self) -> list[str]:
        return [str(mail["To"]) for mail in self.mails]


@contextlib.contextmanager
def smtp_server(**options: object) -> Iterator[Postbox]:
    """A server on a free port of 127.0.0.1; options are those of aiosmtpd.smtp.SMTP."""
    postbox = Postbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        postbox.port = free.getsockname()[1]
    controller = Controller(postbox, hostname="127.0.0.1", port=postbox.port, **options)
    controller.start()
    try:
        yield postbox
    finally:
        controller.stop()


def accepts(name: bytes, password: bytes):
    """An authenticator for one user."""

    def authenticate(server, session, envelope, mechanism, data) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (name, password), handled=False)

    return authenticate


def text_of(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


def html_of(mail: EmailMessage) -> str:
    part = mail.get_body(("html",))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


def link(text: str, path: str) -> str:
    """The link of that path in a mail's text."""
    found = re.search(rf"https?://\S+{re.escape(path)}\S*", text)
    assert found, f"no {path} in {text}"
    return found[0]
