"""Who may ask and change what. A rule of the server each."""

from __future__ import annotations

import base64
import re

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from paperworks.core.errors import OptionError
from paperworks.web.app import create_app
from paperworks.web.children import environment
from paperworks.web.routes.account import own_address
from paperworks.web.security import PAGE_POLICY, RateLimit
from paperworks.web.settings import ServeOptions, WebSettings, checked

TOKEN = "a-token-that-was-printed-once"


@pytest.fixture
def guarded(tmp_path):
    """A server that other machines reach, and a browser without its token."""
    app = create_app(WebSettings(host="0.0.0.0", token=TOKEN, runs=tmp_path / "runs", works_queue=False))
    return TestClient(app, base_url="http://papers.example.org", follow_redirects=False)


def log_in(browser, token, next="/"):
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login").text)[1]
    return browser.post("/login", data={"token": token, "csrf": csrf, "next": next})


def changes(app):
    """(method, path) of everything that is not only reading."""
    found = []
    routes = list(app.routes)
    while routes:
        route = routes.pop()
        if isinstance(route, APIRoute):
            found += [(method, route.path) for method in route.methods - {"GET", "HEAD"}]
        routes += getattr(getattr(route, "original_router", None), "routes", [])
    return sorted(found)


def filled(path):
    return re.sub(r"\{\w+\}", "abc", path)


def test_another_host_than_loopback_demands_a_token():
    with pytest.raises(OptionError, match="needs a token"):
        checked(ServeOptions(host="0.0.0.0"), "")
    assert checked(ServeOptions(host="127.0.0.5"), "").token == ""


def test_the_token_shows_in_no_representation():
    assert TOKEN not in repr(WebSettings(token=TOKEN))


def test_without_the_token_nothing_is_shown(guarded):
    for path in ("/", "/papers/rdpo", "/runs", "/compare"):
        answer = guarded.get(path)
        assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next=")
    assert guarded.get("/api/papers").status_code == 401
    assert guarded.get("/feed.atom").headers["www-authenticate"] == "Basic"


def test_the_token_opens_as_bearer_as_password_and_as_cookie(guarded):
    assert guarded.get("/api/papers", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    assert guarded.get("/api/papers", headers={"authorization": f"Basic {basic}"}).status_code == 200
    assert guarded.get("/api/papers", headers={"authorization": f"Bearer {TOKEN[:-1]}"}).status_code == 401
    answer = log_in(guarded, TOKEN, next="/runs")
    cookie = next(line for line in answer.headers.get_list("set-cookie") if "session" in line)
    assert answer.headers["location"] == "/runs"
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert guarded.get("/").status_code == 200


def test_a_wrong_token_opens_nothing_and_tries_are_counted(guarded):
    assert log_in(guarded, "a guess").status_code == 403
    assert guarded.get("/").status_code == 303
    assert {log_in(guarded, f"guess {number}").status_code for number in range(12)} == {403, 429}


def test_after_the_token_one_is_never_sent_to_another_site():
    assert own_address("/runs?a=1") == "/runs?a=1"
    assert {own_address(bad) for bad in ("https://evil.example", "//evil.example", "/\\evil.example", "/a\nb")} == {"/"}


def test_every_change_needs_the_browsers_own_token(client, csrf):
    # One click in a mail program carries its own authority in its address.
    wanted = [each for each in changes(client.app) if each[1] != "/follow/unsubscribe"]
    assert {("POST", "/papers/{slug}/run"), ("POST", "/api/jobs"), ("POST", "/compare")} <= set(wanted)
    for method, path in wanted:
        assert client.request(method, filled(path)).status_code == 403, (method, path)
        wrong = client.request(method, filled(path), headers={"x-csrf-token": "x" * 43})
        assert wrong.status_code == 403, (method, path)


def test_a_change_asked_for_by_another_sites_page_is_refused(client, csrf):
    evil = client.post("/api/command-line", headers={**csrf, "origin": "https://evil.example"})
    own = client.post("/api/command-line", headers={**csrf, "origin": "http://127.0.0.1:8765"})
    assert (evil.status_code, own.status_code) == (403, 422)


def test_the_csrf_cookie_is_out_of_reach_for_scripts_and_other_sites(client):
    cookie = client.get("/api/session").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie


def test_a_name_that_points_here_from_elsewhere_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "evil.example:8765"}).status_code == 421
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200
    for odd in ("[::1", "a]b", "127.0.0.1@evil.example", "localhost/evil.example", ""):
        assert client.get("/", headers={"host": odd}).status_code == 421


def test_pages_allow_no_script_but_the_servers_own(client):
    for path in ("/", "/papers/rdpo", "/nothing-here", "/static/page.js"):
        assert client.get(path).headers["content-security-policy"] == PAGE_POLICY
    assert "script-src 'self';" in PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY.replace("style-src-attr 'unsafe-inline'", "")


def test_no_page_holds_an_inline_script_or_style_sheet_or_handler(client):
    for path in ("/", "/papers/rdpo", "/compare", "/api", "/follow", "/runs"):
        text = client.get(path).text
        assert not re.search(r"<script(?![^>]*src=)|<style|\son[a-z]+=|javascript:", text), path


def test_what_is_typed_is_shown_as_text(client):
    text = client.get("/", params={"q": '<script>alert(1)</script>"'}).text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<img" not in client.get("/papers/%3Cimg%20src=x%3E").text


def test_more_than_is_taken_is_refused_before_it_is_read(client, csrf):
    answer = client.post("/api/command-line", headers=csrf, data={"seeds": "1" * 2_000_000})
    assert answer.status_code == 413
    pieces = (b"x" * 100_000 for _ in range(30))  # of no length that is told beforehand
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/command-line", headers={**csrf, **kind}, content=pieces).status_code == 413


def test_static_files_stay_in_their_folder(client):
    assert client.get("/static/page.css").status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert client.get(path).status_code == 404


def test_a_rate_limit_counts_each_client_and_forgets():
    limit = RateLimit(most=2, seconds=3600)
    assert [limit.is_exceeded("a") for _ in range(3)] == [False, False, True]
    assert not limit.is_exceeded("b")
    assert not RateLimit(most=1, seconds=0).is_exceeded("a")


def test_processes_of_jobs_have_no_secret_of_the_server(monkeypatch):
    monkeypatch.setenv("PAPERWORKS_TOKEN", TOKEN)
    monkeypatch.setenv("PAPERWORKS_SMTP_PASSWORD", "another secret")
    monkeypatch.setenv("PAPERWORKS_HOME", "/somewhere")
    given = environment()
    assert given["PAPERWORKS_HOME"] == "/somewhere"
    assert not {TOKEN, "another secret"} & set(given.values())


def test_behind_tls_cookies_keep_to_it(tmp_path):
    app = create_app(WebSettings(runs=tmp_path, works_queue=False, public_url="https://papers.example.org"))
    public, here = (TestClient(app, base_url=f"http://{host}") for host in ("papers.example.org", "127.0.0.1"))
    assert "Secure" in public.get("/api/session").headers["set-cookie"]
    assert "Secure" not in here.get("/api/session").headers["set-cookie"]
