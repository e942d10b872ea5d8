"""The worker's sending side of the socket."""

from __future__ import annotations

from _socket import socket as Socket  # noqa: N812
from _thread import allocate_lock
from collections import deque

from parallelkit._worker import _channel
from parallelkit._worker._channel import FDS, SENT


class Outbox:
    """Sends frames, each whole, from any thread; and from a signal handler, which must not wait for the lock."""

    def __init__(self, socket: Socket, ring: _channel.Ring) -> None:
        self._socket = socket
        self._ring = ring
        self._lock = allocate_lock()
        self._posted: deque[bytes] = deque()

    def send(self, message: bytes, fd: int | None = None) -> None:
        """When this returns, the parent can read it."""
        with self._lock:
            self._send(message, fd)
        self._send_posted()

    def post(self, message: bytes) -> None:
        """Send it now, or leave it to whoever is sending."""
        self._posted.append(message)
        self._send_posted()

    def _send_posted(self) -> None:
        # Look again after letting go: what was posted meanwhile was left to us.
        while self._posted and self._lock.acquire(False):
            try:
                while self._posted:
                    self._send(self._posted.popleft(), None)
            finally:
                self._lock.release()

    def _send(self, message: bytes, fd: int | None) -> None:
        if fd is not None:
            self._ring.head[FDS] += 1  # before it is there: the parent makes room for it
        done = self._socket.sendmsg([message], _channel.rights(fd) if fd is not None else [])
        if done < len(message):
            self._socket.sendall(memoryview(message)[done:])
        self._ring.head[SENT] += 1
