"""Descriptors that are kept back, so that one that comes with a message finds room though the program has none left.

What the system finds no room for when a message is read, it drops; the message is told without it.
"""

from __future__ import annotations

import os
import sys
from errno import EAGAIN, EFBIG, EMFILE, ENFILE, ENOMEM

from parallelkit._worker._tracebacks import detached

KEPT = 2
"""One for what comes, and one to map it by, before Python 3.13."""


class Reserve:
    """Of one thread. What is lent is taken back as far as there is room for it then."""

    def __init__(self, fd: int) -> None:
        self._like = fd
        self._held: list[int] = []
        self.refill()

    def lend(self) -> None:
        """Leave room for what comes next."""
        while self._held:
            os.close(self._held.pop())

    def refill(self) -> None:
        while len(self._held) < KEPT:
            try:
                self._held.append(os.dup(self._like))
            except OSError:
                return  # all are in use: the next time perhaps

    def close(self) -> None:
        """Let go of all, for good."""
        self.lend()


def is_lack(error: OSError) -> bool:
    """Whether this process, or the system, has no descriptor left."""
    return error.errno in (EMFILE, ENFILE)


def is_shortage(error: BaseException) -> bool:
    """Whether it may well go better at another time: there was no descriptor, or no memory."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)


def explain(error: OSError) -> str:
    """What the system says; with the limit, where one has been reached."""
    if error.errno == EAGAIN:  # of fork, which means no more than this
        return "the limit of processes is reached (ulimit -u, or that of the container)"
    if error.errno == EFBIG:
        return "the limit of file sizes is too low (ulimit -f), as it is one for shared memory, too"
    return _limit_reached() if is_lack(error) else str(error)


def _limit_reached() -> str:
    return f"{os.strerror(EMFILE)} (limit {limit()})"


def limit() -> int:
    """How many descriptors this process may have."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def shortage(error: BaseException, what: str) -> OSError:
    """The error of one task that met it, which says what could not be done."""
    number = getattr(error, "errno", ENOMEM)
    words = _limit_reached() if number in (EMFILE, ENFILE) else os.strerror(number)
    told = OSError(number, f"{words} in the parent: {what}")
    told.__cause__ = detached(error)
    return told


_SHORTAGES = (EMFILE, ENFILE, ENOMEM)
