"""The timeouts of attempts on an event loop: which are overdue now, and when one may be next."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from parallelkit._executors._coroutine._event_loop import Flight


class Watch:
    """Kept by the run's thread, told of starts by the loop's; O(log n) an attempt that has a timeout.

    ``at`` is when to look next; where an earlier deadline comes up, whoever brings it wakes the run.
    """

    def __init__(self) -> None:
        self.at = inf
        self._begun: deque[Flight] = deque()
        self._due: list[tuple[float, int, Flight]] = []
        self._numbers = count()  # breaks ties

    def begun(self, flight: Flight, limit: float) -> bool:
        """An attempt has begun; True where the run's thread would look too late, and must be woken."""
        self._begun.append(flight)
        return flight.started + limit < self.at

    def overdue(self, now: float, running: int) -> list[Flight]:
        """Those whose instant has come, with ``running`` of them flying; each is forgotten."""
        self.at = inf  # so that whatever begins while we look wakes us
        while self._begun:
            flight = self._begun.popleft()
            self.look_again(flight, flight.started + (flight.ticket[3] or 0.0))
        due = self._due
        if len(due) > 2 * running + 64:  # most of these have landed
            due[:] = [entry for entry in due if entry[2].claim]
            heapify(due)
        overdue = []
        while due and (due[0][0] <= now or not due[0][2].claim):
            flight = heappop(due)[2]
            if flight.claim:
                overdue.append(flight)
        return overdue

    def look_again(self, flight: Flight, at: float) -> None:
        """Look at an attempt at this instant."""
        heappush(self._due, (at, next(self._numbers), flight))

    def settle_at(self, latest: float) -> float:
        """When to look next, at the latest then."""
        self.at = min(self._due[0][0], latest) if self._due else latest
        return self.at
