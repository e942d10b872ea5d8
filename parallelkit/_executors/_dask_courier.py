"""The client's side of a run on dask: batches go out as dask tasks, what the guards tell comes back.

A thread of the run's own waits for news of the broker. It runs none of the user's code.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import count, repeat
from threading import Lock, Thread
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

from parallelkit._executors._contract import Ticket
from parallelkit._executors._dask_broker import PREFIX
from parallelkit._executors._dask_clock import Clock
from parallelkit._executors._dask_guard import Call
from parallelkit._executors._dask_wire import Order, Report, unpack_columns, unpack_lost, unseal, versions
from parallelkit._executors._lane import Batch, Broken, Lane, Payload, Record, Span

AHEAD = 0.05  # seconds of measured work in a batch, and more where there are many threads, ...
BATCHES = 200  # ... so that there are not many more batches than this in a second; but ...
LONGEST = 0.5  # ... no longer
LONGEST_BATCH = 2000
RAMP = 4  # a batch has at most so many times the attempts of the largest before
PATIENCE = 3.0  # seconds that the broker has to end a run
UNHEARD = 1.0  # seconds that the courier's thread has to notice that there is no connection
NOBODY_YET = 32  # batches that are handed out before there are workers: what an adaptive cluster sees of them
INLINE = 32 << 10  # bytes up to which the function travels with each batch; a larger one is scattered, once
ALONE = 1 << 20  # bytes from which on an item is scattered by itself


class Flight(NamedTuple):
    """An attempt that was handed out."""

    ticket: Ticket
    payload: Payload | None
    key: str
    handed: float


class Vanished(NamedTuple):
    """An attempt that a dask worker had when it was lost."""

    batch: Batch
    started: float
    ended: float
    worker: str


class Parcel(NamedTuple):
    """A batch under way; dask forgets it, and what was scattered for it, when this is dropped."""

    indices: Sequence[int]
    held: list[Any]


class Courier:
    """``offer`` and ``close`` are for the run's thread; the rest belongs to the courier's own, or to who holds the lock."""

    def __init__(
        self, client: Any, lane: Lane, job: bytes, cap: int | None, widen: Callable[[int], None]
    ) -> None:
        self.crew = SimpleNamespace(lanes=[lane])  # what a port asks of a supervisor
        self.broken = None
        self.run = uuid4().hex
        self.begun: dict[int, tuple[float, str]] = {}
        self.threads = 0
        self._workers: list[str] = []
        self._unfit: set[str] = set()  # workers that joined, and have another Python or no parallelkit
        self._client = client
        self._lane = lane
        self._job = job
        self._cap = cap
        self._widen = widen
        self._kept: Any = None  # the function, where dask keeps it
        self._expected = versions()
        self._clock = Clock()
        self._numbers = count()
        self._flights: dict[int, Flight] = {}
        self._parcels: dict[str, Parcel] = {}
        self._lock = Lock()
        self._closed = False
        self._unheard = False  # there is no scheduler any more
        self._thread = Thread(target=self._listen, name="parallelkit-courier", daemon=True)

    def open(self) -> None:
        """Register the run at the broker, and begin to listen."""
        self._hear_width(*self._ask("open", client=self._client.id))
        if len(self._job) > INLINE:
            self._scatter_job()
        self._thread.start()

    def _ask(self, question: str, patience: float | None = None, **about: Any) -> Any:
        ask = getattr(self._client.scheduler, f"parallelkit_{question}")
        return self._client.sync(ask, run=self.run, callback_timeout=patience, **about)

    def _scatter_job(self) -> None:
        if not self.threads:  # who scatters waits for a worker, and an adaptive cluster for a task
            self._client.submit(abs, 0, key=f"{PREFIX}first-{self.run}", pure=False).result()
        (self._kept,) = self._client.scatter([self._job], broadcast=True, hash=False)

    # Out

    def offer(self) -> None:
        """There is something new in the queue."""
        with self._lock:
            self._hand_out()

    def _hand_out(self) -> None:
        try:
            while self._lane.queue and not self._closed and (most := self._room()) > 0:
                self._send(self._take(most))
        except Exception as error:  # a client that was closed, or whatever keeps dask from taking it
            self._fail("dask does not take tasks any more", error)

    def _room(self) -> int:
        """How many attempts may be in the next batch."""
        if self._cap is not None:
            return int(len(self._flights) < self._cap)
        if len(self._parcels) >= (2 * self.threads or NOBODY_YET):
            return 0
        share = -(-self._lane.waiting() // max(1, self.threads))
        return 1 if self._lane.exact else min(self._lane.pace.limit, share)

    def _take(self, most: int) -> Batch:
        """The next attempts, in one batch though they were queued in several parts."""
        first = self._lane.take(most)
        tickets, payloads, size = list(first.tickets), list(first.payloads or ()), first.size()
        queue, packed = self._lane.queue, first.payloads is not None
        while len(tickets) < most and size < ALONE and queue and (queue[0].payloads is not None) is packed:
            more = self._lane.take(most - len(tickets))
            tickets += more.tickets
            payloads += more.payloads or ()
            size += more.size()
        return Batch(self._lane, tickets, payloads if packed else None)

    def _send(self, batch: Batch) -> None:
        key = f"{PREFIX}{self.run}-{next(self._numbers)}"
        indices, numbers, items, timeouts = zip(*batch.tickets, strict=True)
        held: list[Any] = []
        payloads = None
        if batch.payloads is not None:
            payloads = [self._hold(payload, held) for payload in batch.payloads]
        job = self._job if self._kept is None else self._kept.key
        plain = items if payloads is None else None
        order = Order(
            key, self.run, self._lane.exact, self._ahead(), job, indices, numbers, timeouts, plain, payloads
        )
        call = pickle.dumps(Call(self._expected, pickle.dumps(tuple(order), 5)), 5)
        held.append(self._client.submit(pickle.loads, call, key=key, pure=False, **self._placing()))
        self._parcels[key] = Parcel(indices, held)
        now = monotonic()
        packed = batch.payloads if batch.payloads is not None else repeat(None)
        for ticket, payload in zip(batch.tickets, packed, strict=False):
            self._flights[ticket[0]] = Flight(ticket, payload, key, now)

    def _hold(self, payload: Any, held: list[Any]) -> bytes | str:
        if len(payload) < ALONE or not self.threads:
            return bytes(payload)
        (future,) = self._client.scatter([payload], hash=False)
        held.append(future)
        return str(future.key)

    # In: the courier's thread

    def _listen(self) -> None:
        try:
            while not self._closed and (news := self._ask("take")) is not None:
                self._read(news)
        except Exception as error:
            self._unheard = isinstance(error, OSError)
            self._fail("the connection to the dask scheduler was lost", error)
        else:
            self._fail("the dask scheduler does not know this run any more", None)

    def _fail(self, reason: str, cause: Exception | None) -> None:
        if not self._closed:
            self._lane.fail(Broken(reason, cause=cause))

    def _read(self, news: Iterable[Sequence[Any]]) -> None:
        with self._lock:
            for what, *about in news:
                getattr(self, f"_hear_{what}")(*about)
            self._hand_out()
        if self._lane.events:  # a wait is not to end for nothing
            self._lane.gate.open()

    def _hear_width(self, threads: int, workers: Iterable[str]) -> None:
        self.threads = threads
        self._workers = list(workers)
        self._widen(threads)

    def _hear_told(self, blob: bytes, over: Iterable[str] = ()) -> None:
        report = unseal(blob)
        latest = monotonic()
        shift = self._clock.shift(report.host, report.boot, report.now, latest)
        for span in report.spans:
            self._take_span(span, shift, latest)
        for lost in report.lost:
            self._lane.post(unpack_lost(lost, self._land([lost[0]]), shift, latest))
        for packed, index, number in report.records:
            ticket = None if index is None or number is None else (index, number, None, None)
            self._lane.post(Record(packed, ticket))
        for index, started, label in report.begun:
            if index in self._flights:
                self.begun[index] = (min(latest, started - shift), label)
        self._put_back([index for index in report.unbegun if index in self._flights])
        self._mend(report)
        for key in over:
            self._parcels.pop(key, None)

    def _mend(self, report: Report) -> None:
        if report.missing is not None and self._kept is not None:
            self._scatter_job()
        if report.broken is not None:
            self._fail(f"{report.broken} on {report.host}", None)

    def _take_span(self, packed: Any, shift: float, latest: float) -> None:
        batch = self._land(array("q", packed[0]))
        columns = unpack_columns(packed, shift, latest)
        self._measure(len(columns.kinds), columns.ended[-1] - columns.started[0])
        self._lane.post(Span(batch, columns, packed[-1]))

    def _measure(self, count: int, seconds: float) -> None:
        pace = self._lane.pace
        limit = pace.limit
        pace.measure(count, seconds)
        wanted = self._ahead() / max(pace.expected(1), AHEAD / LONGEST_BATCH)
        pace.limit = max(1, min(RAMP * limit, int(wanted)))

    def _ahead(self) -> float:
        return min(LONGEST, max(AHEAD, self.threads / BATCHES))

    def _land(self, indices: Iterable[int]) -> Batch:
        """These attempts have ended, or are to be handed out anew."""
        flights = [self._flights.pop(index) for index in indices]
        for flight in flights:
            self.begun.pop(flight.ticket[0], None)
        payloads = [flight.payload for flight in flights if flight.payload is not None]
        return Batch(self._lane, [flight.ticket for flight in flights], payloads or None)

    def _put_back(self, indices: Iterable[int]) -> None:
        """Attempts that never began go to the head of the queue."""
        packed = [index for index in indices if self._flights[index].payload is not None]
        plain = [index for index in indices if self._flights[index].payload is None]
        self._lane.queue.extendleft(self._land(some) for some in (packed, plain) if some)

    def _hear_returned(self, keys: Iterable[str], why: str, unfit: Iterable[str]) -> None:
        for key in keys:
            self._put_back(self._still_in(key))
            self._parcels.pop(key, None)
        self._unfit.update(unfit)
        if why and self._unfit.issuperset(self._workers):
            self._fail(f"no dask worker is left that fits this program: {why}", None)

    def _placing(self) -> dict[str, Any]:
        """Once a worker has joined that does not fit, all others are named; else dask decides freely."""
        fit = [worker for worker in self._workers if worker not in self._unfit]
        return {"workers": fit} if self._unfit else {}

    def _hear_lost(self, worker: str, keys: Iterable[str]) -> None:
        now = monotonic()
        for key in keys:
            for index in self._still_in(key):
                started, label = self.begun.get(index, (self._flights[index].handed, worker))
                self._lane.events.append(Vanished(self._land([index]), started, now, label))  # type: ignore[arg-type]
            self._parcels.pop(key, None)

    def _still_in(self, key: str) -> list[int]:
        parcel = self._parcels.get(key)
        flights = self._flights
        return [i for i in parcel.indices if i in flights and flights[i].key == key] if parcel else []

    # The end

    def close(self) -> None:
        """End the run on all workers; what was committed there is posted, and nothing is left when it returns."""
        self._closed = True
        news = self._end()
        self._read(news or ())
        with self._lock:
            self._parcels.clear()
            self.begun.clear()
            self._kept = None
        if self._thread.ident is not None:
            self._thread.join(None if news is not None else UNHEARD)

    def _end(self) -> list[Any] | None:
        """What the broker tells last; None where it cannot be asked, for then it ends the run by itself."""
        if self._unheard:
            return None
        try:
            return list(self._ask("close", patience=PATIENCE))
        except Exception:  # whatever way the connection, or the client, is closed
            return None
