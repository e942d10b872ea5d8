"""Overdue attempts in threads: when a port must look for them, never before one can be overdue, and how they end."""

from __future__ import annotations

from collections.abc import Iterable

from parallelkit._executors._contract import Ended, Ticket, timed_out
from parallelkit._lost import note_where
from parallelkit._system import monotonic


class Lookout:
    """Keeps the instant of the next look. Only its thread knows when an attempt began, so any queued one may have begun."""

    __slots__ = ("_shortest", "look_at")

    def __init__(self) -> None:
        self.look_at: float | None = None
        self._shortest: float | None = None  # of the timeouts of all tickets so far

    def expect(self, tickets: Iterable[Ticket]) -> None:
        """Account for tickets that may begin from now on."""
        limits = [limit for _, _, _, limit in tickets if limit is not None]
        if not limits:
            return
        limit = min(limits)
        self._shortest = limit if self._shortest is None else min(limit, self._shortest)
        if self.look_at is None or monotonic() + limit < self.look_at:
            self.look_at = monotonic() + limit

    def is_due(self, now: float) -> bool:
        """Whether an attempt may be overdue."""
        return self.look_at is not None and now >= self.look_at

    def look_again(self, now: float, instants: list[float], more: bool) -> None:
        """After a look: set the next one. ``instants``: when running attempts become overdue; ``more``: others may begin."""
        assert self._shortest is not None, "only attempts with a timeout set the instant to look at"
        if more:
            instants = [*instants, now + self._shortest]
        self.look_at = min(instants, default=None)


def overrun(ticket: Ticket, label: str, started: float, now: float, worker: str, stack: str) -> Ended:
    """The end of an attempt whose thread was abandoned at its timeout."""
    assert ticket[3] is not None, "only what has a timeout is overdue"
    error = timed_out(label, ticket[3], "its thread, which cannot be killed, was abandoned", abandoned=True)
    return Ended(ticket[0], note_where(error, stack), "", started, now, worker, stack)
