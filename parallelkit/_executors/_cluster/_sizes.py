"""Decides how large batches and portions are: as small as dask and its scheduler can keep up with."""

from __future__ import annotations

from dataclasses import dataclass

from parallelkit._executors._process._pace import Pace

LEAD = 0.02  # seconds of measured work that a thread may begin without asking; more with many workers, ...
QUESTIONS = 1000  # ... so that they ask the broker about this often a second, at most
AHEAD = 0.05  # seconds of measured work in a batch; more with many threads, ...
BATCHES = 200  # ... so that there are about this many batches a second, at most; but ...
LONGEST = 0.5  # ... no more than this
LONGEST_BATCH = 2000  # attempts
RAMP = 4  # factor by which the limit of a batch may grow with each measurement


@dataclass(slots=True)
class Sizes:
    """The sizes of one run, by the pace of its function and the width of the cluster."""

    pace: Pace
    exact: bool
    threads: int = 0
    workers: int = 0

    def measure(self, count: int, seconds: float) -> None:
        """Learn from attempts that have ended."""
        limit = self.pace.limit
        self.pace.measure(count, seconds)
        self.pace.limit = max(1, min(RAMP * limit, int(self.ahead / self._duration)))

    def batch(self, waiting: int) -> int:
        """How many attempts the next batch may have: no more than a thread's share of the ``waiting``."""
        share = -(-waiting // max(1, self.threads))
        return 1 if self.exact else min(self.pace.limit, share)

    @property
    def portion(self) -> int:
        """How many attempts of a batch may begin without asking: the work of ``lead`` and one more; one for an exact job."""
        return 1 if self.exact else 1 + int(self.lead / self._duration)

    @property
    def ahead(self) -> float:
        """Seconds that a batch should take at most."""
        return min(LONGEST, max(AHEAD, self.threads / BATCHES))

    @property
    def lead(self) -> float:
        """Seconds of work that a thread may begin without asking."""
        return max(LEAD, 2 * self.workers / QUESTIONS)

    @property
    def _duration(self) -> float:
        """How long an attempt has taken lately, in seconds; infinity if none has ended."""
        return max(self.pace.expected(1), AHEAD / LONGEST_BATCH)
