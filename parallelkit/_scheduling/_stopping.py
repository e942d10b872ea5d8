"""The stop rule: which failures, or which instant, end a run early."""

from __future__ import annotations

from parallelkit._named_tuple import NamedTuple

LEAST_OUTCOMES = 20  # before a share of failures counts


class StopRule(NamedTuple):
    """When a run stops early.

    ``end_at``: the instant at which ``run_timeout`` expires. ``raise_first``: the first failure stops the run.
    ``max_failures``: an int is a number of failures, a float a share of the outcomes.
    """

    end_at: float | None = None
    end_reason: str = "run_timeout"
    raise_first: bool = False
    max_failures: float | None = None

    def reason(self, now: float, failed: int, settled: int) -> str | None:
        """Why the run must stop now, or None; ``failed`` of the ``settled`` outcomes are failures."""
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
