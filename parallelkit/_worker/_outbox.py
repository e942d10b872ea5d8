"""The worker's sending side of the socket.

A send blocks while the socket is full. If the system has no room for a message (too many descriptors in flight, no
memory), it is tried again, at growing intervals, as in the parent.

Children that a task has forked send on the same socket. The kernel may put what one process sends into the midst of
another's frame if that is long. So whoever sends locks a file: long frames always, all frames once there was a fork.
"""

from __future__ import annotations

import os
from _socket import socket as Socket  # noqa: N812  # a class
from _thread import allocate_lock
from collections import deque
from time import sleep

from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import FDS, NO_ROOM, PAUSE, SENT

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 10.0  # seconds after which the send fails, and with it the task
LONG = 4096  # bytes; the kernel takes a message of up to ten times as many in one piece


class Outbox:
    """Sends frames, each in one piece, from any thread. In a signal handler use ``post``, which never waits for the lock."""

    def __init__(self, socket: Socket, ring: _channel.Ring) -> None:
        self._socket = socket
        self._ring = ring
        self._pid = os.getpid()
        self._file: int | None = None
        self._forked = False
        self._renew()

    def share(self, file: int) -> None:
        """From now on, let children that tasks fork send, too, in turns by a lock of this file."""
        self._file = file
        os.register_at_fork(before=self._note_fork, after_in_child=self._renew)

    def _note_fork(self) -> None:
        self._forked = True

    def _renew(self) -> None:
        """Forget what other threads are sending: a child has only the thread that forked it."""
        self._lock = allocate_lock()
        self._posted: deque[bytes] = deque()

    def is_of_child(self) -> bool:
        """Whether this is a process that a task has forked. It must not count what it sends: the count is its parent's."""
        return os.getpid() != self._pid

    def send(self, message: bytes, fd: int | None = None) -> None:
        """Send a frame; when this returns, the parent can read it. If this raises, the parent does not get it."""
        with self._lock:
            self._send(message, fd)
        try:
            self._send_posted()
        except OSError:
            pass  # not this frame's; what was posted is tried again after the next one

    def post(self, message: bytes) -> None:
        """Send a frame now, or leave it to the thread that is sending."""
        self._posted.append(message)
        self._send_posted()

    def _send_posted(self) -> None:
        # Look again after releasing the lock: a frame posted meanwhile was left to us.
        while self._posted and self._lock.acquire(False):
            try:
                while self._posted:
                    self._send(self._posted[0], None)
                    self._posted.popleft()
            finally:
                self._lock.release()

    def _send(self, message: bytes, fd: int | None) -> None:
        if self._file is None or not (self._forked or len(message) > LONG):
            self._send_now(message, fd)
            return
        from fcntl import LOCK_EX, LOCK_UN, lockf  # late: this module is imported on other systems, too

        try:  # first, since the handler of a signal may raise just after the file is locked
            lockf(self._file, LOCK_EX)  # a lock of the process, which a child of it does not have
            self._send_now(message, fd)
        finally:
            lockf(self._file, LOCK_UN)  # does nothing if it is not locked

    def _send_now(self, message: bytes, fd: int | None) -> None:
        """The handler of a signal may raise at any time: what was begun is ended all the same, and counted."""
        if fd is not None:
            self._ring.head[FDS] += 1  # before it is sent, so that the parent makes room for it
        done: list[int] = []
        try:
            self._write(message, _channel.rights(fd) if fd is not None else [], done)
        finally:
            while 0 < sum(done) < len(message):
                self._write(memoryview(message)[sum(done) :], [], done)
            if done and not self.is_of_child():
                self._ring.head[SENT] += 1

    def _write(self, message: bytes | memoryview, rights: list[Any], done: list[int]) -> None:
        """Write what the socket takes, and add its length to ``done``: in one call, for a signal may raise after each."""
        began: float | None = None
        while True:
            try:
                done.extend(map(self._socket.sendmsg, ([message],), (rights,)))
                return
            except OSError as error:
                now = monotonic()
                began = now if began is None else began
                if error.errno not in NO_ROOM or now >= began + PATIENCE:
                    raise
                sleep(max(PAUSE, now - began))
