"""Subscriptions: nothing without confirmation, tokens used once and kept as hashes, limits, and forgetting."""

import datetime
import multiprocessing
import sqlite3

import pytest

from paperworks.core.errors import OptionError
from paperworks.core.files import home
from paperworks.web.follow.addresses import checked_address
from paperworks.web.follow.subscribers import Counts, Subscribers, TooManyRequests

NOW = datetime.datetime(2026, 5, 6, 7, 8, tzinfo=datetime.UTC)
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
ADA = "ada@example.org"


@pytest.fixture
def subscribers() -> Subscribers:
    return Subscribers()


def confirmed(subscribers: Subscribers, email=ADA, frequency="daily", wants_runs=False, moment=NOW):
    letter = subscribers.subscribe(email, frequency, wants_runs, moment=moment)
    return subscribers.confirm(letter.confirm_token, moment)


def stored() -> str:
    """Every value in the tables of subscriptions."""
    with sqlite3.connect(home() / "runs.sqlite") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name LIKE '%subscri%'")]
        assert len(tables) >= 4
        return repr(
            [row for name in tables if "autoindex" not in name for row in database.execute(f"SELECT * FROM {name}")]
        )


def test_nobody_is_subscribed_before_confirming(subscribers):
    letter = subscribers.subscribe(ADA, "weekly", True, moment=NOW)
    assert (letter.kind, letter.unsubscribe_token, subscribers.all()) == ("new", "", [])
    assert subscribers.counts(NOW) == Counts(daily=0, weekly=0, with_runs=0, pending=1)
    assert subscribers.is_waiting(letter.confirm_token, NOW)
    subscriber = subscribers.confirm(letter.confirm_token, NOW)
    assert (subscriber.email, subscriber.frequency, subscriber.wants_runs, subscriber.last_sent) == (
        ADA,
        "weekly",
        True,
        NOW,
    )
    assert subscribers.all() == [subscriber]
    assert subscribers.counts(NOW) == Counts(daily=0, weekly=1, with_runs=1, pending=0)


def test_a_confirmation_works_once_within_48_hours(subscribers):
    letter = subscribers.subscribe(ADA, "weekly", moment=NOW)
    assert subscribers.confirm(letter.confirm_token, NOW + 48 * HOUR) is None
    assert subscribers.confirm("x" + letter.confirm_token, NOW) is None
    assert subscribers.confirm(letter.confirm_token, NOW + 47 * HOUR)
    assert subscribers.confirm(letter.confirm_token, NOW + 47 * HOUR) is None


def test_another_request_takes_no_confirmation_away(subscribers):
    first = subscribers.subscribe(ADA, "weekly", moment=NOW)
    second = subscribers.subscribe("ADA@Example.org", "daily", moment=NOW)
    assert subscribers.confirm(first.confirm_token, NOW).frequency == "weekly"
    assert subscribers.confirm(second.confirm_token, NOW) is None  # the other request of the address is gone with it


def test_a_known_address_hears_that_it_is_and_is_not_reset(subscribers):
    before = confirmed(subscribers)
    letter = subscribers.subscribe("Ada@EXAMPLE.org", "daily", moment=NOW + DAY)
    assert (letter.kind, letter.confirm_token, letter.email) == ("known", "", ADA)
    assert subscribers.all() == [before]
    assert subscribers.unsubscribe(letter.unsubscribe_token)


def test_other_wishes_need_confirmation_and_keep_what_was_sent(subscribers):
    before = confirmed(subscribers)
    letter = subscribers.subscribe(ADA, "weekly", True, moment=NOW + DAY)
    assert letter.kind == "change"
    assert subscribers.all() == [before]
    after = subscribers.confirm(letter.confirm_token, NOW + DAY)
    assert (after.frequency, after.wants_runs, after.last_sent) == ("weekly", True, before.last_sent)


def test_tokens_are_kept_as_hashes_and_shown_nowhere(subscribers):
    letter = subscribers.subscribe(ADA, "weekly", moment=NOW)
    assert len(letter.confirm_token) >= 43  # 32 bytes
    assert letter.confirm_token not in stored() + repr(letter)
    subscriber = subscribers.confirm(letter.confirm_token, NOW)
    token = subscribers.claim(subscriber, NOW)
    assert token not in stored()


def test_unsubscribing_forgets_all_about_the_address(subscribers):
    subscriber = confirmed(subscribers)
    subscribers.subscribe(ADA, "weekly", moment=NOW)
    earlier, later = subscribers.claim(subscriber, NOW), subscribers.claim(subscriber, NOW + 2 * HOUR)
    assert subscribers.has_unsubscribe(earlier)
    assert not subscribers.unsubscribe("")
    assert subscribers.unsubscribe(earlier)
    assert not subscribers.unsubscribe(later)
    assert stored() == "[]"


def test_requests_that_nobody_confirmed_are_forgotten(subscribers):
    subscribers.subscribe(ADA, "weekly", client="192.0.2.1", moment=NOW)
    assert ADA in stored()
    subscribers.due(NOW + 49 * HOUR)
    assert stored() == "[]"


def test_three_letters_a_day_go_to_an_address(subscribers):
    letters = [subscribers.subscribe(ADA, "weekly", moment=NOW + n * HOUR) for n in range(5)]
    assert [letter is not None for letter in letters] == [True, True, True, False, False]
    assert Subscribers().subscribe(ADA, "weekly", moment=NOW + 23 * HOUR) is None
    assert subscribers.subscribe(ADA, "weekly", moment=NOW + 24 * HOUR) is not None


def test_twenty_requests_an_hour_come_from_a_client_whichever_process_takes_them(subscribers):
    for number in range(20):
        assert Subscribers().subscribe(f"a{number}@example.org", "daily", client="192.0.2.1", moment=NOW)
    with pytest.raises(TooManyRequests, match="an hour"):
        Subscribers().subscribe(ADA, "daily", client="192.0.2.1", moment=NOW)
    assert subscribers.subscribe(ADA, "daily", client="192.0.2.2", moment=NOW)
    assert subscribers.subscribe("b@example.org", "daily", client="192.0.2.1", moment=NOW + HOUR)


@pytest.mark.parametrize(("frequency", "wait"), [("daily", 23 * HOUR), ("weekly", 167 * HOUR)])
def test_a_digest_is_due_a_little_before_its_day_or_week_is_over(subscribers, frequency, wait):
    subscriber = confirmed(subscribers, frequency=frequency)
    assert subscribers.due(NOW + wait - HOUR / 60) == []
    assert subscribers.due(NOW + wait) == [subscriber]


def test_one_claims_a_digest_until_it_is_sent_put_back_or_given_up(subscribers):
    subscriber = confirmed(subscribers)
    token = subscribers.claim(subscriber, NOW)
    assert subscribers.claim(subscriber, NOW) is None
    subscribers.put_back(subscriber, token)
    assert not subscribers.has_unsubscribe(token)
    assert subscribers.claim(subscriber, NOW)
    assert subscribers.claim(subscriber, NOW + HOUR) is None
    assert subscribers.claim(subscriber, NOW + HOUR * 1.1)  # the one before was killed
    subscribers.sent(subscriber, NOW + DAY)
    assert subscribers.claim(subscriber, NOW + DAY) is None  # sent meanwhile: this is the subscriber of before
    assert subscribers.all()[0].last_sent == NOW + DAY


def test_of_many_processes_one_gets_the_claim(subscribers):
    subscriber = confirmed(subscribers)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sum(pool.map(_claims, [subscriber] * 12)) == 1


def _claims(subscriber) -> bool:
    return Subscribers().claim(subscriber, NOW) is not None


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" ada@example.org ", ADA),
        ("Ada.L+x@EXAMPLE.org", "Ada.L+x@example.org"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("root@localhost", "root@localhost"),
        ("o'neill@example.org", "o'neill@example.org"),
    ],
)
def test_an_address_is_one_mailbox(typed, kept):
    assert checked_address(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "", "ada", "@example.org", "ada@", "ada@example", "ada@@example.org", "a b@example.org", "ada@exa mple.org",
        "ada@example.org,eve@example.org", "ada@example.org;eve@example.org", "Ada <ada@example.org>", '"a"@example.org',
        "ada@example.org\nBcc: eve@example.org", "ada\r@example.org", "ada@example.org\0", "ada@[127.0.0.1]", "ada@127.0.0.1",
        "ada@-a.org", "ada@a..org", ".ada@example.org", "ädä@example.org", "a" * 65 + "@example.org",
        "a@" + "b." * 125 + "org", "group:ada@example.org", "ada@example.org\u2028",
    ],
)  # fmt: skip
def test_anything_else_is_no_address(typed, subscribers):
    with pytest.raises(OptionError, match="no e-mail address"):
        subscribers.subscribe(typed, "daily")


def test_an_unknown_frequency_is_named(subscribers):
    with pytest.raises(OptionError, match=r"no frequency 'weakly' \(did you mean 'weekly'\?\)"):
        subscribers.subscribe(ADA, "weakly")
