"""Keeps track of the attempts that a client has handed out, in batches, and that have not ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._executors._process._payload import Payload
from parallelkit._named_tuple import NamedTuple
from parallelkit._system import monotonic


class Flight(NamedTuple):
    """An attempt that was handed out."""

    ticket: Ticket
    payload: Payload | None
    key: str
    handed: float


class SentBatch(NamedTuple):
    """A batch under way. ``held``: dask's futures for it and for what was scattered; dask forgets these when it is dropped."""

    indices: Sequence[int]
    held: list[Any]


class Vanished(NamedTuple):
    """An attempt that may have run on a dask worker when that was lost."""

    batch: Batch
    started: float
    ended: float
    worker: str


class InFlight:
    """The attempts and batches of one run that are under way. Callers hold the lock of the ``ClientRun``."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.flights: dict[int, Flight] = {}
        self.batches: dict[str, SentBatch] = {}
        self.begun: dict[int, tuple[float, str]] = {}
        """For each attempt that a guard has reported as running: since when, and where."""

    def enter(self, key: str, batch: Batch) -> SentBatch:
        """Note a batch that is handed out."""
        now = monotonic()
        packed = batch.payloads if batch.payloads is not None else repeat(None)
        for ticket, payload in zip(batch.tickets, packed, strict=False):
            self.flights[ticket[0]] = Flight(ticket, payload, key, now)
        sent = self.batches[key] = SentBatch([ticket[0] for ticket in batch.tickets], [])
        return sent

    def note_begun(self, index: int, started: float, label: str) -> None:
        if index in self.flights:
            self.begun[index] = (started, label)

    def land(self, indices: Iterable[int]) -> Batch:
        """Take out attempts that have ended, or are to be handed out anew, and return them as a batch."""
        flights = [self.flights.pop(index) for index in indices]
        for flight in flights:
            self.begun.pop(flight.ticket[0], None)
        payloads = [flight.payload for flight in flights if flight.payload is not None]
        return Batch(self._lane, [flight.ticket for flight in flights], payloads or None)

    def put_back(self, indices: Iterable[int]) -> None:
        """Put attempts that never began back at the head of the queue."""
        under_way = [index for index in indices if index in self.flights]
        packed = [index for index in under_way if self.flights[index].payload is not None]
        plain = [index for index in under_way if self.flights[index].payload is None]
        self._lane.queue.extendleft(self.land(some) for some in (packed, plain) if some)

    def still_in(self, key: str) -> list[int]:
        """Return the attempts of a batch that are still under way with it."""
        sent, flights = self.batches.get(key), self.flights
        return [i for i in sent.indices if i in flights and flights[i].key == key] if sent else []

    def lose(self, key: str, granted: int, worker: str) -> list[Vanished]:
        """A batch's worker is gone: return its first ``granted`` attempts, which may have begun, and put the others back."""
        if (sent := self.batches.get(key)) is None:
            return []
        now, may_have_begun = monotonic(), set(sent.indices[:granted])
        lost = []
        for index in self.still_in(key):
            if index in may_have_begun:
                started, label = self.begun.get(index, (self.flights[index].handed, worker))
                lost.append(Vanished(self.land([index]), started, now, label))
        self.put_back(self.still_in(key))
        del self.batches[key]
        return lost

    def clear(self) -> None:
        """The run is over: drop all batches, so that dask forgets them."""
        self.batches.clear()
        self.begun.clear()
