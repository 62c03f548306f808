"""Following over HTTP: confirm, digest, one click to end it; answers that tell nobody who is subscribed; the feeds."""

import datetime
import json
import re
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from following import PUBLIC, catalog_of, install_results, link, record, text_of

from paperworks.web.app import create_app
from paperworks.web.follow.digest import send_due
from paperworks.web.follow.history import note_changes
from paperworks.web.follow.mail import MailSettings
from paperworks.web.follow.subscribers import Subscribers
from paperworks.web.settings import WebSettings

ADA, EVE = "ada@example.org", "eve@example.org"
NEXT_MONTH = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=31)


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    record(folder, "npo", {"it <forgets>": "holds"}, date="2025-12-01")
    install_results(monkeypatch, folder)
    return folder


@pytest.fixture
def browser(results, tmp_path):
    app = create_app(WebSettings(runs=tmp_path / "runs", works_queue=False, public_url=PUBLIC))
    return TestClient(app, base_url="http://127.0.0.1:8765")


def subscribe(browser, email=ADA, **fields):
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/follow").text)[1]
    return browser.post("/follow/subscribe", data={"email": email, "frequency": "weekly", "csrf": csrf, **fields})


def press(browser, page):
    """Sends the form of a page."""
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    return browser.post(re.search(r'<form action="([^"]+)"', page.text)[1], data=fields)


def opened(browser, url):
    assert url.startswith(f"{PUBLIC}/")
    return browser.get(url.removeprefix(PUBLIC))


def test_from_confirming_to_the_digest_to_one_click_and_no_more(browser, postbox, results):
    assert "A mail is on its way" in subscribe(browser, runs="yes").text
    asked = opened(browser, link(text_of(postbox.mails[0]), "/follow/confirm"))
    assert Subscribers().all() == []  # opening the link confirms nothing
    assert "Confirmed" in press(browser, asked).text
    assert [(one.email, one.frequency, one.wants_runs) for one in Subscribers().all()] == [(ADA, "weekly", True)]

    record(results, "npo", {"it <forgets>": "reversed"})
    catalog, settings = catalog_of(results), MailSettings.from_environment()
    note_changes(catalog)
    assert send_due(settings, catalog, NEXT_MONTH).sent == 1

    mail = postbox.mails[-1]
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    address = mail["List-Unsubscribe"].strip("<>").removeprefix(PUBLIC)
    mail_program = TestClient(browser.app, base_url="http://127.0.0.1:8765")  # no cookies, no page seen
    assert mail_program.get(address).status_code == 200
    assert len(Subscribers().all()) == 1
    assert mail_program.post(address, data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert mail_program.post(address, data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert Subscribers().all() == []
    record(results, "npo", {"it <forgets>": "not shown"})
    assert send_due(settings, catalog_of(results), NEXT_MONTH + datetime.timedelta(days=31)).sent == 0
    assert len(postbox.mails) == 2


def test_the_page_of_the_link_ends_the_subscription_by_its_button(browser, postbox):
    subscriber = Subscribers().confirm(Subscribers().subscribe(ADA, "daily").confirm_token)
    address = f"/follow/unsubscribe?token={Subscribers().claim(subscriber)}"
    assert "Unsubscribed" in press(browser, browser.get(address)).text
    assert Subscribers().all() == []
    assert "<form" not in browser.get(address).text


def test_a_confirmation_link_works_once(browser, postbox):
    subscribe(browser)
    url = link(text_of(postbox.mails[0]), "/follow/confirm")
    asked = opened(browser, url)
    press(browser, asked)
    assert press(browser, asked).status_code == 404
    again = opened(browser, url)
    assert (again.status_code, "<form" in again.text) == (404, False)


def test_answers_are_the_same_for_known_unknown_and_refused_addresses(browser, postbox):
    Subscribers().confirm(Subscribers().subscribe(ADA, "weekly").confirm_token)
    postbox.refused = {"nobody@example.org"}
    answers = [subscribe(browser, email) for email in (ADA, EVE, "nobody@example.org")]
    answers += [subscribe(browser, EVE) for _ in range(4)]  # more than an address is sent in a day
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert postbox.recipients() == [ADA, EVE, EVE, EVE]
    assert "You have it already" in text_of(postbox.mails[0])


def test_a_client_that_asks_too_often_is_told(browser, postbox):
    answers = [subscribe(browser, f"a{number}@example.org").status_code for number in range(21)]
    assert answers == [200] * 20 + [429]


def test_what_is_no_address_is_said_and_shown_escaped(browser, postbox):
    answer = subscribe(browser, '"><script>@example.org')
    assert answer.status_code == 422
    assert "That is no e-mail address" in answer.text
    assert "<script>@" not in answer.text
    assert subscribe(browser, ADA, frequency="hourly").status_code == 422
    assert subscribe(browser, "ada@example.org\r\nBcc: eve@example.org").status_code == 422
    assert postbox.mails == []


@pytest.mark.parametrize("path", ["/follow/subscribe", "/follow/confirm"])
def test_another_sites_form_changes_nothing(browser, postbox, path):
    token = Subscribers().subscribe(ADA, "weekly").confirm_token
    assert browser.post(path, data={"email": EVE, "token": token}).status_code == 403
    assert (Subscribers().all(), postbox.mails) == ([], [])


def test_without_a_mail_server_there_are_feeds_and_no_form(browser, monkeypatch):
    monkeypatch.delenv("PAPERWORKS_SMTP_HOST", raising=False)
    page = browser.get("/follow").text
    assert "This server sends no mails" in page
    assert "<form" not in page
    assert "/feed.atom" in page
    monkeypatch.setenv("PAPERWORKS_SMTP_HOST", "127.0.0.1")  # but nobody to send from
    assert "This server sends no mails" in browser.get("/follow").text


def test_feeds_tell_what_is_recorded_with_absolute_links(browser):
    atom = browser.get("/feed.atom")
    assert atom.headers["content-type"].startswith("application/atom+xml")
    entry = ElementTree.fromstring(atom.content).find("{*}entry")
    assert entry.find("{*}link").get("href") == f"{PUBLIC}/papers/npo"
    feed = browser.get("/feed.json")
    assert feed.headers["content-type"].startswith("application/feed+json")
    assert [item["url"] for item in json.loads(feed.content)["items"]] == [f"{PUBLIC}/papers/npo"]


@pytest.mark.parametrize("path", ["/feed.atom", "/feed.json"])
def test_a_reader_that_has_the_feed_is_not_sent_it_again(browser, results, path):
    first = browser.get(path)
    tag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"if-none-match": f'"x", W/{tag}'}, {"if-modified-since": modified}, {"if-none-match": "*"}):
        answer = browser.get(path, headers=headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert browser.get(path, headers={"if-none-match": '"x"', "if-modified-since": modified}).status_code == 200
    assert browser.get(path, headers={"if-modified-since": "soon"}).status_code == 200
    record(results, "npo", {"it <forgets>": "reversed"})
    assert browser.get(path, headers={"if-none-match": tag}).status_code == 200


def test_with_a_token_set_links_in_mails_still_work(results, tmp_path):
    app = create_app(WebSettings(host="0.0.0.0", runs=tmp_path / "runs", works_queue=False, token="t" * 32))
    stranger = TestClient(app, follow_redirects=False)
    assert stranger.get("/follow").status_code == 303
    assert stranger.get("/feed.atom").status_code == 401
    assert stranger.get("/feed.atom", auth=("", "t" * 32)).status_code == 200
    token = Subscribers().subscribe(ADA, "weekly").confirm_token
    assert "Confirmed" in press(stranger, stranger.get(f"/follow/confirm?token={token}")).text
