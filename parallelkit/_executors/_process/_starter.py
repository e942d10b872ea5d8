"""Starts workers: the first of an engine by themselves, later ones from a zygote, where that pays."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from math import inf

from parallelkit._executors._process._preload import needs
from parallelkit._executors._process._prestart import take
from parallelkit._executors._process._reserve import is_lack
from parallelkit._executors._process._spawn import Spawned, spawn
from parallelkit._executors._process._zygote import Zygote
from parallelkit._system import monotonic

WORTHWHILE = 5
"""Workers from which on a zygote pays. After the first death it does in any case."""

HANDS = 2
"""Workers that are not kept waiting for a zygote, where others had to end for it to be wanted; else one is not."""

EXPECTED = 0.1
"""Seconds for which no worker is started by itself because a zygote that was started ahead is about to be ready."""

AT_ONCE = 2
"""Workers that are forked before those that are ready by then are given something to do."""


class Starter:
    """Where there can be no zygote, all workers are started by themselves; they are the same workers.

    ``homes`` tells of which modules the functions are that they will run.
    """

    def __init__(self, width: int, poll: select.epoll, homes: Callable[[], Iterable[str]]) -> None:
        self._width = width
        self._poll = poll
        self._homes = homes
        self._zygote: Zygote | None = None
        self._fd = -1
        self._now = -inf
        self._proven = False  # the one that there is has forked
        self._forgone = False  # there was one that failed before it had
        self._more = False  # more are wanted than could be started in this turn
        self._expected = -inf  # until when the zygote that was started ahead is waited for
        ahead = take()
        if ahead is not None:
            self._open(ahead)
            self._expected = monotonic() + EXPECTED

    def startable(self, wanted: int, there: int, deaths: bool) -> int:
        """How many of the workers that are wanted may be started in this turn; the others by and by."""
        if self._forgone or wanted <= 0:
            return wanted
        if self._zygote is not None and self._zygote.ready and not self._zygote.fits():
            self._end()
        if self._zygote is None and (deaths or there + wanted >= WORTHWHILE):
            self._open()
        if self._zygote is None:
            return wanted
        if self._zygote.ready:
            self._more |= wanted > AT_ONCE
            return min(wanted, AT_ONCE)
        hands = 0 if self._now < self._expected else HANDS if deaths else 1
        return max(0, min(wanted, hands - there))

    def check(self, now: float) -> None:
        """A new turn: give up a zygote that does not start."""
        self._now, self._more = now, False
        if now >= self.deadline:
            self._forgo()

    @property
    def deadline(self) -> float:
        """When to make another turn: at once for more workers, or when the zygote that is being started should be ready."""
        if self._more:
            return -inf
        if self._zygote is None or self._zygote.ready:
            return inf
        return self._expected if self._now < self._expected else self._zygote.deadline

    def spawn(self) -> Spawned:
        """A worker; raises OSError where the system has no more to give."""
        if self._zygote is not None and self._zygote.ready:
            try:
                born = spawn(self._width, self._zygote.fork)
            except OSError as error:
                if is_lack(error):
                    raise  # to start one by itself takes more descriptors
                self._forgo()
            else:
                self._proven = True
                return born
        return spawn(self._width)

    def hear(self, fd: int) -> bool:
        """Whether this is the zygote's descriptor, which is ready to be read."""
        if fd != self._fd or self._zygote is None:
            return False
        try:
            self._zygote.hear()
        except OSError:
            self._forgo()
        return True

    def close(self) -> None:
        """End the zygote."""
        self._end()

    def _open(self, ahead: Zygote | None = None) -> None:
        try:
            zygote = ahead or Zygote(needs(self._homes()))
        except OSError as error:
            self._forgone = not is_lack(error)
            return
        fd = zygote.socket.fileno()
        try:
            self._poll.register(fd, select.EPOLLIN)
        except OSError:  # the system has no room for it
            zygote.close()
            return
        self._zygote, self._fd, self._proven = zygote, fd, False

    def _forgo(self) -> None:
        """For good, if it never worked. Else it was killed, or late on a busy machine, which the next need not be."""
        self._forgone = not self._proven
        self._end()

    def _end(self) -> None:
        if self._zygote is not None:
            self._poll.unregister(self._fd)
            self._zygote.close()
            self._zygote, self._fd = None, -1
