"""How much is handed out at once: so much that dask and the scheduler keep up, and no more."""

from __future__ import annotations

from dataclasses import dataclass

from parallelkit._executors._process._pace import Pace

LEAD = 0.02  # seconds of measured work that a thread may begin without asking; more where there are many workers, ...
QUESTIONS = 1000  # ... so that they do not ask the broker much more often than this in a second
AHEAD = 0.05  # seconds of measured work in a batch, and more where there are many threads, ...
BATCHES = 200  # ... so that there are not many more batches than this in a second; but ...
LONGEST = 0.5  # ... no longer
LONGEST_BATCH = 2000
RAMP = 4  # a batch has at most so many times the attempts of the largest before


@dataclass(slots=True)
class Sizes:
    """Of a run, by the pace of its function and the width of the cluster."""

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
        """How many attempts the next batch may have, of so many that wait: no more than a thread's share."""
        share = -(-waiting // max(1, self.threads))
        return 1 if self.exact else min(self.pace.limit, share)

    @property
    def portion(self) -> int:
        """How many attempts of a batch may begin at a time: one, or what takes no longer than the lead, and one."""
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
        """Of an attempt, lately; infinity where none has ended."""
        return max(self.pace.expected(1), AHEAD / LONGEST_BATCH)
