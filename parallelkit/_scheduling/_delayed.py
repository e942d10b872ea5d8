"""Tasks that wait to be tried again: when each is due, and when it is too late for it to start."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from math import inf, nextafter

SPARE = 64  # stale entries, beyond one for each that is valid, at which ``_lapses`` is rebuilt


class Delayed:
    """The delayed tasks, by index.

    A task is due once its delay is over; a limit, or busy workers, may still hold it up until it is too late.
    O(log n) a task; one that may start at any time costs nothing beyond its delay.
    """

    def __init__(self) -> None:
        self._delayed: list[tuple[float, int]] = []  # a heap: what is not due yet
        self._start_by: dict[int, float] = {}  # the last instant at which each may start, where there is one
        self._lapses: list[tuple[float, int]] = []  # a heap of the same, and of entries that are stale

    def __len__(self) -> int:
        """How many tasks are not due yet."""
        return len(self._delayed)

    def delay(self, index: int, until: float, start_by: float | None) -> None:
        """Make a task due at ``until``. ``start_by``, if given, is the last instant at which it may start."""
        assert start_by is None or start_by >= until, "it would be too late before it is due"
        heappush(self._delayed, (until, index))
        self.waits(index, start_by)

    def waits(self, index: int, start_by: float | None) -> None:
        """Note by when a task must start that is delayed, or that has not started after all."""
        if start_by is not None:
            self._start_by[index] = start_by
            heappush(self._lapses, (start_by, index))

    def due(self, now: float) -> Iterator[int]:
        """The tasks whose delay is over, once each."""
        while self._delayed and self._delayed[0][0] <= now:
            yield heappop(self._delayed)[1]

    def started(self, indices: Iterable[int]) -> None:
        """These tasks have started again, if they were delayed."""
        if not self._start_by:
            return
        for index in indices:
            self._start_by.pop(index, None)
        if len(self._lapses) > 2 * len(self._start_by) + SPARE:
            self._lapses = [(start_by, index) for index, start_by in self._start_by.items()]
            heapify(self._lapses)

    def lapsed(self, now: float) -> Collection[int]:
        """The due tasks whose last instant is over, once each; they will not be tried again."""
        late = []
        while self._lapses and self._lapses[0][0] < now:
            start_by, index = heappop(self._lapses)
            if self._start_by.get(index) == start_by:
                del self._start_by[index]
                late.append(index)
        return late

    def wake_at(self) -> float | None:
        """The next instant at which a task is due, or too late."""
        due = self._delayed[0][0] if self._delayed else inf
        late = nextafter(self._lapses[0][0], inf) if self._lapses else inf
        at = min(due, late)
        return None if at == inf else at

    def clear(self) -> None:
        """Forget all tasks."""
        self._delayed.clear()
        self._start_by.clear()
        self._lapses.clear()
