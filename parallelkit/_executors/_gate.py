"""A gate at which one thread waits and which any thread may open; no wake-up is ever lost."""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable


class Gate:
    """The waiter lays down a token, looks once more, and blocks; whoever takes the token opens.

    Nobody pays for a gate at which nobody waits: ``open`` is then one failed ``pop``. Because a
    token is taken at most once, the lock is released at most once a wait.
    """

    __slots__ = ("_lock", "_tokens")

    def __init__(self) -> None:
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
            self._lock.release()

    def wait(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """Block until somebody opens, or for ``timeout`` seconds; not at all if ``ready()`` already holds.

        False where the time ran out.
        """
        self._tokens.append(None)
        # Look again: what came before the token was laid down opened nothing.
        if ready():
            self._withdraw()
        elif not self._acquire(timeout):
            self._withdraw()
            return False
        return True

    def _acquire(self, timeout: float | None) -> bool:
        limit = -1.0 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        try:
            return self._lock.acquire(timeout=limit)
        except BaseException:  # a signal handler raised: leave no token behind
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        try:
            self._tokens.pop()
        except IndexError:
            self._lock.acquire()  # the token has been taken: a release is on its way, and is ours
