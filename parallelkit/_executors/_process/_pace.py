"""Measures how long a function's tasks have taken lately, and so decides how many a worker is given at once."""

from __future__ import annotations

from collections import OrderedDict
from math import inf

AHEAD = 0.010  # seconds of measured work in a batch
LONG = 0.003  # seconds from which on a task may be handed over by itself: that costs 0.2 ms
SHORT = 0.025  # seconds up to which a task is so short that a second batch may wait in a worker
GRAIN = 0.0001  # seconds of work that are not worth sharing out among workers
SOON = 0.001  # seconds of work for each idle worker up to which all that waits is given out
LONGEST_BATCH = 4000  # attempts; two such batches fit into the ring
RAMP = 8  # factor by which the limit of a batch may grow with each measurement
FORGET = 0.8  # weight of the earlier measurements, applied at each new one
REMEMBERED = 64  # functions whose pace is kept after their run
LONGEST_JOB = 1 << 16  # bytes of a packed function up to which its pace is kept


class Pace:
    """The pace of one run's function; only the supervisor's thread writes it."""

    def __init__(self) -> None:
        self.limit = 1
        """How many attempts a batch may have."""
        self.ahead = False
        """Whether a second batch may wait in a worker behind the one that runs."""
        self.single = True
        """Whether attempts take so long, or nobody knows how long, that each may be handed over by itself."""
        self._count = 0.0
        self._time = 0.0

    def again(self) -> Pace:
        """The pace for a new run: that of the last, but with the weight of a single measured task."""
        pace = Pace()
        if self._count:
            pace.limit, pace.ahead, pace.single = self.limit, self.ahead, self.single
            pace._count, pace._time = 1.0, self.expected(1)
        return pace

    def measure(self, count: int, seconds: float) -> None:
        """Learn from attempts that were committed."""
        self._count = self._count * FORGET + count
        self._time = self._time * FORGET + seconds
        mean = self._time / self._count
        rounded = _within(AHEAD + mean / 2, mean)
        self.limit = min(self.limit * RAMP, max(1, rounded))
        self.ahead, self.single = mean < SHORT, mean > LONG

    def share(self, waiting: int, workers: int, idle: int) -> int:
        """How many of the waiting attempts to give to one worker, when ``idle`` workers are idle, itself included.

        It gets its share of all that waits, so that batches get smaller towards the end, and some is left to even out
        with (guided self-scheduling: Polychronopoulos and Kuck, 1987). But no batch is shorter than ``GRAIN``, and if
        all that waits is soon done, the idle workers share all of it.
        """
        if idle and self.expected(waiting) <= SOON * idle:
            workers = idle
        least = _within(GRAIN, self._time / self._count) if self._count else 1
        return min(self.limit, max(least, -(-waiting // workers)))

    def expected(self, count: int) -> float:
        """Seconds that ``count`` attempts will take; infinity if nothing was measured."""
        return count * self._time / self._count if self._count else inf


def _within(seconds: float, mean: float) -> int:
    return LONGEST_BATCH if mean * LONGEST_BATCH < seconds else int(seconds / mean)


class Paces:
    """Remembers the pace of functions by their packed jobs, so that a warm executor begins at speed."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Pace] = OrderedDict()

    def recall(self, job: object) -> Pace:
        """The pace for a new run of this function."""
        known = self._known.get(job) if isinstance(job, bytes) else None
        return Pace() if known is None else known.again()

    def note(self, job: object, pace: Pace) -> None:
        """Keep the pace of a run that has ended."""
        if isinstance(job, bytes) and len(job) <= LONGEST_JOB:
            self._known.pop(job, None)
            self._known[job] = pace
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
