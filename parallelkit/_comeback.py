"""The tasks that are tried again: when each is due, and when it is too late for it to start."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from math import inf, nextafter

SPARE = 64  # entries of a heap that may be out of date before it is made anew


class Comeback:
    """By index. A task is due once its delay is over; it may be late since a limit, or busy workers, hold it up.

    O(log n) for each; what has no last instant costs nothing beyond its delay.
    """

    def __init__(self) -> None:
        self._delayed: list[tuple[float, int]] = []  # a heap: what is not due yet
        self._last: dict[int, float] = {}  # the last instant at which each may start, where there is one
        self._lapses: list[tuple[float, int]] = []  # a heap of the same

    def __len__(self) -> int:
        """How many are not due yet."""
        return len(self._delayed)

    def delay(self, index: int, until: float, last: float | None) -> None:
        """Due from ``until`` on; it must have started by ``last``, which is not before that."""
        assert last is None or last >= until, "it would be too late before it is due"
        heappush(self._delayed, (until, index))
        if last is not None:
            self._last[index] = last
            heappush(self._lapses, (last, index))

    def due(self, now: float) -> Iterator[int]:
        """Those whose delay is over, once each."""
        while self._delayed and self._delayed[0][0] <= now:
            yield heappop(self._delayed)[1]

    def started(self, indices: Iterable[int]) -> None:
        """These have come back."""
        if not self._last:
            return
        for index in indices:
            self._last.pop(index, None)
        if len(self._lapses) > 2 * len(self._last) + SPARE:
            self._lapses = [(last, index) for index, last in self._last.items()]
            heapify(self._lapses)

    def lapsed(self, now: float) -> Collection[int]:
        """Those that are due and whose last instant is over, once each; they will not come back."""
        late = []
        while self._lapses and self._lapses[0][0] < now:
            last, index = heappop(self._lapses)
            if self._last.get(index) == last:
                del self._last[index]
                late.append(index)
        return late

    def wake_at(self) -> float | None:
        """The next instant at which one is due, or too late."""
        due = self._delayed[0][0] if self._delayed else inf
        late = nextafter(self._lapses[0][0], inf) if self._lapses else inf
        at = min(due, late)
        return None if at == inf else at

    def clear(self) -> None:
        """None comes back."""
        self._delayed.clear()
        self._last.clear()
        self._lapses.clear()
