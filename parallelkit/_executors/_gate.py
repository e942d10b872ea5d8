"""A gate at which one thread waits and which any thread may open; no wake-up is ever lost."""

from __future__ import annotations

import _thread
from _thread import TIMEOUT_MAX, allocate_lock
from collections import deque
from collections.abc import Callable
from math import inf

from parallelkit._executors._greenlets import check_lock

BREATHS = (0.05, 1.0)
"""Seconds after which a waiter comes up for a moment, once each. Python does not notice a signal that comes
in the instant in which a thread begins to block; so it notices it then, and need not wait for another."""


class Gate:
    """The waiter lays down a token, looks once more, and blocks; whoever takes the token opens.

    Nobody pays for a gate at which nobody waits: ``open`` is then one failed ``pop``. Because a
    token is taken at most once, the lock is released at most once a wait.
    """

    __slots__ = ("_lock", "_tokens")

    def __init__(self) -> None:
        if _thread.allocate_lock is not allocate_lock:
            check_lock(allocate_lock)
        self._lock = allocate_lock()
        self._lock.acquire()
        self._tokens: deque[None] = deque()

    def open(self) -> None:
        """Let the waiter through, if there is one. From any thread, or from a signal handler."""
        if self._tokens:  # raising IndexError would cost every finished attempt more than this look
            try:
                self._tokens.pop()
            except IndexError:
                return
            except BaseException:  # out of a signal handler, which may have come after the token was taken
                self.force()
                raise
            try:
                self._lock.release()
            except RuntimeError:
                pass  # it was open already, for a waiter that gave up

    def force(self) -> None:
        """Let the waiter through, if there is one, even if somebody took its token and never opened."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is open

    def wait(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """Block until somebody opens, or for ``timeout`` seconds; not at all if ``ready()`` already holds.

        False where the time ran out. May return early after a wait out of which a signal handler raised.
        """
        self._tokens.append(None)
        try:
            # Look again: what came before the token was laid down opened nothing.
            is_ready = bool(ready())
            if not is_ready and self._block(inf if timeout is None else timeout):
                return True
            self._withdraw()
            return is_ready
        except (
            BaseException
        ):  # out of a signal handler, which may run anywhere, also after we were let through
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
            self._lock.acquire()  # the token has been taken: a release is on its way, and is ours

    def _give_up(self) -> None:
        try:
            self._tokens.pop()
        except IndexError:
            self._lock.acquire(blocking=False)  # the release has come, or will end a later wait early
