"""A browser's visit to the page: where it is, what it looks like, and whether it keeps the page's promises.

Every visit is watched. A message in the console (a forbidden script or style among them), an error in the page's script, a
request to another machine: each fails the test that made the visit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

DESK, PHONE = (1280, 900), (390, 844)  # CSS pixels
SCHEMES = ("light", "dark")
SECONDS = 60.0  # that a page or an answer may take


class Visit:
    """One window. `page` is Playwright's; `base` the server's address; pictures go into `folder` under `name`."""

    def __init__(self, chromium: Browser, base: str, folder: Path, name: str, **looks: Any) -> None:
        self.base, self._folder, self._name = base, folder, name
        self._size = looks.pop("size", DESK)
        self._scheme = looks.pop("scheme", "light")
        self._context = chromium.new_context(
            base_url=base,
            viewport={"width": self._size[0], "height": self._size[1]},
            color_scheme=self._scheme,
            **looks,
        )
        self._context.set_default_timeout(SECONDS * 1000)
        self._pictures = 0
        self._refused: set[str] = set()
        self.complaints: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", self._note_request)

    def open(self, path: str, status: int = 200) -> Page:
        """Goes to an address of the server, which answers with `status`."""
        if status != 200:
            self.expect_refusal(path)
        answer = self.page.goto(path)
        assert answer is not None and answer.status == status, f"{path}: {answer and answer.status}"
        return self.page

    def expect_refusal(self, path: str) -> None:
        """An address that is about to answer with a mistake's status, which browsers write to the console."""
        self._refused.add(path)

    def allow_clipboard(self) -> None:
        self._context.grant_permissions(["clipboard-read", "clipboard-write"])

    def picture(self, step: str) -> None:
        """Keeps what is to be seen, at a desk and on a phone, by day and by night."""
        self._pictures += 1
        for width, height in (DESK, PHONE):
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                self.snap(f"{self._pictures:02}-{step}-{width}-{scheme}")
        self.page.set_viewport_size({"width": self._size[0], "height": self._size[1]})
        self.page.emulate_media(color_scheme=self._scheme)

    def snap(self, name: str) -> None:
        """Keeps what is to be seen as it is now."""
        file = re.sub(r"[^\w.-]+", "-", f"{self._name}-{name}") + ".png"
        self.page.screenshot(path=self._folder / file, full_page=True)

    def width_hidden(self) -> int:
        """By how many pixels the page is wider than the window."""
        hidden: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return hidden

    def leave(self) -> None:
        """Ends the visit; fails where the page broke a promise."""
        self._context.close()
        assert not self.complaints, "\n".join(self.complaints)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        address = urlsplit(str(message.location.get("url", "")))
        path = f"{address.path}?{address.query}" if address.query else address.path
        if message.text.startswith("Failed to load resource: the server responded with") and path in self._refused:
            return
        self.complaints.append(f"console of {self.page.url}: {message.text} ({address.geturl()})")

    def _note_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and f"{address.scheme}://{address.netloc}" != self.base:
            self.complaints.append(f"a request to another machine: {request.url}")
