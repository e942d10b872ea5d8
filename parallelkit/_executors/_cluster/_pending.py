"""A batch at a guard: its attempts begin in order, and only as many as the broker has granted.

So when a host vanishes, it can have begun only those that were granted and not reported to have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._executors._process._payload import Payload


class Pending:
    """``over`` is set when nothing of it is left here. ``part`` and ``over`` are for any thread, the rest for that of the ``WorkerRun``."""

    def __init__(
        self, key: str, tickets: list[Ticket], payloads: Sequence[Payload] | None, portion: int
    ) -> None:
        self.key = key
        self.granted = portion
        self.over = Event()
        self._tickets = tickets
        self._payloads = payloads
        self._portion = portion
        self._done = 0  # how many of the granted have ended or were given back

    def part(self, lane: Lane, start: int, end: int) -> Batch:
        """Return some of its attempts as a batch for the worker processes."""
        payloads = self._payloads[start:end] if self._payloads is not None else None
        return Batch(lane, self._tickets[start:end], payloads)

    @property
    def wanted(self) -> int:
        """How many attempts should be granted by now, in all."""
        return min(self._done + self._portion, len(self._tickets))

    @property
    def is_low(self) -> bool:
        """Whether more should be granted, since what was granted is nearly done."""
        return self.granted < len(self._tickets) and self.granted - self._done <= self._portion // 2

    @property
    def is_over(self) -> bool:
        return self._done == len(self._tickets)

    def grant(self, lane: Lane, upto: int) -> Batch:
        """Note that attempts up to ``upto`` were granted, and return the new ones as a batch."""
        before, self.granted = self.granted, upto
        return self.part(lane, before, upto)

    def count(self, done: int) -> None:
        """Note that ``done`` more of the granted have ended or were given back."""
        self._done += done

    def withdraw(self) -> list[int]:
        """Drop the attempts that were not granted, and return their indices."""
        rest = self._tickets[self.granted :]
        del self._tickets[self.granted :]
        return [ticket[0] for ticket in rest]
