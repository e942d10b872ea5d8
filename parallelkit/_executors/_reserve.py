"""Descriptors that are kept back, so that one that comes with a message finds room though the program has none left.

What the system finds no room for when a message is read, it drops; the message is told without it.
"""

from __future__ import annotations

import os
from errno import EMFILE, ENFILE

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


def explain(error: OSError) -> str:
    """The system's words; with the limit, where one has been reached."""
    if not is_lack(error):
        return str(error)
    import resource

    return (
        f"{error.strerror or 'Too many open files'} (limit {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
    )
