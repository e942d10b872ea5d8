"""The client's side of a run on dask: submits batches as dask tasks, and receives what the guards report.

A thread of its own waits for news from the broker. It runs none of the user's code.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Lock
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from parallelkit._conditions import Thread
from parallelkit._executors._cluster._broker import PREFIX
from parallelkit._executors._cluster._clock import Clock
from parallelkit._executors._cluster._guard import Call
from parallelkit._executors._cluster._in_flight import InFlight
from parallelkit._executors._cluster._scatter import Scatterer
from parallelkit._executors._cluster._sizes import Sizes
from parallelkit._executors._cluster._wire import (
    Order,
    Report,
    broker_name,
    unpack_columns,
    unpack_died,
    unseal,
    versions,
)
from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._lane import Batch, Broken, Lane, Record, Span
from parallelkit._locks import careful
from parallelkit._raised import is_of_signal
from parallelkit._system import monotonic

PATIENCE = 3.0  # seconds that the broker has to end a run
JOIN_LIMIT = 1.0  # seconds that this thread has to notice that there is no connection
NOBODY_YET = 32  # batches handed out while there are no workers, for an adaptive cluster to scale up by
INLINE = 32 << 10  # bytes up to which the function travels with each batch; a larger one is scattered, once
ALONE = 1 << 20  # bytes from which on an item is scattered by itself


class ClientRun:
    """Stands in for a supervisor: ``open``, ``offer`` and ``close`` are called by the run's thread, ``_lock`` guards the rest."""

    def __init__(
        self, client: Any, lane: Lane, job: bytes, cap: int | None, widen: Callable[[int], None]
    ) -> None:
        # These two a port asks of a supervisor.
        self.pool = SimpleNamespace(lanes=[lane], has_left=lambda lane: False)
        self.broken = None
        self.run = uuid4().hex
        self._in_flight = InFlight(lane)
        self.begun = self._in_flight.begun
        self._sizes = Sizes(lane.pace, lane.exact)
        self._workers: list[str] = []
        self._unfit: set[str] = set()  # workers that joined with another Python, or without parallelkit
        self._client = client
        self._lane = lane
        self._job = job
        self._cap = cap
        self._widen = widen
        self._scattered: Any = None  # dask's future of the function, once it was scattered
        self._scattering = False  # whether it is being scattered
        self._starter: Any = None  # a task that makes an adaptive cluster start a worker
        self._scatterer = Scatterer(client, self._refuse)
        self._expected = versions()
        self._clock = Clock()
        self._numbers = count()
        self._lock = careful(Lock)
        self._closed = False
        self._is_scheduler_gone = False
        self._connection: Any = None  # on which the broker is asked for news
        self._thread = Thread(target=self._listen, name="parallelkit-client-run", daemon=True)

    def open(self) -> None:
        """Register the run with the broker, and start the thread that waits for news."""
        self._hear_width(*self._ask("open", client=self._client.id))
        if len(self._job) > INLINE:
            self._send_job()
        self._thread.start()

    @property
    def threads(self) -> int:
        """How many threads the cluster has."""
        return self._sizes.threads

    def _ask(self, question: str, patience: float | None = None, **about: Any) -> Any:
        ask = getattr(self._client.scheduler, f"{broker_name()}_{question}")
        return self._client.sync(ask, run=self.run, callback_timeout=patience, **about)

    def _send_job(self) -> None:
        """Scatter the function to all workers; no batch is handed out until it has arrived."""
        if self._scattering:
            return
        self._scattering = True
        if not self.threads:  # an adaptive cluster starts workers for tasks only
            self._starter = self._client.submit(abs, 0, key=f"{PREFIX}first-{self.run}", pure=False)
        self._scatterer.send(self._job, self._note_scattered, everywhere=True)

    def _note_scattered(self, future: Any) -> None:
        """Note that the function has arrived. Runs in the client's event loop, for which no holder of the lock waits."""
        with self._lock:
            self._scattered, self._scattering = future, False
            self._hand_out()

    # Out

    def offer(self, batch: Batch) -> None:
        """Queue new attempts, and hand out what there is room for."""
        batch.lane.queue.append(batch)
        with self._lock:
            self._hand_out()

    def _hand_out(self) -> None:
        try:
            while self._lane.queue and not self._closed and (most := self._room()) > 0:
                self._send(self._take(most))
        except Exception as error:  # say, the client was closed
            if is_of_signal(error):
                raise
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        self._fail("dask does not take tasks any more", error)

    def _room(self) -> int:
        """How many attempts may be in the next batch; 0 if no batch may be handed out now."""
        if self._scattering:
            return 0
        if self._cap is not None:
            return int(len(self._in_flight.flights) < self._cap)
        if len(self._in_flight.batches) >= (2 * self.threads or NOBODY_YET):
            return 0
        return self._sizes.batch(self._lane.waiting())

    def _take(self, most: int) -> Batch:
        """Take the next attempts, as one batch even if they were queued in several parts."""
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
        held = self._in_flight.enter(key, batch).held
        payloads: list[Any] = list(batch.payloads or ())
        large = [at for at, payload in enumerate(payloads) if len(payload) >= ALONE and self.threads]
        if not large:
            self._submit(key, batch.tickets, payloads, held)
            return
        (at,) = large  # no more than one: ``_take`` adds nothing after it

        def arrived(future: Any) -> None:
            held.append(future)
            payloads[at] = str(future.key)
            self._submit(key, batch.tickets, payloads, held)

        self._scatterer.send(payloads[at], arrived)

    def _submit(self, key: str, tickets: Sequence[Ticket], payloads: list[Any], held: list[Any]) -> None:
        indices, numbers, items, timeouts = zip(*tickets, strict=True)
        order = Order(
            key=key,
            run=self.run,
            exact=self._lane.exact,
            expected=self._sizes.ahead,
            portion=self._sizes.portion,
            rest=self._sizes.lead,
            job=self._job if self._scattered is None else self._scattered.key,
            indices=indices,
            numbers=numbers,
            timeouts=timeouts,
            items=None if payloads else items,
            payloads=payloads or None,
        )
        call = pickle.dumps(Call(self._expected, pickle.dumps(tuple(order), 5)), 5)
        held.append(self._client.submit(pickle.loads, call, key=key, pure=False, **self._placing()))

    # In: its own thread

    async def _connect(self) -> None:
        """Keep one connection for the run: its loss is noticed at once, while dask would try for long to open a new one."""
        self._connection = await self._client.rpc.connect(self._client.scheduler.address)

    async def _wait_for_news(self) -> Any:
        from distributed.core import send_recv

        return await send_recv(self._connection, op=f"{broker_name()}_take", run=self.run)

    def _hang_up(self) -> None:
        """Give the connection back to dask, unless its client is closed by now. Runs in the client's event loop."""
        if self._connection is not None and self._client.scheduler is not None:
            self._client.rpc.reuse(self._client.scheduler.address, self._connection)

    def _listen(self) -> None:
        try:
            self._client.sync(self._connect)
            while not self._closed and (news := self._client.sync(self._wait_for_news)) is not None:
                self._read(news)
        except Exception as error:
            self._is_scheduler_gone = isinstance(error, OSError)
            self._fail("the connection to the dask scheduler was lost", error)
        else:
            self._fail("the dask scheduler does not know this run any more", None)
        finally:
            self._client.loop.add_callback(self._hang_up)

    def _fail(self, reason: str, cause: Exception | None) -> None:
        if not self._closed:
            self._lane.fail(Broken(reason, cause=cause))

    def _read(self, news: Iterable[Sequence[Any]]) -> None:
        with self._lock:
            for what, *about in news:
                getattr(self, f"_hear_{what}")(*about)
            self._hand_out()
        if self._lane.events:  # else the port's wait would end for nothing
            self._lane.gate.open()

    def _hear_width(self, threads: int, workers: Iterable[str]) -> None:
        self._workers = list(workers)
        self._sizes.threads, self._sizes.workers = threads, len(self._workers)
        self._widen(threads)

    def _hear_told(self, blob: bytes, over: Iterable[str] = ()) -> None:
        report, latest = unseal(blob), monotonic()
        shift = self._clock.shift(report.host, report.clock, report.now, latest)
        for span in report.spans:
            self._take_span(span, shift, latest)
        for died in report.died:
            self._lane.post(unpack_died(died, self._in_flight.land([died[0]]), shift, latest))
        for record in report.records:
            self._lane.post(Record(*record))
        for index, started, label in report.begun:
            self._in_flight.note_begun(index, min(latest, started - shift), label)
        self._in_flight.put_back(report.unbegun)
        self._mend(report)
        for key in over:
            self._in_flight.batches.pop(key, None)

    def _mend(self, report: Report) -> None:
        if report.missing and self._scattered is not None:
            self._send_job()
        if report.broken is not None:
            self._fail(f"{report.broken} on {report.host}", None)

    def _take_span(self, packed: Any, shift: float, latest: float) -> None:
        batch = self._in_flight.land(array("q", packed[0]))
        columns = unpack_columns(packed, shift, latest)
        self._sizes.measure(len(columns.kinds), columns.ended[-1] - columns.started[0])
        self._lane.post(Span(batch, columns, packed[-1]))

    def _hear_returned(self, keys: Iterable[str], why: str, unfit: Iterable[str]) -> None:
        for key in keys:
            self._in_flight.put_back(self._in_flight.still_in(key))
            self._in_flight.batches.pop(key, None)
        self._unfit.update(unfit)
        if why and self._unfit.issuperset(self._workers):
            self._fail(f"no dask worker is left that fits this program: {why}", None)

    def _placing(self) -> dict[str, Any]:
        """Leave the choice of the worker to dask; only once an unfit worker has joined, name all others."""
        fit = [worker for worker in self._workers if worker not in self._unfit]
        return {"workers": fit} if self._unfit else {}

    def _hear_lost(self, worker: str, batches: Iterable[tuple[str, int]]) -> None:
        for key, granted in batches:
            self._lane.events.extend(self._in_flight.lose(key, granted, worker))  # type: ignore[arg-type]  # one kind more, which its port opens

    # The end

    def close(self) -> None:
        """End the run on all workers, and post what was committed there; nothing of it is left when this returns."""
        self._closed = True
        self._scatterer.close()
        news = None if self._is_scheduler_gone else self._end()
        self._read(news or ())
        with self._lock:
            self._in_flight.clear()
            self._scattered = self._starter = None
        if self._thread.is_alive():
            self._thread.join(None if news is not None else JOIN_LIMIT)

    def _end(self) -> list[Any] | None:
        """Have the broker end the run, and return its last news; None if it cannot be asked: then it ends the run by itself."""
        try:
            return list(self._ask("close", patience=PATIENCE))
        except Exception as error:  # the connection or the client is closed, which shows in many ways
            if is_of_signal(error):
                raise  # the run's port is closed once more
            return None
