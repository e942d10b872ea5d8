"""A web server on loopback, in threads of this process, that misbehaves as told.

``Website`` answers a path with the function that ``pages`` has for it, and counts requests and connections.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE = 30.0  # seconds that a page waits for the test, at most


class Visit(BaseHTTPRequestHandler):
    """One connection; ``server`` is the website."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits until the client has acknowledged the headers, for 40 ms
    server: Website

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the client has disconnected

    def visit(self) -> None:
        path = self.path.partition("?")[0]
        with self.server.counting(path):
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            page = self.server.pages.get(path, missing)
            page(self)

    do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = visit  # noqa: N815  names that http.server looks up

    def say(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        """Send a complete answer. Underscores in header names become dashes."""
        self.begin(status, Content_Length=str(len(body)), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send the status line and the headers only."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def cut(self) -> None:
        """Close the connection."""
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def missing(visit: Visit) -> None:
    visit.say(b"no such page", 404)


class Website(ThreadingHTTPServer):
    """``log`` lists the paths in the order of their requests; ``widest`` is the most concurrent requests so far."""

    request_queue_size = 128
    daemon_threads = False  # so that closing the site waits for the end of every connection

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.pages: dict[str, Callable[[Visit], object]] = {}
        self.log: list[str] = []
        self.connections = 0
        self.widest = 0
        self._inside = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def seen(self) -> Counter[str]:
        """How often each path was requested."""
        return Counter(self.log)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """A URL of this site; ``host`` may also be ``localhost``."""
        return f"http://{host}:{self.server_port}{path}"

    @contextmanager
    def counting(self, path: str) -> Iterator[None]:
        """Count one request, which lasts for the block."""
        with self._lock:
            self.log.append(path)
            self._inside += 1
            self.widest = max(self.widest, self._inside)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: clients may disconnect at any time."""

    def __enter__(self) -> Website:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()  # waits for the threads, and so hangs if a client keeps its connection


def then(*pages: Callable[[Visit], object]) -> Callable[[Visit], object]:
    """A page that answers as the next of ``pages`` at each visit, and from then on as the last."""
    left = list(pages)

    def page(visit: Visit) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(visit)

    return page


def status(code: int, **headers: str) -> Callable[[Visit], object]:
    """A page that answers with this status."""
    return lambda visit: visit.say(f"status {code}".encode(), code, **headers)


def good(visit: Visit) -> None:
    """A page that answers with its path."""
    visit.say(visit.path.encode())


def dropped(visit: Visit) -> None:
    """A page that closes the connection without an answer."""
    visit.cut()


def short(visit: Visit) -> None:
    """A page whose body ends before its announced length."""
    visit.begin(Content_Length="1000")
    visit.wfile.write(b"x" * 500)
    visit.cut()


def short_chunks(visit: Visit) -> None:
    """A page whose body breaks off in the middle of a chunk."""
    visit.begin(Transfer_Encoding="chunked")
    visit.wfile.write(b"5\r\nhello\r\n5\r\nwo")
    visit.cut()


def endless(visit: Visit) -> None:
    """A page with an endless body; it stops when the client has disconnected."""
    visit.begin(Transfer_Encoding="chunked")
    with suppress(OSError):
        while True:
            visit.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    visit.cut()
