"""Mails: settings that are named when they are missing, headers nobody can write into, and real servers."""

import os
import re
import shutil
import ssl
import subprocess

import pytest
from following import accepts, html_of, smtp_server, text_of

from paperworks.core.errors import OptionError, RunError
from paperworks.web.follow.mail import MailSettings, MessageRefused, is_configured, message, one_line, render, send

SETTINGS = MailSettings("mail.example.org", 25, "none", "paperworks <papers@example.org>", "https://papers.example.org")
PASSWORD = "open sesame"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("PAPERWORKS_SMTP", "PAPERWORKS_BASE"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(monkeypatch):
    """MailSettings from an environment of these variables, over ones that suffice."""

    def read(base_url="", **variables: object) -> MailSettings:
        for name, value in {"HOST": "127.0.0.1", "FROM": "papers@example.org", **variables}.items():
            monkeypatch.setenv(f"PAPERWORKS_SMTP_{name}", str(value))
        return MailSettings.from_environment(base_url or "http://papers.example.org/")

    return read


def mail_to(recipient="ada@example.org", **options):
    return message(SETTINGS, recipient, "News", ("Text", "<p>Text</p>"), **options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signed itself, and its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run([*made, *names, *files], check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


def test_a_missing_setting_is_named(monkeypatch):
    assert not is_configured()
    with pytest.raises(OptionError, match="PAPERWORKS_SMTP_HOST is not set"):
        MailSettings.from_environment()
    monkeypatch.setenv("PAPERWORKS_SMTP_HOST", "mail.example.org")
    assert is_configured()
    with pytest.raises(OptionError, match="PAPERWORKS_SMTP_FROM is not set"):
        MailSettings.from_environment()
    monkeypatch.setenv("PAPERWORKS_SMTP_FROM", "papers@example.org")
    with pytest.raises(OptionError, match="PAPERWORKS_BASE_URL is not set"):
        MailSettings.from_environment()
    monkeypatch.setenv("PAPERWORKS_BASE_URL", "https://papers.example.org/")
    read = MailSettings.from_environment(base_url="http://127.0.0.1:8765")
    assert (read.security, read.port, read.base_url) == ("starttls", 587, "https://papers.example.org")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PORT": "smtp"}, "PAPERWORKS_SMTP_PORT: expected a number"),
        ({"PORT": "0"}, "PAPERWORKS_SMTP_PORT: expected a number"),
        ({"TLS": "startls"}, r"PAPERWORKS_SMTP_TLS: no such kind 'startls' \(did you mean 'starttls'"),
        ({"FROM": "papers"}, "PAPERWORKS_SMTP_FROM: that is no e-mail address"),
        ({"FROM": "a@example.org\nBcc: eve@example.org"}, "PAPERWORKS_SMTP_FROM: holds control characters"),
        ({"USER": "ada"}, "PAPERWORKS_SMTP_PASSWORD is not set"),
        ({"PASSWORD": PASSWORD}, "PAPERWORKS_SMTP_USER is not set"),
        ({"HOST": "mail.example.org", "TLS": "none", "USER": "ada", "PASSWORD": PASSWORD}, "password in the open"),
        ({"base_url": "papers.example.org"}, "PAPERWORKS_BASE_URL: expected http"),
    ],
)
def test_a_wrong_setting_is_named_without_the_password(settings, variables, named):
    with pytest.raises(OptionError, match=named) as raised:
        settings(**variables)
    assert PASSWORD not in str(raised.value)


def test_encryption_is_the_default_but_on_loopback(settings):
    assert [settings(HOST=host).security for host in ("127.0.0.1", "localhost", "::1")] == ["none"] * 3
    assert (settings(HOST="mail.example.org").security, settings(TLS="ssl").port) == ("starttls", 465)


def test_the_password_is_in_no_representation(settings):
    read = settings(USER="ada", PASSWORD=PASSWORD)
    assert read.password == PASSWORD
    assert PASSWORD not in f"{read} {read!r}"


def test_a_mail_has_both_parts_and_says_how_to_unsubscribe_with_one_click():
    url = f"https://papers.example.org/follow/unsubscribe?token={'x' * 200}"
    mail = mail_to(unsubscribe_url=url)
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    raw = mail.as_bytes().decode("ascii")
    assert all(len(line) < 80 for line in raw.split("\r\n\r\n", 1)[1].splitlines())
    assert f"List-Unsubscribe: <{url}>\r\n" in raw  # in one piece: mail programs do not mend folded links
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw
    assert "Auto-Submitted: auto-generated\r\n" in raw
    assert mail["Date"].datetime.tzinfo is not None
    assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", mail["Message-ID"])


def test_the_same_identity_gives_the_same_message_id():
    assert (
        mail_to(identity="a")["Message-ID"]
        == mail_to(identity="a")["Message-ID"]
        != mail_to(identity="b")["Message-ID"]
    )
    assert mail_to()["Message-ID"] != mail_to()["Message-ID"]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x85", "\u2028", "\0"])
def test_no_text_can_write_a_header(end):
    mail = message(
        SETTINGS, "ada@example.org", f"News{end}Bcc: eve@example.org", ("", ""), unsubscribe_url=f"a{end}X: y"
    )
    raw = mail.as_bytes().decode("ascii")
    head = raw.split("\r\n\r\n")[0]
    assert not re.search(r"^(Bcc|X):", head, re.MULTILINE)
    assert {line.split(":")[0] for line in head.split("\r\n") if not line.startswith((" ", "\t"))} <= {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
        "MIME-Version", "Content-Type",
    }  # fmt: skip
    with pytest.raises(OptionError, match="no e-mail address"):
        message(SETTINGS, f"ada@example.org{end}eve@example.org", "News", ("", ""))


def test_lines_of_text_hold_no_line_breaks():
    assert one_line(" a\r\n b\tc\x1b[31m\u202e") == "a b c [31m"


def test_html_is_escaped_and_loads_nothing():
    entry = {
        "name": "<b>x",
        "title": "a\r\nb",
        "text": '"&',
        "lines": ("<img src=x>",),
        "url": "https://e.example/?a=1&b=2",
    }
    values = {"since": "then", "until": "now", "home_url": "/", "unsubscribe_url": ""}
    text, html = render("digest", subject="</title><script>", sections=(("New", (entry,)),), **values)
    assert not re.search(r"<(b|img|script)\b", html)
    assert "&lt;img src=x&gt;" in html
    assert "<b>x: a b" in text


def test_a_mail_arrives_as_it_was_sent(settings):
    with smtp_server() as postbox:
        long = "ü" * 2000 + "\n.\n. end"
        mail = message(settings(PORT=postbox.port), "ada@example.org", "News", (long, f"<p>{long}</p>"))
        send(settings(PORT=postbox.port), mail)
    [arrived] = postbox.mails
    assert (text_of(arrived).strip(), arrived["Message-ID"]) == (long, mail["Message-ID"])
    assert html_of(arrived).strip() == f"<p>{long}</p>"


def test_with_starttls_the_password_goes_to_the_trusted_server(settings, tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with smtp_server(
        tls_context=tls, require_starttls=True, authenticator=accepts(b"ada", PASSWORD.encode())
    ) as postbox:
        secure = settings(HOST="localhost", PORT=postbox.port, TLS="starttls", USER="ada", PASSWORD=PASSWORD)
        send(secure, mail_to())
        assert (postbox.recipients(), postbox.was_encrypted) == (["ada@example.org"], [True])
        wrong = settings(PASSWORD="wrong words")
        with pytest.raises(RunError, match="refused user and password: 535") as raised:
            send(wrong, mail_to())
    assert "wrong words" not in str(raised.value)


def test_a_certificate_nobody_vouches_for_is_refused(settings, tls):
    untrusted = pytest.raises(RunError, match=r"mail server localhost:\d+: its certificate is not trusted")
    with smtp_server(tls_context=tls) as postbox, untrusted:
        send(settings(HOST="localhost", PORT=postbox.port, TLS="starttls"), mail_to())
    assert postbox.mails == []


def test_a_server_without_starttls_is_not_used(settings):
    with smtp_server() as postbox, pytest.raises(RunError, match="STARTTLS"):
        send(settings(PORT=postbox.port, TLS="starttls"), mail_to())
    assert postbox.mails == []


def test_a_refused_recipient_or_mail_is_told_in_one_line(settings):
    with smtp_server() as postbox:
        postbox.refused, postbox.spam = {"ada@example.org"}, {"eve@example.org"}
        with pytest.raises(MessageRefused, match=r"mail server 127.0.0.1:\d+: refused the recipient: 550 no such user"):
            send(settings(PORT=postbox.port), mail_to())
        with pytest.raises(MessageRefused, match="refused the mail: 554 looks like spam"):
            send(settings(PORT=postbox.port), mail_to("eve@example.org"))


def test_a_server_that_is_not_there_is_told_in_one_line(settings):
    with smtp_server() as postbox:
        port = postbox.port
    with pytest.raises(RunError, match=rf"^mail server 127.0.0.1:{port}: cannot be used: .*refused$") as raised:
        send(settings(PORT=port), mail_to())
    assert not isinstance(raised.value, MessageRefused)
