"""Starts an engine's workers: directly, or by forking a zygote where that pays."""

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
"""Number of workers from which on a zygote pays. After the first death it pays in any case."""

DIRECT = 2
"""Workers that may be started directly before the zygote is ready, if a death has made it pay; otherwise it is one."""

EXPECTED = 0.1
"""Seconds for which no worker is started directly, because a zygote that was started ahead will soon be ready."""

AT_ONCE = 2
"""Workers forked in one turn, so that those that are ready get something to do between turns."""


class Starter:
    """Decides how many workers may start in a turn, and how. If there can be no zygote, all are started directly.

    ``modules`` gives the modules of the functions that the workers will run.
    """

    def __init__(self, width: int, poll: select.epoll, modules: Callable[[], Iterable[str]]) -> None:
        self._width = width
        self._poll = poll
        self._modules = modules
        self._zygote: Zygote | None = None
        self._now = -inf
        self._proven = False  # the present zygote has forked a worker
        self._forgone = False  # a zygote failed before it had forked any: there will be no other
        self._more = False  # more workers are wanted than could be started in this turn
        self._expected = -inf  # until when to wait for a zygote that was started ahead
        ahead = take()
        if ahead is not None:
            self._open(ahead)
            self._expected = monotonic() + EXPECTED

    def startable(self, wanted: int, there: int, deaths: bool) -> int:
        """How many of the wanted workers may be started in this turn; the others follow in later turns."""
        if self._forgone or wanted <= 0:
            return wanted
        if self._zygote is not None and self._zygote.ready and not self._zygote.fits():
            self.close()
        if self._zygote is None and (deaths or there + wanted >= WORTHWHILE):
            self._open()
        if self._zygote is None:
            return wanted
        if self._zygote.ready:
            self._more |= wanted > AT_ONCE
            return min(wanted, AT_ONCE)
        direct = 0 if self._now < self._expected else DIRECT if deaths else 1
        return max(0, min(wanted, direct - there))

    def check(self, now: float) -> None:
        """Begin a turn: give up a zygote that takes too long to start."""
        self._now, self._more = now, False
        if now >= self.deadline:
            self._forgo()

    @property
    def deadline(self) -> float:
        """When another turn is due: at once if more workers are wanted, or when a zygote should have started."""
        if self._more:
            return -inf
        if self._zygote is None or self._zygote.ready:
            return inf
        return self._expected if self._now < self._expected else self._zygote.deadline

    def spawn(self) -> Spawned:
        """Start or fork a worker; raises OSError if the system has none to give."""
        if self._zygote is not None and self._zygote.ready:
            try:
                born = spawn(self._width, self._zygote.fork)
            except OSError as error:
                if is_lack(error):
                    raise  # starting one directly takes even more descriptors
                self._forgo()
            else:
                self._proven = True
                return born
        return spawn(self._width)

    def receive(self) -> None:
        """Read what the zygote has sent."""
        assert self._zygote is not None, "one that has ended is not polled"
        try:
            self._zygote.receive()
        except OSError:
            self._forgo()

    def close(self) -> None:
        """End the zygote, if there is one."""
        if self._zygote is not None:
            self._poll.unregister(self._zygote.socket)
            self._zygote.close()
            self._zygote = None

    def _open(self, ahead: Zygote | None = None) -> None:
        try:
            zygote = ahead or Zygote(needs(self._modules()))
        except OSError as error:
            self._forgone = not is_lack(error)
            return
        try:
            self._poll.register(zygote.socket, select.EPOLLIN)
        except OSError:  # the system has no room for it
            zygote.close()
            return
        self._zygote, self._proven = zygote, False

    def _forgo(self) -> None:
        """Give up the zygote: for good if it never forked; else it was killed or late, and the next need not be."""
        self._forgone = not self._proven
        self.close()
