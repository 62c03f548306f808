"""Mails: settings from the environment, messages of text and HTML, and their way to the SMTP server.

The password is in no representation, error or log. Headers are made from checked parts and hold no line breaks; HTML parts
are escaped and load nothing from elsewhere. Nothing here knows who subscribed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import smtplib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, localtime, parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args
from urllib.parse import urlsplit

from paperworks.core.errors import OptionError, RunError, did_you_mean, first_line
from paperworks.web.follow.addresses import checked_address
from paperworks.web.settings import is_loopback

if TYPE_CHECKING:
    import jinja2

Security = Literal["none", "starttls", "ssl"]
PORTS: Mapping[Security, int] = {"none": 25, "starttls": 587, "ssl": 465}
TIMEOUT_S = 20.0
_TEMPLATES = Path(__file__).parents[1] / "templates" / "mail"
# Headers may have lines this long: the default of 78 would fold links into what mail programs do not follow.
_LONG_HEADERS = policy.SMTP.clone(max_line_length=990)


class MessageRefused(RunError):
    """The server took no message for this recipient; it may well take others."""


@dataclass(frozen=True)
class MailSettings:
    """The SMTP server, how it is reached, who mails come from, and the address that their links begin with."""

    host: str
    port: int
    security: Security
    sender: str  # name <name@example.org>, or the address alone
    base_url: str  # without a slash at its end
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, base_url: str = "") -> MailSettings:
        """The settings in PAPERWORKS_SMTP_* and PAPERWORKS_BASE_URL (`base_url` where that is not set).

        Raises OptionError naming the variable that is missing or cannot be used.
        """
        host = _needed("PAPERWORKS_SMTP_HOST", "the mail server, as mail.example.org")
        security = _security(host)
        user, password = _variable("PAPERWORKS_SMTP_USER"), os.environ.get("PAPERWORKS_SMTP_PASSWORD", "")
        if bool(user) != bool(password):
            missing = "PASSWORD" if user else "USER"
            raise OptionError(f"PAPERWORKS_SMTP_{missing} is not set; set user and password, or neither")
        if password and security == "none" and not is_loopback(host):
            raise OptionError("PAPERWORKS_SMTP_TLS=none would send the password in the open; use starttls or ssl")
        return cls(
            host=host,
            port=_port(PORTS[security]),
            security=security,
            sender=_sender(_needed("PAPERWORKS_SMTP_FROM", "who mails come from, as papers@example.org")),
            base_url=_base_url(base_url),
            user=user,
            password=password,
        )


def is_configured() -> bool:
    """Whether a mail server is named at all; what else is missing, `MailSettings.from_environment` says."""
    return bool(_variable("PAPERWORKS_SMTP_HOST"))


def render(template: str, **values: object) -> tuple[str, str]:
    """The text and the HTML of templates/mail/TEMPLATE.{txt,html} with the values; those in HTML are escaped."""
    environment = _environment()
    text, html = (environment.get_template(f"{template}.{kind}").render(values) for kind in ("txt", "html"))
    return text, html


def message(
    settings: MailSettings,
    recipient: str,
    subject: str,
    parts: tuple[str, str],
    *,
    unsubscribe_url: str = "",
    identity: str = "",
) -> EmailMessage:
    """A mail of `parts` (text, HTML) for one address, with one-click unsubscribing (RFC 8058) where a link is given.

    Mails of the same `identity` have the same Message-ID, so that mail programs show one of two. Raises OptionError
    where the recipient is no address.
    """
    name, address = parseaddr(settings.sender)
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = Address(display_name=name, addr_spec=address)
    mail["To"] = Address(addr_spec=checked_address(recipient))
    mail["Subject"] = one_line(subject)
    mail["Date"] = format_datetime(localtime())
    unique = hashlib.sha256(identity.encode()).hexdigest()[:32] if identity else os.urandom(16).hex()
    mail["Message-ID"] = f"<{unique}@{address.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    if unsubscribe_url:
        mail["List-Unsubscribe"] = f"<{one_line(unsubscribe_url)}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    text, html = parts
    mail.set_content(text, cte="quoted-printable")
    mail.add_alternative(html, subtype="html", cte="quoted-printable")
    mail.policy = _LONG_HEADERS  # only now: the lines of the parts keep to the usual length
    return mail


def send(settings: MailSettings, mail: EmailMessage) -> None:
    """Hands one mail to the server, over a connection of its own; certificates are verified.

    Raises MessageRefused where the server refuses this mail or its recipient, RunError where it cannot be used at all.
    """
    try:
        with _connection(settings) as server:
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise MessageRefused(_said(settings, f"refused the recipient: {code} {_decoded(said)}")) from None
    except smtplib.SMTPDataError as error:
        raise MessageRefused(_said(settings, f"refused the mail: {_response(error)}")) from None
    except smtplib.SMTPAuthenticationError as error:
        raise RunError(_said(settings, f"refused user and password: {_response(error)}")) from None
    except smtplib.SMTPResponseException as error:
        raise RunError(_said(settings, f"refused: {_response(error)}")) from None
    except ssl.SSLCertVerificationError as error:
        raise RunError(_said(settings, f"its certificate is not trusted ({error.verify_message})")) from None
    except (smtplib.SMTPException, OSError) as error:
        raise RunError(_said(settings, f"cannot be used: {first_line(error)}")) from None


def one_line(text: object) -> str:
    """A text without line breaks and control characters, as headers and lines of plain text need it."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def _connection(settings: MailSettings) -> smtplib.SMTP:
    # A name of our own: smtplib's default asks the network for one, and waits where there is none.
    name = socket.gethostname()
    if settings.security == "ssl":
        context = ssl.create_default_context()
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.host, settings.port, local_hostname=name, timeout=TIMEOUT_S, context=context
        )
    else:
        server = smtplib.SMTP(settings.host, settings.port, local_hostname=name, timeout=TIMEOUT_S)
    try:
        if settings.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.user:
            server.login(settings.user, settings.password)
    except BaseException:
        server.close()
        raise
    return server


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["one_line"] = one_line
    return environment


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value.isprintable():
        raise OptionError(f"{name}: holds control characters; set it anew without them")
    return value


def _needed(name: str, what: str) -> str:
    value = _variable(name)
    if not value:
        raise OptionError(f"{name} is not set; it names {what}")
    return value


def _security(host: str) -> Security:
    given = _variable("PAPERWORKS_SMTP_TLS").lower() or ("none" if is_loopback(host) else "starttls")
    if given not in get_args(Security):
        raise OptionError(f"PAPERWORKS_SMTP_TLS: no such kind {given!r}{did_you_mean(given, get_args(Security))}")
    return cast(Security, given)


def _port(default: int) -> int:
    text = _variable("PAPERWORKS_SMTP_PORT") or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise OptionError(f"PAPERWORKS_SMTP_PORT: expected a number from 1 to 65535, got {text!r}")
    return int(text)


def _sender(text: str) -> str:
    name, address = parseaddr(text)
    try:
        return str(Address(display_name=name, addr_spec=checked_address(address)))
    except OptionError as error:
        raise OptionError(f"PAPERWORKS_SMTP_FROM: {error}") from None


def _base_url(default: str) -> str:
    text = _variable("PAPERWORKS_BASE_URL") or default
    if not text:
        raise OptionError("PAPERWORKS_BASE_URL is not set; links in mails begin with it, as https://papers.example.org")
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc or " " in text or not text.isascii():
        raise OptionError(f"PAPERWORKS_BASE_URL: expected http://… or https://…, got {text!r}")
    return text.rstrip("/")


def _said(settings: MailSettings, what: str) -> str:
    line = one_line(f"mail server {settings.host}:{settings.port}: {what}")
    return line.replace(settings.password, "…") if settings.password else line


def _response(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_decoded(error.smtp_error)}"


def _decoded(said: bytes | str) -> str:
    return first_line(Exception(said.decode("utf-8", "replace") if isinstance(said, bytes) else said))
