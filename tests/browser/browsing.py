"""The built site over http on 127.0.0.1, and a window that remembers what went wrong in it."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOO_LONG = 300_000
"""Milliseconds after which a page counts as hung, on a machine however busy."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over http; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


class Visit:
    """A page that remembers what went wrong while it was looked at."""

    def __init__(self, page, home: str) -> None:
        self.page, self.home, self.complaints = page, home, []
        page.set_default_timeout(TOO_LONG)
        page.on("request", self._asked)
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _asked(self, request) -> None:
        if not request.url.startswith((self.home, "data:", "blob:", "about:")):
            self.complaints.append(f"from outside: {request.url}")

    def _failed(self, request) -> None:
        # Leaving a page cuts off what it was still loading; nothing is wrong with that.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url}, {request.failure}")

    def _answered(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def _said(self, message) -> None:
        # The browser asks for it by itself where a page of ours has no icon; no page does.
        if message.location.get("url", "").endswith("/favicon.ico"):
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def go(self, relative: str) -> None:
        self.page.goto(self.home + relative, wait_until="load")
