"""Descriptors kept in reserve, so that one that arrives with a message finds room even if the program has none left.

If there is no room for it when the message is read, the system drops the descriptor and delivers the message without.
"""

from __future__ import annotations

import os
import sys
from errno import EAGAIN, EFBIG, EMFILE, ENFILE, ENOMEM, ENOSPC
from math import inf

from parallelkit._raised import describe_error
from parallelkit._worker._tracebacks import detached

KEPT = 2
"""One for the descriptor that arrives, and one for its mapping, which takes one before Python 3.13."""

PATIENCE = 2.0
"""Seconds for which a worker may be refused, again and again, until the runs that wait for one fail: other programs end."""


class Reserve:
    """The reserve of one thread. After it was used, it is refilled as far as there is room."""

    def __init__(self, fd: int) -> None:
        self._like = fd
        self._held: list[int] = []
        self.refill()

    def lend(self) -> None:
        """Make room for what comes next."""
        while self._held:
            os.close(self._held.pop())

    def refill(self) -> None:
        while len(self._held) < KEPT:
            try:
                self._held.append(os.dup(self._like))
            except OSError:
                return  # all are in use now; a later refill may have more luck

    def close(self) -> None:
        """Close all, for good."""
        self.lend()


class Shortage:
    """How long the system has had nothing for a worker, where there is no other worker."""

    def __init__(self) -> None:
        self._since = self._latest = -inf

    def lasts(self, error: OSError, now: float) -> bool:
        """Note one more refusal; whether there is no point in waiting any longer."""
        if now > self._latest + PATIENCE:
            self._since = now
        self._latest = now
        passes = is_shortage(error) or error.errno == EAGAIN
        return not passes or now >= self._since + PATIENCE


def is_lack(error: OSError) -> bool:
    """Whether this process, or the system, has run out of descriptors."""
    return error.errno in (EMFILE, ENFILE)


def is_shortage(error: BaseException) -> bool:
    """Whether trying again later may help: descriptors, or memory, have run out."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)


def is_too_large(error: BaseException) -> bool:
    """Whether something is larger than a file may be."""
    return isinstance(error, OSError) and error.errno == EFBIG


def explain(error: OSError) -> str:
    """Say in words what the system lacks, with the limit that was reached."""
    if error.errno == EAGAIN:  # of fork, where it means only this
        return "the limit of processes is reached (ulimit -u, or that of the container)"
    return _words(error.errno) if error.errno in (EMFILE, ENFILE, EFBIG) else describe_error(error)


def _words(number: int) -> str:
    if number == EFBIG:
        return "the limit of file sizes is too low (ulimit -f, which limits shared memory, too)"
    return os.strerror(number) + (f" (limit {fd_limit()})" if number == EMFILE else "")


def fd_limit() -> int:
    """How many descriptors this process may have."""
    most = os.sysconf("SC_OPEN_MAX")  # no ``resource``: that may be a module of the program
    return most if most >= 0 else sys.maxsize


def fd_share() -> int:
    """How many descriptors things of one kind may take, however many there are: workers need some, too."""
    return max(1, fd_limit() // 8)


def shortage(error: BaseException, what: str) -> OSError:
    """The error for the one task that was affected; ``what`` says what could not be done."""
    number = getattr(error, "errno", ENOMEM)
    told = OSError(number, f"{_words(number)} in the parent: {what}")
    told.__cause__ = detached(error)
    return told


_SHORTAGES = (EMFILE, ENFILE, ENOMEM, ENOSPC)  # the last where the system promises no more memory than it has
