"""A gate where one thread waits and which any thread may open; no wake-up is ever lost."""

from __future__ import annotations

import _thread
from _thread import TIMEOUT_MAX, allocate_lock
from collections import deque
from collections.abc import Callable
from math import inf

from parallelkit._executors._greenlets import refuse_late_patching
from parallelkit._executors._shared import FREE_THREADED

BREATHS = (0.05, 1.0)
"""Seconds after which a waiter stops blocking for a moment, once each. Python misses a signal that arrives at
the very moment when a thread begins to block, and handles it then."""


class Gate:
    """The waiter lays down a token, looks once more, and blocks; whoever takes the token releases the lock.

    With no waiter, ``open`` costs one look at an empty deque. A token is taken at most once, so the lock is
    released at most once per wait.
    """

    __slots__ = ("_lock", "_tokens")

    def __init__(self) -> None:
        if _thread.allocate_lock is not allocate_lock:
            refuse_late_patching()
        self._lock = allocate_lock()
        self._lock.acquire()
        self._tokens: deque[None] = deque()

    def open(self) -> None:
        """Let the waiter through, if there is one. Callable from any thread or from a signal handler."""
        # To raise IndexError would cost every finished attempt more than this look. Without a global lock, only ``pop`` is
        # sure to see the token of a waiter that has not seen what came before.
        if FREE_THREADED or self._tokens:
            try:
                self._tokens.pop()
            except IndexError:
                return
            except BaseException:  # raised by a signal handler, perhaps after the token was taken
                self.force()
                raise
            try:
                self._lock.release()
            except RuntimeError:
                pass  # it is open already, left so by a waiter that gave up

    def force(self) -> None:
        """Let the waiter through, if there is one, even if somebody took its token and did not open."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is open

    def wait(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """Block until somebody opens, or for ``timeout`` seconds; not at all if ``ready()`` already holds.

        False if the time ran out. May return early if a signal handler raised out of an earlier wait.
        """
        self._tokens.append(None)
        try:
            # Look again: what came before the token was laid down opened nothing.
            is_ready = bool(ready())
            if not is_ready and self._block(inf if timeout is None else timeout):
                return True
            self._withdraw()
            return is_ready
        except BaseException:
            # Raised by a signal handler, which may run anywhere, even after we were let through.
            self._give_up()
            raise

    def _block(self, seconds: float) -> bool:
        for breath in BREATHS:
            if seconds <= breath:
                break
            if self._lock.acquire(timeout=breath):
                return True
            seconds -= breath
        return self._lock.acquire(timeout=min(max(seconds, 0.0), TIMEOUT_MAX) if seconds < inf else -1.0)

    def _withdraw(self) -> None:
        try:
            self._tokens.pop()
        except IndexError:
            self._lock.acquire()  # somebody has taken the token: wait for the release that belongs to it

    def _give_up(self) -> None:
        try:
            self._tokens.pop()
        except IndexError:
            self._lock.acquire(blocking=False)  # the release has come; else it will end a later wait early
