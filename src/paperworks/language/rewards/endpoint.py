"""Asking an OpenAI-compatible endpoint: many questions at a time, patiently, and none of them twice.

Answers are kept on disk by the content of the question, so that a run that starts again pays only for what is new. The
key comes from the environment and goes nowhere but into the request. Nothing here knows what is asked.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from paperworks.core.errors import OptionError, RewardError
from paperworks.core.files import cache_dir
from paperworks.core.options import check_ranges, option

T = TypeVar("T")
KEYS = ("PAPERWORKS_API_KEY", "OPENAI_API_KEY")
_LONGEST_WAIT = 60.0  # seconds between two tries
_LARGEST_REPLY = 4 * 2**20


@dataclass(frozen=True)
class EndpointOptions:
    """Which model at which address, and how it is asked."""

    model: str = option(help="the model's name at the endpoint")
    url: str = option(help="base address, https://HOST/v1; /chat/completions is put behind it")
    temperature: float = option(0.0, "of the answers", low=0)
    max_tokens: int = option(64, "most tokens of an answer", low=1)
    concurrency: int = option(4, "requests at a time", low=1)
    requests_per_minute: float = option(0.0, "most requests started a minute; 0: no limit", low=0)
    retries: int = option(5, "tries after the first, on 429, 5xx, timeouts and unusable answers", low=0)
    first_wait_seconds: float = option(1.0, "wait before the first retry; doubles with each", low=0)
    timeout_seconds: float = option(60.0, "longest wait for an answer", above=0)
    price_in: float = option(0.0, "of a million prompt tokens, in any currency", low=0)
    price_out: float = option(0.0, "of a million answer tokens", low=0)
    cache: str = option("", "SQLite file of answers; none: no cache (default: one in the paperworks home)")

    def __post_init__(self) -> None:
        check_ranges(self)
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(f"url {self.url!r}: expected http://HOST/v1 or https://HOST/v1")
        if parts.username or parts.password or parts.query:
            raise OptionError(f"url: expected no user, password or query in it; the key is read from {KEYS[0]}")
        if not self.model:
            raise OptionError("model: expected the model's name at the endpoint")


@dataclass
class Usage:
    """What was asked so far."""

    requests: int = 0  # sent, retries included
    retries: int = 0
    answers: int = 0
    from_cache: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def cost(self, options: EndpointOptions) -> float:
        """In the currency of the prices."""
        return (self.prompt_tokens * options.price_in + self.answer_tokens * options.price_out) / 1e6


class Unusable(Exception):
    """An answer that does not hold what was asked for; the question is asked again."""


class Endpoint(Generic[T]):
    """Asks questions and reads their answers: `read(text)` gives the value of an answer or raises Unusable.

    `ask(messages_of_each)` returns the values in order. A context is not needed: connections are opened a request.
    """

    def __init__(self, name: str, options: EndpointOptions, read: Callable[[str], T]) -> None:
        self.name, self.options, self.read = name, options, read
        self.usage = Usage()
        self._cache = _Cache(options.cache)
        self._lock, self._next_start = threading.Lock(), 0.0
        self._stop = threading.Event()

    def ask(self, questions: Sequence[Sequence[dict[str, str]]]) -> list[T]:
        """The value of each answer. Raises RewardError when a question stays without one; what was answered is kept."""
        bodies = [self._body(question) for question in questions]
        keys = [hashlib.sha256(f"{self.options.url}\n{body}".encode("utf-8", "replace")).hexdigest() for body in bodies]
        different = dict(zip(keys, bodies, strict=True))
        self._stop.clear()
        with self._cache as cache:
            found = {key: self._cached(text) for key, text in cache.get(list(different)).items()}
            values: dict[str, T] = {key: value[0] for key, value in found.items() if value}
            self.usage.from_cache += len(values)
            left = [key for key in different if key not in values]
            with ThreadPoolExecutor(self.options.concurrency, "endpoint") as pool:
                futures: dict[Future[T], str] = {
                    pool.submit(self._answer, different[key], key, cache): key for key in left
                }
                try:
                    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                    values.update({futures[future]: future.result() for future in done})
                except BaseException:
                    self._stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        return [values[key] for key in keys]

    def notes(self) -> list[str]:
        """What was asked so far, and what it cost, in a line."""
        usage = self.usage
        if not usage.requests and not usage.from_cache:
            return []
        tokens = f"{usage.prompt_tokens} tokens in, {usage.answer_tokens} out"
        priced = self.options.price_in or self.options.price_out
        cost = f", cost {usage.cost(self.options):.4f}" if priced else " (give price_in and price_out to see the cost)"
        return [
            f"{self.name}: {usage.requests} requests ({usage.retries} retries), {usage.from_cache} answers from the cache, "
            f"{tokens}{cost}"
        ]

    def _body(self, messages: Sequence[dict[str, str]]) -> str:
        options = self.options
        body = {
            "model": options.model,
            "messages": list(messages),
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
        }
        return json.dumps(body, sort_keys=True)

    def _cached(self, text: str) -> tuple[T] | None:
        try:
            return (self.read(text),)
        except Unusable:  # kept by a version that read answers otherwise
            return None

    def _answer(self, body: str, key: str, cache: _Cache) -> T:
        wait_seconds, problem = self.options.first_wait_seconds, ""
        for attempt in range(self.options.retries + 1):
            if self._stop.is_set():
                break
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            self._await_turn()
            asked_wait = 0.0
            try:
                text = self._request(body)
                value = self.read(text)
                cache.put(key, text)
                return value
            except urllib.error.HTTPError as error:
                problem, asked_wait = self._refused(error)
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
                reason = getattr(error, "reason", error)
                if isinstance(reason, TimeoutError):
                    reason = f"no answer within {self.options.timeout_seconds:g} s"
                problem = f"{' '.join(str(reason).split()) or type(error).__name__}"
            except Unusable as error:
                problem = f"unusable answer: {error}"
            if attempt < self.options.retries:
                self._stop.wait(min(max(wait_seconds, asked_wait), _LONGEST_WAIT))
                wait_seconds *= 2
        tries = self.options.retries + 1
        raise RewardError(
            f"{self.name}: no usable answer from {self.options.url} after {tries} tries ({problem or 'stopped'}); answers "
            "so far are kept: start again when it can be reached"
        )

    def _await_turn(self) -> None:
        """Waits until one more request keeps within the rate."""
        if not self.options.requests_per_minute:
            return
        with self._lock:
            start = max(self._next_start, time.monotonic())
            self._next_start = start + 60 / self.options.requests_per_minute
        self._stop.wait(max(0.0, start - time.monotonic()))

    def _request(self, body: str) -> str:
        """The text of one answer. Raises HTTPError, OSError or Unusable."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
        if key:
            headers["Authorization"] = f"Bearer {key.strip()}"
        address = self.options.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, body.encode(), headers)
        with self._lock:
            self.usage.requests += 1
        with _OPENER.open(request, timeout=self.options.timeout_seconds) as response:
            content = _read_until(response, time.monotonic() + self.options.timeout_seconds)
        try:
            reply = json.loads(content)
            text = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Unusable(f"expected JSON with choices[0].message.content; got {content[:60]!a}") from None
        if not isinstance(text, str):
            raise Unusable(f"expected text in choices[0].message.content; got {type(text).__name__}")
        used = reply.get("usage")
        used = used if isinstance(used, dict) else {}
        with self._lock:
            self.usage.answers += 1
            self.usage.prompt_tokens += _count(used.get("prompt_tokens"))
            self.usage.answer_tokens += _count(used.get("completion_tokens"))
        return text

    def _refused(self, error: urllib.error.HTTPError) -> tuple[str, float]:
        """What the status says, and the wait it asks for. Raises RewardError for what no retry can mend."""
        with error:
            try:
                said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:120]
            except (OSError, http.client.HTTPException):
                said = ""
        what = f"{error.code} {error.reason}{': ' + said if said else ''}"
        if error.code in (401, 403):
            raise RewardError(f"{self.name}: {self.options.url} refused the key ({what}); set {' or '.join(KEYS)}")
        if error.code not in (408, 409, 425, 429) and error.code < 500:
            raise RewardError(f"{self.name}: {self.options.url} refused the request ({what}); check model and url")
        try:
            return what, max(0.0, float(error.headers.get("Retry-After", "0")))
        except ValueError:  # a date
            return what, 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _read_until(response: Any, deadline: float) -> bytes:
    """The body, of a sender that may dribble. Raises TimeoutError, Unusable."""
    content = b""
    while chunk := response.read1(65536):
        content += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(content) > _LARGEST_REPLY:
            raise Unusable("an answer of more than 4 MB")
    return content


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


class _Cache:
    """Answers by the digest of what was asked, in SQLite; several processes may use one."""

    def __init__(self, path: str) -> None:
        self._wanted = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self.path: Path | None = None

    def __enter__(self) -> _Cache:
        if self._wanted != "none":
            self.path = Path(self._wanted).expanduser() if self._wanted else cache_dir("judge") / "answers.sqlite"
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
                self._run("CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, answer TEXT NOT NULL)")
            except (sqlite3.Error, OSError) as error:
                raise self._broken(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The answers that are there."""
        found = {}
        for key in keys if self._database is not None else ():
            for (answer,) in self._run("SELECT answer FROM answers WHERE question = ?", key):
                found[key] = answer
        return found

    def put(self, key: str, answer: str) -> None:
        """Keeps an answer."""
        if self._database is not None:
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer)

    def _run(self, command: str, *values: str) -> list[tuple[str]]:
        assert self._database is not None
        with self._lock:
            try:
                return self._database.execute(command, values).fetchall()
            except (sqlite3.Error, UnicodeEncodeError) as error:
                raise self._broken(error) from None

    def _broken(self, error: Exception) -> RewardError:
        return RewardError(f"{self.path}: the cache of a judge's answers cannot be used ({error}); move it away")
