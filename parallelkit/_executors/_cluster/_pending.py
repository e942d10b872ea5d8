"""A batch at a guard: its attempts are begun in their order, and only as far as the broker has granted.

So what a host may have begun when it vanishes is what was granted and not told to have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Lane, Payload


class Pending:
    """``over`` when nothing of it is left here. ``part`` and ``over`` are for any thread, the rest for the patrol's."""

    def __init__(
        self, key: str, tickets: list[Ticket], payloads: Sequence[Payload] | None, portion: int, granted: int
    ) -> None:
        self.key = key
        self.granted = granted
        self.over = Event()
        self._tickets = tickets
        self._payloads = payloads
        self._portion = portion
        self._done = 0  # of the granted: have ended, or were given back

    def part(self, lane: Lane, start: int, end: int) -> Batch:
        """Some of its attempts, for the worker processes."""
        payloads = self._payloads[start:end] if self._payloads is not None else None
        return Batch(lane, self._tickets[start:end], payloads)

    @property
    def wanted(self) -> int:
        """How many attempts it would like to have been granted, in all."""
        return min(self._done + self._portion, len(self._tickets))

    @property
    def is_low(self) -> bool:
        """Whether what was granted will soon be done."""
        return self.granted < len(self._tickets) and self.granted - self._done <= self._portion // 2

    @property
    def is_over(self) -> bool:
        return self._done == len(self._tickets)

    def grant(self, lane: Lane, upto: int) -> Batch:
        """More of it may begin."""
        before, self.granted = self.granted, upto
        return self.part(lane, before, upto)

    def count(self, done: int) -> None:
        """So many of the granted have ended, or were given back."""
        self._done += done

    def withdraw(self) -> list[int]:
        """Take away what was not granted."""
        rest = self._tickets[self.granted :]
        del self._tickets[self.granted :]
        return [ticket[0] for ticket in rest]
