"""A small local web server that stands in for five sites: one is overloaded at first, one hangs."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGES = {
    "/amazon/reviews": [{"stars": 5}, {"stars": 4}, {"stars": 3}],
    "/reddit/search": [{"title": "Worth it?"}, {"title": "It leaks"}],
    "/prices/offers": [{"price": 219.0}, {"price": 189.5}],
    "/experts/verdict": {"verdict": "buy"},
}

asked = Counter()
closing = threading.Event()


class Site(BaseHTTPRequestHandler):
    """All five sites; the path selects one."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        asked[path] += 1
        if path == "/youtube/videos":
            closing.wait()
        elif path == "/prices/offers" and asked[path] <= 2:
            self.send_error(503)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(PAGES[path]).encode())

    def log_message(self, *args):
        pass


@contextmanager
def open_web():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        closing.set()  # releases the requests that hang
        server.shutdown()
