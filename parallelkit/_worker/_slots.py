"""How results get into the ring, and frames onto the socket: the worker's writing side."""

from __future__ import annotations

import os
from _socket import socket as Socket  # noqa: N812
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable

from parallelkit._worker import _channel, _faults
from parallelkit._worker._channel import (
    FAILED,
    FALSE,
    FLOAT,
    HEAP,
    INT,
    LARGE,
    SENT,
    TAIL,
    TRUE,
    VALUE,
    frame,
)
from parallelkit._worker._travel import pack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    Put = Callable[[int, Any], None]


class Slots:
    """Fills slots; that they are filled, ``HEAD`` says, which is not counted up here."""

    def __init__(self, ring: _channel.Ring, outbox: Outbox) -> None:
        self._head, self._heap, self._kinds = ring.head, ring.heap, ring.kinds
        self._words, self._floats = ring.words, ring.floats
        self._outbox = outbox
        self._heap_head = 0
        self.puts: dict[type, Put] = {bool: self._put_bool, int: self._put_int, float: self._put_float}
        """What is written as a number needs no pickle; ``put_object`` is for all else."""

    def _put_bool(self, slot: int, value: bool) -> None:
        self._kinds[slot] = TRUE if value else FALSE

    def _put_int(self, slot: int, value: int) -> None:
        try:
            self._words[slot] = value
        except ValueError:  # more than 64 bits
            self.put_object(slot, value)
        else:
            self._kinds[slot] = INT

    def _put_float(self, slot: int, value: float) -> None:
        self._floats[slot] = value
        self._kinds[slot] = FLOAT

    def put_object(self, slot: int, value: object) -> None:
        """Pickle it; that it cannot be, or that there is no room for it, is the task's failure."""
        try:
            blob = pack(value)
        except Exception as error:
            self.put_failure(slot, _faults.capture_unsendable(value, error))
            return
        except BaseException as error:  # its class exits: that is no way of pickling, but the task's own end
            self.put_failure(slot, _faults.capture(error))
            return
        try:
            self._put(slot, VALUE, blob)
        except OSError as error:
            self.put_failure(slot, _faults.capture(error))

    def put_failure(self, slot: int, blob: bytes) -> None:
        """What ``_faults`` has made of an error."""
        self._put(slot, FAILED, blob)

    def _put(self, slot: int, kind: int, blob: bytes) -> None:
        """Into the heap; what is large, or finds no room, into a file."""
        length, at = len(blob), self._heap_head
        if length > LARGE:
            at = -1
        elif at + length >= HEAP or at < self._head[TAIL]:
            at = _channel.place(length, self._head[TAIL], at)
        if at < 0:
            self._put_file(slot, kind + 1, blob)
            return
        self._heap_head = end = at + length
        self._heap[at:end] = blob
        self._words[slot] = at << 32 | length
        self._kinds[slot] = kind

    def _put_file(self, slot: int, kind: int, blob: bytes) -> None:
        """Its descriptor goes ahead of the slot that means it."""
        fd = _channel.new_file("parallelkit-result")
        try:
            _channel.write_all(fd, blob)
            self._outbox.send(frame(_channel.BIG_RESULT, b"", len(blob)), fd)
        finally:
            os.close(fd)
        self._words[slot] = len(blob)
        self._kinds[slot] = kind


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
        done = self._socket.sendmsg([message], _channel.rights(fd) if fd is not None else [])
        if done < len(message):
            self._socket.sendall(memoryview(message)[done:])
        self._ring.head[SENT] += 1
