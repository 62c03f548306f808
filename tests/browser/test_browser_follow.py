"""Following by e-mail: asked for, confirmed by the link in a mail, told of a run, ended by the link in the digest."""

import datetime
import re
import time

import pytest
from following import html_of, link, smtp_server, text_of
from serving import Server

from paperworks.catalog import Catalog
from paperworks.core.runs import RunStore
from paperworks.web.follow import digest as digests
from paperworks.web.follow.mail import MailSettings

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
ADDRESS = "ada@example.org"


@pytest.fixture(scope="module")
def postbox():
    with smtp_server() as box:
        yield box


@pytest.fixture(scope="module")
def mail_environment(postbox):
    """What whoever runs the server sets."""
    return {
        "PAPERWORKS_SMTP_HOST": "127.0.0.1",
        "PAPERWORKS_SMTP_PORT": str(postbox.port),
        "PAPERWORKS_SMTP_FROM": "papers@example.org",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, kept_cache, mail_environment):
    """A server that sends mails."""
    started = Server(tmp_path_factory.mktemp("server"), kept_cache, mail_environment)
    yield started
    started.stop()


@pytest.fixture
def at_the_server(server, mail_environment, monkeypatch):
    """This process uses the server's home and mail server, as its command line does."""
    for name, value in {**mail_environment, "PAPERWORKS_HOME": str(server.home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(digests, "RUNS_SETTLE", datetime.timedelta(0))  # the run of the test has just ended


def test_a_digest_is_asked_for_confirmed_sent_and_ended(visit, server, postbox, at_the_server):
    window = visit()
    page = window.open("/follow")
    page.get_by_label("E-mail address").fill(ADDRESS)
    page.get_by_label("daily").check()
    page.get_by_label("results of runs on this server").check()
    window.picture("form")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("status")).to_contain_text("A mail is on its way")
    window.open(path_of(link(text_of(next_mail(postbox, 1)), "/follow/confirm"), server))
    window.picture("to-confirm")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("heading", name="Confirmed")).to_be_visible()

    with RunStore().start("run", "prdc", server.runs / "told", {}) as run:
        run.finish({})
    in_two_days = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    assert digests.send_due(MailSettings.from_environment(server.address), Catalog.open(), in_two_days).sent == 1
    told = next_mail(postbox, 2)
    assert told["To"] == ADDRESS and link(text_of(told), "/runs/").endswith(run.record.id)
    assert link(html_of(told).replace('"', " "), "/follow/unsubscribe") and told["List-Unsubscribe-Post"]

    window.open(path_of(link(text_of(told), "/follow/unsubscribe"), server))
    window.picture("to-end")
    page.get_by_role("button", name="Unsubscribe").click()
    expect(page.get_by_role("heading", name="Unsubscribed")).to_be_visible()
    assert digests.send_due(MailSettings.from_environment(server.address), Catalog.open(), in_two_days).sent == 0


def test_an_address_that_is_none_is_named_in_the_form(visit):
    window = visit(java_script_enabled=False)
    window.expect_refusal("/follow/subscribe")
    page = window.open("/follow")
    page.get_by_label("E-mail address").fill("ada@example")  # a browser takes it for an address
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("E-mail address")).to_have_value("ada@example")


def next_mail(postbox, number):
    """The mail of that number, once it has come: letters are sent after the answer."""
    deadline = time.monotonic() + 30
    while len(postbox.mails) < number:
        assert time.monotonic() < deadline, postbox.recipients()
        time.sleep(0.05)
    return postbox.mails[number - 1]


def path_of(address, server):
    """A link in a mail, on this server: they name the address that the server was told it is reached under."""
    assert address.startswith(server.address), address
    return re.sub(r"^https?://[^/]+", "", address)
