"""Overdue attempts on an event loop: which they are now, when the next may be, and the errors that they end with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import timed_out
from parallelkit._executors._coroutine._event_loop import GRACE, Flight

SWALLOWED = f"it was cancelled, did not end within {GRACE:g} s of that, and was abandoned"


class Deadlines:
    """A heap of deadlines, used by the run's thread; the loop's thread reports starts through ``begun``.

    ``at`` is when the run looks next. If an attempt with an earlier deadline begins, the loop wakes the run.
    An attempt with a timeout costs O(log n).
    """

    def __init__(self) -> None:
        self.at = inf
        self._begun: deque[tuple[Flight, float]] = deque()
        self._due: list[tuple[float, int, Flight]] = []
        self._numbers = count()  # breaks ties

    def begun(self, flight: Flight, limit: float) -> bool:
        """Note that an attempt has begun; True if the run would look too late for it, and must be woken."""
        due_at = flight.started + limit
        self._begun.append((flight, due_at))
        return due_at < self.at

    def overdue(self, now: float, running: int) -> list[Flight]:
        """Remove and return the attempts whose deadline has come. ``running``: how many attempts run at all."""
        self.at = inf  # so that whatever begins meanwhile wakes the run
        while self._begun:
            self.look_again(*self._begun.popleft())
        due = self._due
        if len(due) > 2 * running + 64:  # most of these have ended
            due[:] = [entry for entry in due if entry[2].claim]
            heapify(due)
        overdue = []
        while due and (due[0][0] <= now or not due[0][2].claim):  # ended: let it go
            flight = heappop(due)[2]
            if flight.claim:
                overdue.append(flight)
        return overdue

    def look_again(self, flight: Flight, at: float) -> None:
        """Look at an attempt at this instant."""
        heappush(self._due, (at, next(self._numbers), flight))

    def settle_at(self, latest: float) -> float:
        """Set and return when to look next, which is at ``latest`` if there is no earlier deadline."""
        self.at = min(self._due[0][0], latest) if self._due else latest
        return self.at


def overran(flight: Flight, label: Callable[[int], str], how: str, *, abandoned: bool = False) -> TaskTimeout:
    """The error of an overdue attempt; ``how`` it ended."""
    index, _, _, limit = flight.ticket
    assert limit is not None, "only what has a timeout is overdue"
    return timed_out(label(index), limit, how, abandoned=abandoned)


def blocked_by(flight: Flight, label: Callable[[int], str]) -> str:
    """Which attempt kept the loop from cancelling this one."""
    stepping = flight.loop.stepping
    if stepping is None:
        return "its event loop was blocked, and it was abandoned"
    blocker = "it" if stepping[0] is flight else label(stepping[0].ticket[0])
    return f"{blocker} blocked the event loop, so it could not be cancelled and was abandoned"
