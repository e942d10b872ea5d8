"""The attempts that a worker holds, numbered in the order of sending; the number also gives the slot in its ring."""

from __future__ import annotations

from collections import deque
from math import inf

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._worker._channel import EACH

LOOK = 0.001
"""Seconds after which a store by one end of the channel has certainly become visible to the other."""


class Holding:
    """Attempts of one lane at a time. They come in at the end, and leave at the front when they are committed."""

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.sent = 0  # attempts ever sent, less those taken back
        self.done = 0  # attempts ever committed and drained

    @property
    def pending(self) -> int:
        """How many attempts the worker holds."""
        return self.sent - self.done

    @property
    def lane(self) -> Lane | None:
        """The lane whose attempts it holds. Any thread may ask; the supervisor's changes it."""
        try:
            return self.batches[0].lane
        except IndexError:
            return None

    def stock(self) -> float:
        """Seconds for which it will have work, by the pace; 0 if it may run out at any moment."""
        return self.batches[0].lane.pace.expected(self.pending - 1) if self.pending > 2 else 0.0

    def takes_more(self) -> bool:
        """Whether it would be given attempts now, or may have committed enough since the last look that it would."""
        if not self.batches:
            return True
        lane = self.batches[0].lane
        if lane.exact or not lane.pace.ahead:
            return False
        return self.pending <= lane.pace.limit or (lane.pace.limit > 1 and self.stock() < LOOK)

    def wake_at(self, in_vain: bool) -> int:
        """At which commit it should wake the supervisor: at each, if they are rare; else at the next or, if all is soon done, a batch's last.

        ``in_vain``: it was asked for a wake-up before, and nothing has come since.
        """
        if self.batches[0].lane.pace.expected(1) >= LOOK:
            return EACH
        if in_vain or self.batches[0].lane.pace.expected(self.pending) > LOOK / 2:
            return self.done + 1
        return self.sent if len(self.batches) == 1 else self.done + len(self.batches[0].tickets)

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.sent += len(batch.tickets)

    def advance(self, count: int) -> Batch:
        """Take out the first ``count``, which are done and must be of one batch."""
        batch = self.batches.popleft()
        self.done += count
        if count == len(batch.tickets):
            return batch
        self.batches.appendleft(batch.part(count))
        return batch.part(0, count)

    def cut_off(self, keep: int) -> list[Batch]:
        """Take out all from number ``keep`` on."""
        taken: list[Batch] = []
        while self.sent > keep:
            batch = self.batches.pop()
            kept = max(0, len(batch.tickets) - (self.sent - keep))
            self.sent -= len(batch.tickets) - kept
            taken.insert(0, batch.part(kept))
            if kept:
                self.batches.append(batch.part(0, kept))
        return taken

    def ticket(self, number: int) -> Ticket | None:
        """The attempt of this number, if it is held."""
        at = number - self.done
        for batch in self.batches:
            if 0 <= at < len(batch.tickets):
                return batch.tickets[at]
            at -= len(batch.tickets)
        return None

    def stalls(self) -> bool:
        """Note that the worker stands still before its first attempt; whether that is to blame by now."""
        return self.batches[0].lane.stalls_at(self.batches[0].tickets[0][0])

    def shortest_timeout(self) -> float:
        return min([batch.shortest_timeout() for batch in self.batches], default=inf)


def requeue(batches: list[Batch]) -> None:
    """Put attempts that had not begun back at the head of their queue."""
    for batch in reversed(batches):
        if not batch.lane.closed:
            batch.lane.queue.appendleft(batch)
