"""Five sources of product data: a real HTTP server on loopback, on which each path behaves in its own way."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SLOW = 0.8  # seconds until the slow source answers

SOURCES = {
    "amazon_reviews": "answers at once",
    "expert_reviews": f"answers after {SLOW:g} s",
    "price_comparison": "503 twice, then 200",
    "youtube_reviews": "never answers",
    "reddit_discussions": "410 Gone, for good",
}


class SourceServer:
    """The five sources, for as long as a ``with`` block lasts. ``asked`` counts the requests by source."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Request)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="sources")
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.asked = self._server.asked

    def __enter__(self) -> SourceServer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.closing.set()  # ends the requests that hang, so that no thread is left
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the threads that answer requests

    def __init__(self, address: tuple[str, int], request: type[_Request]) -> None:
        super().__init__(address, request)
        self.asked: Counter[str] = Counter()
        self.closing = threading.Event()


class _Request(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Behave as the source that the path names does."""
        url = urlsplit(self.path)
        source, product = url.path[1:], parse_qs(url.query)["product"][0]
        self.server.asked[source] += 1
        status = HTTPStatus.OK
        match source:
            case "expert_reviews":
                self.server.closing.wait(SLOW)
            case "price_comparison" if self.server.asked[source] <= 2:
                status = HTTPStatus.SERVICE_UNAVAILABLE
            case "youtube_reviews":
                self.server.closing.wait()
                return
            case "reddit_discussions":
                status = HTTPStatus.GONE
        self._answer(status, {"source": source, "product": product})

    def _answer(self, status: HTTPStatus, answer: dict[str, str]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is http.server's
        """Log nothing: it would get into the demo's output."""
