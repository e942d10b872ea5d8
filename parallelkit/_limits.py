"""``RateLimit`` and ``ConcurrencyLimit``, and their meters: when may the next start be? Nothing waits here.

Instants come in as arguments. A meter that is asked when the next start may be answers with an
instant; one that is not later than now means "now".
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol
from weakref import WeakValueDictionary

from parallelkit._public import public
from parallelkit._retry import check_number

By = Callable[[Any], Hashable] | None

MARGIN = 0.005  # of ``per``: a task's own clock may lag behind the report of its start by this much
SOON = 0.001  # seconds until a start that was granted and not yet reported is asked for again


@public
class RateLimit:
    """Never more than ``calls`` starts in any ``per`` seconds.

    A start counts from the instant at which its worker reports it, retries count like first
    attempts, and a waiting task holds no worker. ``by`` (item → group) makes it a limit for each
    group; a group of None is not limited. With ``smooth`` the starts are spread evenly,
    ``per / calls`` seconds apart, instead of in bursts. The object has memory: runs that share it,
    one after another or at once, share the limit. Groups at rest are forgotten.

    >>> RateLimit(10, per=1)
    RateLimit(10, per=1)

    Raises TypeError or ValueError for ``calls`` below 1 or ``per`` not above 0.
    """

    def __init__(self, calls: int, per: float, *, by: By = None, smooth: bool = False) -> None:
        if isinstance(calls, bool) or not isinstance(calls, int):
            raise TypeError(f"calls must be an int, got {calls!r}")
        if calls < 1:
            raise ValueError(f"calls must be at least 1, got {calls}")
        check_number("per", per, 0.0)
        if not 0 < per < float("inf"):
            raise ValueError(f"per must be a finite number of seconds above 0, got {per!r}")
        check_by(by)
        self.calls, self.per, self.by, self.smooth = calls, per, by, smooth
        self._lock = threading.Lock()
        self._logs: OrderedDict[Hashable, RateLog] = OrderedDict()
        self._held: WeakValueDictionary[Hashable, RateLog] = WeakValueDictionary()

    def __repr__(self) -> str:
        shown = f"{self.calls}, per={self.per:g}"
        smooth = ", smooth=True" if self.smooth else ""
        return f"RateLimit({shown}{by_text(self.by)}{smooth})"

    def log(self, group: Hashable, now: float) -> RateLog:
        """The log of a group, which all runs share; forgets groups that have been at rest."""
        with self._lock:
            while self._logs and self._forget(next(iter(self._logs)), now):
                pass
            log = self._logs.get(group)
            if log is None:
                log = RateLog(self.calls, self.per, self.smooth, self._lock)
            self._logs[group] = self._held[group] = log
            self._logs.move_to_end(group)
            return log

    def _forget(self, group: Hashable, now: float) -> bool:
        """Forget a group that is at rest, unless a run holds its log: that will start tasks by it yet."""
        if not self._logs[group].at_rest(now):
            return False
        del self._logs[group]
        held = self._held.get(group)
        if held is None:
            return True
        self._logs[group] = held  # at the end of the queue, so that those behind it can be forgotten
        return False


@public
class ConcurrencyLimit:
    """Never more than ``n`` attempts at a time; with ``by`` (item → group), in each group.

    >>> ConcurrencyLimit(2)
    ConcurrencyLimit(2)

    Raises TypeError or ValueError for ``n`` below 1.
    """

    def __init__(self, n: int, *, by: By = None) -> None:
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"n must be an int, got {n!r}")
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        check_by(by)
        self.n, self.by = n, by

    def __repr__(self) -> str:
        return f"ConcurrencyLimit({self.n}{by_text(self.by)})"


class RateLog:
    """The starts of one group. Granted starts whose worker has not reported yet are *pending*.

    Strict: a start may be granted when fewer than ``calls`` are pending or within the last ``per``
    seconds. It really begins later than it is granted, so no window ever holds more than that.
    Smooth: the generic cell rate algorithm (ITU-T I.371) with no burst; a start that comes late by
    less than one interval does not shift those behind it.
    """

    def __init__(self, calls: int, per: float, smooth: bool, lock: threading.Lock) -> None:
        self._calls = calls
        self._per = per * (1 + MARGIN)
        self._interval = per / calls
        self._smooth = smooth
        self._lock = lock
        self._starts: list[float] = []
        self._pending = 0
        self._next = float("-inf")
        self._paused_until = float("-inf")

    def at_rest(self, now: float) -> bool:
        """Whether forgetting this log would change nothing."""
        spent = not self._starts or self._starts[-1] + self._per <= now
        return spent and not self._pending and self._paused_until <= now and self._next <= now

    def earliest(self, now: float) -> float:
        """The instant at which the next start may be granted, as far as is known now."""
        with self._lock:
            return self._earliest(now)

    def _earliest(self, now: float) -> float:
        at = max(now, self._paused_until)
        if self._smooth:
            return max(at, self._next)
        expired = 0
        while expired < len(self._starts) and self._starts[expired] + self._per <= now:
            expired += 1
        del self._starts[:expired]
        excess = self._pending + len(self._starts) - self._calls
        if excess < 0:
            return at
        if excess < len(self._starts):
            return max(at, self._starts[excess] + self._per)
        return max(at, now + SOON)

    def take(self, now: float) -> bool:
        """Grant a start now, if it may be: atomically, for other runs may share this log."""
        with self._lock:
            if self._earliest(now) > now:
                return False
            if self._smooth:
                late = now - self._next
                self._next = (now if late > self._interval else self._next) + self._interval
            else:
                self._pending += 1
            return True

    def give_back(self) -> None:
        """A start just granted did not come about."""
        with self._lock:
            if self._smooth:
                self._next -= self._interval
            else:
                self._pending -= 1

    def confirm(self, at: float) -> None:
        """A granted start has happened, at this instant."""
        if self._smooth:
            return
        with self._lock:
            self._pending -= 1
            insort(self._starts, at)

    def pause(self, until: float) -> None:
        """No start before this instant: the other side asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)


class Cap:
    """The attempts of one group that run now."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._running = 0

    def earliest(self, now: float) -> float:
        """Now, or never by itself: ``give_back`` makes room."""
        return now if self._running < self._n else float("inf")

    def take(self, now: float) -> bool:
        """One more runs, if there is room."""
        if self._running >= self._n:
            return False
        self._running += 1
        return True

    def give_back(self) -> None:
        """One has ended."""
        self._running -= 1


class Meter(Protocol):
    """What a ``RateLog`` and a ``Cap`` have in common."""

    def earliest(self, now: float) -> float:
        """When the next start may be."""

    def take(self, now: float) -> bool:
        """Grant a start, if it may be now."""

    def give_back(self) -> None:
        """Undo a grant, or end what it stood for."""


Limit = RateLimit | ConcurrencyLimit


def meter_for(limit: Limit, group: Hashable, now: float) -> RateLog | Cap:
    """The meter of a group under a limit."""
    return limit.log(group, now) if isinstance(limit, RateLimit) else Cap(limit.n)


def as_limits(limits: Any) -> tuple[Limit, ...]:
    """The option ``limits`` as a tuple; ``ratelimit.limits`` objects are read as a ``RateLimit``."""
    if limits is None:
        return ()
    many = limits if isinstance(limits, Iterable) and not isinstance(limits, str) else (limits,)
    return tuple(map(_as_limit, many))


def _as_limit(limit: Any) -> Limit:
    if isinstance(limit, (RateLimit, ConcurrencyLimit)):
        return limit
    calls, period = getattr(limit, "clamped_calls", None), getattr(limit, "period", None)
    if isinstance(calls, int) and isinstance(period, (int, float)):
        # The decorator object itself keeps the RateLimit, so that runs that share it share the limit.
        shared = limit.__dict__.setdefault("_parallelkit_limit", RateLimit(calls, period))
        assert isinstance(shared, RateLimit), "nobody else writes this name"
        return shared
    raise TypeError(f"limits must be RateLimit or ConcurrencyLimit objects, got {limit!r}")


def by_text(by: By) -> str:
    """The argument ``by`` in a repr: the function's name, where it has one."""
    return "" if by is None else f", by={getattr(by, '__name__', by)}"


def check_by(by: Any) -> None:
    """Raise TypeError unless ``by`` is None or callable."""
    if by is not None and not callable(by):
        raise TypeError(f"by must be callable, got {by!r}")
