"""The meters of limits: they tell when the next start may be, and never wait.

Instants come in as arguments, and go out as answers.
"""

from __future__ import annotations

import threading
from bisect import insort
from heapq import merge
from itertools import chain, islice
from math import inf
from sys import maxsize
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

MARGIN = 0.005  # share of ``per`` by which a task may look at its own clock later than its start is reported

SOON = 0.001  # seconds after which a run asks others again, at the earliest: a window may be shorter than the clock's ticks
TURN = 1.0  # seconds for which a run that has given a start back lets others go first, at most


class Asker(Protocol):
    """A run's share in a ``RateLog``."""

    def look(self, asked: bool = False) -> None:
        """From any thread: have the run see which granted starts were reported, and what may start now.

        ``asked``: another run waits for a start that this one may hold in vain.
        """


class RateLog:
    """The starts of one group. Granted starts whose worker has not reported yet are *pending*.

    Strict: a start may be granted when fewer than ``calls`` are pending or within the last ``per``
    seconds. It really begins later than it is granted, so no window ever holds more than that.
    Of a pending start the latest instant is kept at which it certainly had not begun (its grant, or the last
    look). It need not be looked at before that instant leaves the window, so there is no polling.
    Smooth: in addition, the generic cell rate algorithm (ITU-T I.371) without bursts; a start that is late by
    less than one interval does not shift those behind it. The algorithm alone would not do, because it decides
    when starts are granted: one that begins late, and the next, could begin together.
    """

    def __init__(self, calls: int, per: float, smooth: bool, lock: threading.Lock) -> None:
        self._calls = calls
        self._per = per * (1 + MARGIN)
        self._interval = per / min(calls, maxsize)  # a larger int may be too large for a float
        self._smooth = smooth
        self._lock = lock
        self._starts: list[float] = []
        # By run, for each pending start: when it certainly had not begun. Weak: a run that has crashed does not count.
        self._pending: WeakKeyDictionary[Asker, list[float]] = WeakKeyDictionary()
        self._curious: WeakSet[Asker] = WeakSet()  # runs to be told of the next report
        self._next = -inf  # when the next start is due, if smooth
        self._paused_until = -inf

    def at_rest(self, now: float) -> bool:
        """Whether forgetting this log would change nothing, if no run holds it."""
        spent = not self._starts or self._starts[-1] + self._per <= now
        return spent and self._paused_until <= now

    def is_open(self, now: float) -> bool:
        """Whether a start may be granted now, as far as is known."""
        with self._lock:
            return self._is_open(now)

    def _is_open(self, now: float) -> bool:
        return now >= self._paused_until and now >= self._next and self._excess(now) < 0

    def _excess(self, now: float) -> int:
        """How many starts there are beyond ``calls``; negative if one may be granted."""
        expired = 0
        while expired < len(self._starts) and self._starts[expired] + self._per <= now:
            expired += 1
        del self._starts[:expired]
        return len(self._starts) + sum(map(len, self._pending.values())) - self._calls

    def earliest(self, now: float) -> float:
        """When the next start may be granted; if reports are missing, when to look for them."""
        with self._lock:
            at, excess = max(now, self._paused_until, self._next), self._excess(now)
            if excess < 0:
                return at
            instants = merge(self._starts, *self._pending.values())  # few of which are looked at
            return max(at, next(islice(instants, excess, None)) + self._per)

    def take(self, now: float, run: Asker) -> bool:
        """Grant a start now, if that may be; return whether it was. Atomic, as other runs may share this log."""
        with self._lock:
            if not self._is_open(now):
                return False
            if self._smooth:
                late = now - self._next
                self._next = (now if late > self._interval else self._next) + self._interval
            self._pending.setdefault(run, []).append(now)
            return True

    def give_back(self, run: Asker) -> None:
        """Take back a start that was granted a moment ago and will not come about."""
        with self._lock:
            self._next -= self._interval
            self._drop(run)

    def take_back(self, now: float, run: Asker) -> float:
        """Take back a start that was granted some time ago and has not happened; return until when others go first."""
        with self._lock:
            self._drop(run)
            if self._smooth:
                last = max(chain(self._starts[-1:], *self._pending.values()), default=-inf)
                self._next = last + self._interval
            curious = self._take_curious(run)
        for asker in curious:
            asker.look()
        return min(self._later(now), now + TURN)

    def _later(self, now: float) -> float:
        return now + max(self._per, SOON)

    def _take_curious(self, run: Asker) -> list[Asker]:
        """The other runs that are to be told of what this one does now; they will not be told again."""
        curious = [asker for asker in self._curious if asker is not run] if self._curious else []
        self._curious.difference_update(curious)
        return curious

    def _drop(self, run: Asker) -> None:
        """Remove one pending start, the last: those left are then looked for too early rather than too late."""
        pending = self._pending[run]
        pending.pop()
        if not pending:
            del self._pending[run]

    def confirm(self, at: float, run: Asker) -> None:
        """Note that a granted start has happened, at this instant."""
        with self._lock:
            self._drop(run)
            insort(self._starts, at)
            curious = self._take_curious(run)
        for asker in curious:
            asker.look()

    def looked(self, at: float, run: Asker) -> None:
        """Note that at this instant none of the run's pending starts, of which there are some, had begun."""
        with self._lock:
            pending = self._pending[run]
            pending[:] = [at] * len(pending)

    def ask(self, now: float, run: Asker) -> float:
        """Have the other runs look for their starts, or give them back; return when to ask again.

        This run is woken at the next report, and when a start comes back.
        """
        with self._lock:
            others = [asker for asker in self._pending if asker is not run]
            self._curious.add(run)
        for asker in others:
            asker.look(asked=True)
        return self._later(now)

    def pause(self, until: float) -> None:
        """Grant no start before this instant: the service asked for that."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)


class Cap:
    """The number of attempts of one group that run now, and the most that may; asked as a ``RateLog`` is."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._running = 0

    def is_open(self, now: float) -> bool:
        """Whether there is room."""
        return self._running < self._n

    def earliest(self, now: float) -> float:
        """Never (infinity), while it is closed: only ``give_back`` makes room."""
        return inf

    def take(self, now: float, run: Asker) -> bool:
        """Count one more. True: what ``is_open`` said a moment ago still holds, since no other run takes here."""
        self._running += 1
        return True

    def give_back(self, run: Asker) -> None:
        """Count one less."""
        self._running -= 1
