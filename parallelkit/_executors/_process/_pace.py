"""How fast the tasks of a function have gone lately, and so how many may be handed over at once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf

AHEAD = 0.005  # seconds of measured work that may wait in a worker behind what it runs
GRAIN = 0.0001  # seconds of work that are not worth being shared out among workers
SOON = 0.001  # seconds of work for each idle worker that are shared out whole
LONGEST_BATCH = 4000  # two of them fit into the ring
RAMP = 8  # a batch has at most so many times the attempts that were ever measured at once
FORGET = 0.8  # weight of the past in the measured duration, for each batch that ends
REMEMBERED = 64  # functions whose pace is known after their run
LONGEST_JOB = 1 << 16  # bytes of a packed function that is remembered


@dataclass(eq=False, repr=False, slots=True)
class Pace:
    """Written by the supervisor's thread only."""

    limit: int = 1
    """How many attempts a batch may have."""
    ahead: bool = False
    """Whether a second batch may wait behind the one that runs."""
    _count: float = 0.0
    _time: float = 0.0

    def again(self) -> Pace:
        """That of a new run, where the last one's counts as much as a single task measured."""
        return Pace(self.limit, self.ahead, 1.0, self._time / self._count) if self._count else Pace()

    def measure(self, count: int, seconds: float) -> None:
        """Learn from a part of a batch."""
        self._count = self._count * FORGET + count
        self._time = self._time * FORGET + seconds
        mean = self._time / self._count
        rounded = _within(AHEAD + mean / 2, mean)
        self.limit = min(self.limit * RAMP, max(1, rounded))
        self.ahead = mean < 5 * AHEAD

    def share(self, waiting: int, workers: int, idle: int) -> int:
        """How many of those that wait one worker is given, with so many of them idle, itself included.

        Its share of all that waits, so that batches get smaller towards the end, and some is left to even out with
        (guided self-scheduling: Polychronopoulos and Kuck, 1987); but no crumbs, and nothing is left where all that
        waits is soon done.
        """
        if idle and self.expected(waiting) <= SOON * idle:
            workers = idle
        crumbs = _within(GRAIN, self._time / self._count) if self._count else 1
        return min(self.limit, max(crumbs, -(-waiting // workers)))

    def expected(self, count: int) -> float:
        """Seconds that so many attempts will take."""
        return count * self._time / self._count if self._count else inf


def _within(seconds: float, mean: float) -> int:
    return LONGEST_BATCH if mean * LONGEST_BATCH < seconds else int(seconds / mean)


class Paces:
    """Remembers the pace of functions, by what is sent of them, so that a warm executor begins at speed."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Pace] = OrderedDict()

    def recall(self, job: object) -> Pace:
        """A pace for a new run of this function."""
        known = self._known.get(job) if isinstance(job, bytes) else None
        return Pace() if known is None else known.again()

    def note(self, job: object, pace: Pace) -> None:
        """A run of this function has ended."""
        if isinstance(job, bytes) and len(job) <= LONGEST_JOB:
            self._known.pop(job, None)
            self._known[job] = pace
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
