"""The stop rule: which failures, and which instant, end a run before all is done."""

from __future__ import annotations

from typing import NamedTuple

LEAST_OUTCOMES = 20  # before a share of failures is looked at


class StopRule(NamedTuple):
    """``end_at``: the instant of the ``run_timeout``. ``raise_first``: the first failure is the end.

    ``max_failures``: an int is their number, a float their share of the outcomes.
    """

    end_at: float | None = None
    end_reason: str = "run_timeout"
    raise_first: bool = False
    max_failures: float | None = None

    def reason(self, now: float, failed: int, settled: int) -> str | None:
        """Why the run must stop now, if it must; ``failed`` of ``settled`` outcomes are failures."""
        if self.end_at is not None and now >= self.end_at:
            return self.end_reason
        if not failed:
            return None
        if self.raise_first:
            return "a task failed, and on_error is 'raise'"
        limit = self.max_failures
        if limit is None:
            return None
        if isinstance(limit, int):
            return f"max_failures of {limit} reached" if failed >= limit else None
        if settled >= LEAST_OUTCOMES and failed >= limit * settled:
            return f"max_failures of {limit:g} reached: {failed} of {settled} outcomes are failures"
        return None


NEVER = StopRule()
