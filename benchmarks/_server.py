"""A web server on loopback, in a process of its own: it answers every GET after DELAY with a small JSON document.

It implements only as much HTTP as the measured clients use, and takes a tenth of the time that they take, so
that the clients are what is measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DELAY = 0.02
BODY = b'{"title": "a product", "price": 12.5, "reviews": [' + b", ".join([b'"good"'] * 150) + b"]}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
END_OF_REQUEST = b"\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection, kept open until the client closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(END_OF_REQUEST)
        for _ in requests:
            asyncio.get_running_loop().call_later(DELAY, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(HEAD + BODY)


async def serve() -> None:
    """Print the port, then serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server that runs during the ``with`` block."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks._server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/product"
        process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve())
