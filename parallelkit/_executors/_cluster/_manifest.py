"""What a client has handed out and not had back: attempts, in batches. Whoever calls holds the courier's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Lane, Payload
from parallelkit._system import monotonic


class Flight(NamedTuple):
    """An attempt that was handed out."""

    ticket: Ticket
    payload: Payload | None
    key: str
    handed: float


class Parcel(NamedTuple):
    """A batch under way; dask forgets it, and what was scattered for it, when this is dropped."""

    indices: Sequence[int]
    held: list[Any]


class Vanished(NamedTuple):
    """An attempt that a dask worker had when it was lost."""

    batch: Batch
    started: float
    ended: float
    worker: str


class Manifest:
    """Of one run."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.flights: dict[int, Flight] = {}
        self.parcels: dict[str, Parcel] = {}
        self.begun: dict[int, tuple[float, str]] = {}
        """Of which a guard has told that they run: since when, and where."""

    def enter(self, key: str, batch: Batch) -> Parcel:
        """A batch is handed out."""
        now = monotonic()
        packed = batch.payloads if batch.payloads is not None else repeat(None)
        for ticket, payload in zip(batch.tickets, packed, strict=False):
            self.flights[ticket[0]] = Flight(ticket, payload, key, now)
        parcel = self.parcels[key] = Parcel([ticket[0] for ticket in batch.tickets], [])
        return parcel

    def note_begun(self, index: int, started: float, label: str) -> None:
        if index in self.flights:
            self.begun[index] = (started, label)

    def land(self, indices: Iterable[int]) -> Batch:
        """These attempts have ended, or are to be handed out anew."""
        flights = [self.flights.pop(index) for index in indices]
        for flight in flights:
            self.begun.pop(flight.ticket[0], None)
        payloads = [flight.payload for flight in flights if flight.payload is not None]
        return Batch(self._lane, [flight.ticket for flight in flights], payloads or None)

    def put_back(self, indices: Iterable[int]) -> None:
        """Attempts that never began go to the head of the queue."""
        under_way = [index for index in indices if index in self.flights]
        packed = [index for index in under_way if self.flights[index].payload is not None]
        plain = [index for index in under_way if self.flights[index].payload is None]
        self._lane.queue.extendleft(self.land(some) for some in (packed, plain) if some)

    def still_in(self, key: str) -> list[int]:
        """The attempts of a batch that are under way with it."""
        parcel, flights = self.parcels.get(key), self.flights
        return [i for i in parcel.indices if i in flights and flights[i].key == key] if parcel else []

    def lose(self, key: str, granted: int, worker: str) -> list[Vanished]:
        """A batch's worker is gone: the first attempts, so many, may have begun; the others go back."""
        if (parcel := self.parcels.get(key)) is None:
            return []
        now, may_have_begun = monotonic(), set(parcel.indices[:granted])
        lost = []
        for index in self.still_in(key):
            if index in may_have_begun:
                started, label = self.begun.get(index, (self.flights[index].handed, worker))
                lost.append(Vanished(self.land([index]), started, now, label))
        self.put_back(self.still_in(key))
        del self.parcels[key]
        return lost

    def clear(self) -> None:
        """The run is over; dask may forget all of it."""
        self.parcels.clear()
        self.begun.clear()
