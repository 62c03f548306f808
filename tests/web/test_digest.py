"""Digests: who gets what, once; nothing where nothing is new; and `paperworks digest` as cron and people use it."""

import datetime
import json

import pytest
from following import PUBLIC, catalog_of, html_of, install_results, link, record, text_of

from paperworks.cli.main import main
from paperworks.core.errors import RunError
from paperworks.core.runs import RunStore
from paperworks.web.follow import digest as digests
from paperworks.web.follow.digest import News, digest, send_due
from paperworks.web.follow.history import note_changes
from paperworks.web.follow.mail import MailSettings
from paperworks.web.follow.subscribers import Subscribers

LONG_AGO = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY, MINUTE = datetime.timedelta(days=1), datetime.timedelta(minutes=1)
ADA, EVE = "ada@example.org", "eve@example.org"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """One recorded paper that everyone has heard of; the command line sees this folder too."""
    folder = tmp_path / "results"
    record(folder, "npo", {"it forgets": "holds"}, date="2025-12-01")
    note_changes(catalog_of(folder))
    install_results(monkeypatch, folder)
    return folder


@pytest.fixture
def settings(postbox) -> MailSettings:
    return MailSettings.from_environment()


def subscribe(email=ADA, frequency="daily", wants_runs=False, moment=LONG_AGO):
    subscribers = Subscribers()
    letter = subscribers.subscribe(email, frequency, wants_runs, moment=moment)
    return subscribers.confirm(letter.confirm_token, moment)


def run_of(tmp_path, name, results=None, error=None):
    with RunStore().start("run", name, tmp_path / name, {}) as run:
        if error:
            run.end("failed", error)
        else:
            run.finish(results or {})
    return run.record


def test_a_digest_tells_new_papers_and_changed_verdicts(results, settings, postbox):
    subscribe()
    record(results, "rdpo", {"it helps": "holds"})
    record(results, "npo", {"it forgets": "reversed"})
    assert send_due(settings, catalog_of(results)).sent == 1
    [mail] = postbox.mails
    assert (mail["To"], mail["Subject"]) == (ADA, "paperworks: new papers (1), changed verdicts (1)")
    for text in (text_of(mail), html_of(mail)):
        assert "newly built: 1/1 claims hold" in text
        assert "it forgets: holds → reversed" in text
        assert f"{PUBLIC}/papers/rdpo" in text
        assert "/runs/" not in text
    assert mail["List-Unsubscribe"] == f"<{link(text_of(mail), '/follow/unsubscribe')}>"


def test_nothing_new_is_no_mail_and_news_then_wait_no_longer(results, settings, postbox):
    before = subscribe()
    assert vars(send_due(settings, catalog_of(results))) == {"sent": 0, "nothing_new": 1, "problems": ()}
    assert Subscribers().all() == [before]
    record(results, "npo", {"it forgets": "reversed"})
    assert send_due(settings, catalog_of(results)).sent == 1
    assert len(postbox.mails) == 1


def test_what_was_told_is_not_told_again(results, settings, postbox):
    subscribe()
    record(results, "npo", {"it forgets": "reversed"})
    catalog = catalog_of(results)
    assert [send_due(settings, catalog).sent for _ in range(2)] == [1, 0]
    tomorrow = datetime.datetime.now(datetime.UTC) + DAY
    assert send_due(settings, catalog, tomorrow).nothing_new == 1
    record(results, "npo", {"it forgets": "not shown"})
    assert send_due(settings, catalog_of(results), tomorrow).sent == 1
    assert "reversed → not shown" in text_of(postbox.mails[-1])
    assert "holds → reversed" not in text_of(postbox.mails[-1])


def test_nobody_hears_what_was_so_before_subscribing(results, settings, postbox):
    record(results, "npo", {"it forgets": "reversed"})
    note_changes(catalog_of(results))
    now = datetime.datetime.now(datetime.UTC)
    subscribe(moment=now)
    assert send_due(settings, catalog_of(results), now + 2 * DAY).nothing_new == 1


def test_runs_are_told_to_those_who_want_them_without_what_went_wrong(results, tmp_path):
    claims = [{"verdict": "holds", "text": "a", "evidence": ""}]
    run_of(tmp_path, "npo", {"budget": "small", "claims": claims})
    run_of(tmp_path, "rdpo", error="/data/secret.jsonl: no such file")
    news = News.of_now(catalog_of(results))
    assert digest(news, LONG_AGO, wants_runs=True, base_url=PUBLIC).sections == ()  # they ended less than a minute ago
    later = News(news.changes, news.runs, news.titles, news.until + 2 * MINUTE)
    [(title, entries)] = digest(later, LONG_AGO, wants_runs=True, base_url=PUBLIC).sections
    assert title == "Runs"
    assert [(entry.name, entry.text) for entry in entries] == [
        ("run rdpo", "failed"),
        ("run npo", "finished: 1/1 claims hold"),
    ]
    assert entries[0].url.startswith(f"{PUBLIC}/runs/")
    assert digest(later, LONG_AGO, wants_runs=False, base_url=PUBLIC).sections == ()
    # The next digest begins where this one ended, with the runs that it left.
    assert digest(later, news.until, wants_runs=True, base_url=PUBLIC).sections[0][1] == entries
    assert digest(later, later.until, wants_runs=True, base_url=PUBLIC).sections == ()


def test_a_refused_recipient_stays_due_and_the_others_get_theirs(results, settings, postbox):
    subscribe(EVE), subscribe(ADA)
    postbox.refused = {EVE}
    record(results, "rdpo", {"it helps": "holds"})
    outcome = send_due(settings, catalog_of(results))
    assert (outcome.sent, postbox.recipients()) == (1, [ADA])
    assert "refused the recipient: 550 no such user: …" in outcome.problems[0]
    postbox.refused = set()
    assert send_due(settings, catalog_of(results)).sent == 1
    assert postbox.recipients() == [ADA, EVE]


def test_a_server_that_cannot_be_used_is_asked_once_and_all_stay_due(results, settings, postbox, monkeypatch):
    subscribe(EVE), subscribe(ADA)
    record(results, "rdpo", {"it helps": "holds"})

    def broken(*_):
        raise RunError("mail server: cannot be used")

    with monkeypatch.context() as patched:
        patched.setattr(digests, "send", broken)
        assert send_due(settings, catalog_of(results)).problems == ("mail server: cannot be used",)
    assert send_due(settings, catalog_of(results)).sent == 2


def test_two_that_send_at_once_send_each_digest_once(results, settings, postbox, monkeypatch):
    subscribe(EVE), subscribe(ADA)
    record(results, "rdpo", {"it helps": "holds"})
    catalog, as_always, others = catalog_of(results), digests.send, []

    def while_another_sends(*arguments):
        if not others:
            others.append(None)
            others.append(send_due(settings, catalog))
        as_always(*arguments)

    monkeypatch.setattr(digests, "send", while_another_sends)
    assert send_due(settings, catalog).sent == 1
    assert others[1].sent == 1
    assert sorted(postbox.recipients()) == [ADA, EVE]


def test_one_killed_after_sending_sends_again_under_the_same_message_id(results, settings, postbox, monkeypatch):
    subscribe()
    record(results, "rdpo", {"it helps": "holds"})
    catalog = catalog_of(results)
    now = datetime.datetime.now(datetime.UTC)
    with monkeypatch.context() as killed:
        killed.setattr(Subscribers, "sent", lambda *_: None)
        assert send_due(settings, catalog, now).sent == 1
    assert send_due(settings, catalog, now).sent == 0  # it may still be at it
    _pretend_that_an_hour_went_by()
    assert send_due(settings, catalog, now).sent == 1
    assert postbox.mails[0]["Message-ID"] == postbox.mails[1]["Message-ID"]


def _pretend_that_an_hour_went_by():
    with Subscribers()._database.transaction(writes=True) as database:
        database.execute("UPDATE subscribers SET claimed = ?", (LONG_AGO.isoformat(),))


def test_many_runs_are_cut_and_counted(results, tmp_path):
    run = run_of(tmp_path, "npo")
    news = News.of_now(catalog_of(results))
    many = News((), (run,) * 60, news.titles, news.until + 2 * MINUTE)
    told = digest(many, LONG_AGO, wants_runs=True, base_url=PUBLIC)
    assert told.subject == "paperworks: newest runs of 60 (50)"


def test_cron_hears_nothing_when_nothing_is_due(results, postbox, capsys):
    assert main(["digest", "--send"]) == 0
    subscribe()
    assert main(["digest", "--send"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err, postbox.mails) == ("", "", [])


def test_sending_says_how_many_and_one_line_of_what_failed(results, postbox, capsys):
    subscribe(ADA), subscribe(EVE)
    record(results, "rdpo", {"it helps": "holds"})
    postbox.refused = {EVE}
    assert main(["digest", "--send"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "1 digest sent\n"
    assert captured.err.startswith("paperworks: error: not all digests were sent: mail server 127.0.0.1")
    assert captured.err.count("\n") == 1
    assert EVE not in captured.err
    postbox.refused = set()
    assert main(["digest", "--send", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sent": 1, "nothing_new": 0, "problems": []}


def test_without_a_mail_server_sending_names_the_setting(results, capsys, monkeypatch):
    monkeypatch.delenv("PAPERWORKS_SMTP_HOST", raising=False)
    assert main(["digest", "--send"]) == 2
    assert "PAPERWORKS_SMTP_HOST is not set" in capsys.readouterr().err


def test_a_preview_prints_what_a_subscriber_would_get_and_sends_nothing(results, postbox, capsys):
    subscribe()
    record(results, "rdpo", {"it <helps>": "holds"})
    assert main(["digest", "--preview"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Subject: paperworks: new papers (1)\n")
    assert f"{PUBLIC}/papers/rdpo" in shown
    assert main(["digest", "--preview", "--frequency", "daily", "--format", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert main(["digest", "--preview", "--since", "2999-01-01"]) == 0
    assert "no mail would go out" in capsys.readouterr().out
    assert main(["digest", "--preview", "--since", "2025-12-01T00:00:00+00:00"]) == 0
    assert "new papers (2)" in capsys.readouterr().out
    assert postbox.mails == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments --preview --send --subscribers is required"),
        (["--send", "--since", "2026-01-01"], "--since says nothing to this action"),
        (["--preview", "--json"], "--json says nothing to this action"),
        (["--preview", "--since", "yesterday"], "--since: expected a date as 2026-02-03"),
        (["--preview", "--since", "2026-01-01", "--frequency", "daily"], "give one"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, said, capsys):
    assert main(["digest", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_subscribers_are_counted_and_named_only_where_asked(capsys):
    subscribe(ADA, wants_runs=True), subscribe(EVE, "weekly")
    assert main(["digest", "--subscribers"]) == 0
    assert capsys.readouterr().out == "daily 1, weekly 1; with runs 1; unconfirmed 0\n"
    assert main(["digest", "--subscribers", "--show-addresses"]) == 0
    assert f"{ADA}  daily  with runs" in capsys.readouterr().out
    assert main(["digest", "--subscribers", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"daily": 1, "weekly": 1, "with_runs": 1, "pending": 0}
    assert main(["digest", "--subscribers", "--json", "--show-addresses"]) == 0
    assert [person["email"] for person in json.loads(capsys.readouterr().out)["subscribers"]] == [ADA, EVE]
