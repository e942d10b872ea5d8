"""The engine of daemon threads. A thread cannot be killed, so one that overruns its timeout is abandoned.

The protocol: each port has one deque of tickets, each worker its own gate. An idle worker puts itself
on the idle deque, looks for tickets once more and blocks. Whoever adds tickets wakes one worker, and
a worker that leaves tickets behind wakes the next. A worker appends the result of an attempt to its
port's deque of results, and opens the port's gate in case the run waits there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from parallelkit._errors import ParallelKitError
from parallelkit._executors._contract import Job, Ticket, close_port
from parallelkit._executors._shared import snapshot
from parallelkit._executors._thread._lending import Borrower, current_worker, lender, take_claim
from parallelkit._executors._thread._loss import Loss, loss_at
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._executors._thread._queue import TicketQueue
from parallelkit._executors._thread._registry import Registry
from parallelkit._executors._thread._slots import Slots
from parallelkit._executors._thread._starts import Starts, overran
from parallelkit._executors._thread._worker import ThreadWorker, end_each, tell_of_room, wake_each
from parallelkit._locks import careful
from parallelkit._raised import describe_error, drop_frames, is_of_signal


class ThreadEngine:
    """Owns the threads: up to ``max_workers`` that run, and as many abandoned ones. ``passing``: it serves one run only.

    Its interfaces: ``Crew`` for ports, ``Owner`` for threads, ``Lender`` for futures.
    """

    def __init__(
        self,
        max_workers: int,
        name_prefix: str = "parallelkit",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        passing: bool = False,
    ) -> None:
        self.max_workers, self.name_prefix = max_workers, name_prefix
        self.broken: Exception | None = None
        self.closed = self.lending = False  # lending: whether a slot was ever lent
        self.ports: tuple[ThreadPort, ...] = ()
        self.workers: set[ThreadWorker] = set()
        self.abandoned: set[ThreadWorker] = set()
        self.idle: deque[ThreadWorker] = deque()
        self.spares: dict[ThreadWorker, None] = {}  # had a slot that was lent, and wait for the next
        self.loss: Loss | None = None
        self.initializes, self._starts = initializer is not None, Starts(initializer, initargs)
        self._registry, self._passing = Registry(), passing
        self.surplus = 0  # threads above capacity, since nested runs have given back their slots
        self.slots = Slots(max_workers, self.workers, self.abandoned)
        self._lock = careful(threading.RLock)  # reentrant: a finalizer may run, and submit, while it is held

    def open(self, job: Job) -> ThreadPort:
        """Open a port. If a task of this engine opens it, the port may use that task's slot as well."""
        outer = None if job.shared else lender(self)
        port = ThreadPort(self, job, nested=outer is not None)
        try:
            with self._lock:
                if self.closed:  # since the run asked the executor for it: no thread would ever work here
                    raise RuntimeError("this executor is closed: it was shut down before the run began")
                if outer is not None:
                    self.lending = True
                    self.slots.lend(port, outer.claim)
                self.ports += (port,)
            port.begin()
        except BaseException:  # perhaps raised by a signal handler: nobody else would close it
            close_port(port)
            raise
        return port

    def is_served_here(self) -> bool:
        """Whether others wait for the calling thread: it holds the lock, or its starter waits for it to begin."""
        return self._registry.is_entering() or self._lock._is_owned()  # type: ignore[attr-defined]  # as Condition asks it

    def lend(self, future: Borrower) -> list[float] | None:
        outer = lender(self)
        if outer is None:
            return [] if current_worker() in self.abandoned else None
        with self._lock:
            self.lending = True
            self.slots.lend(future, outer.claim)
        self._supply_all()
        return outer.claim

    def repay(self, borrower: Borrower, claim: list[float] | None = None) -> None:
        if self.slots.loans:
            with self._lock:
                self.slots.repay(borrower, claim)
                self._count_surplus()

    def capacity(self) -> int:
        """How many threads may run tasks now."""
        return self.slots.own() + self.slots.lent()

    def slots_for(self, port: TicketQueue) -> tuple[int, bool]:
        return self.slots.open_to(port, alone=len(self.ports) <= 1)

    def _count_surplus(self) -> int:
        # While a thread is in its initializer, another that is ready must not stand by because of it.
        self.surplus = max(0, len(self.workers) - len(self._starts) - self.capacity())
        return self.surplus

    def take(self, worker: ThreadWorker, port: ThreadPort) -> Ticket | None:
        """The next ticket of a port, if a free thread may take it.

        A slot that was lent serves only what its task waits for. If it served other queued tasks, each of
        them might lend its slot in turn, until there were as many threads as tasks; and the lender would
        share its slot when it goes on.
        """
        if not (port.queue or port.urgent):
            return None
        with self._lock:
            if self._count_surplus():
                return None
            worker.ticket, worker.slot, worker.urgent = port.take(self.slots.free)
            return worker.ticket

    def serves(self, port: ThreadPort) -> bool:
        return port.has_work(self.slots.free)

    def cpu_seconds(self) -> float | None:
        with self._lock:  # a thread takes it before it ends, so every thread that is asked is alive
            return self._registry.cpu_seconds(self.workers.union(self.abandoned, self.spares))

    def remove(self, port: ThreadPort) -> None:
        with self._lock:
            self.slots.repay(port)
            self.ports = tuple(other for other in self.ports if other is not port)
            self._count_surplus()

    def is_spent(self) -> bool:
        return self._passing and all(port.is_spent() for port in self.ports)

    def dismiss(self, worker: ThreadWorker) -> bool:
        with self._lock:
            if not self._count_surplus():
                return False
            self.workers.discard(worker)
            if len(self.spares) < self.max_workers:
                self.spares[worker] = None
            else:
                self._registry.leave(worker)  # now, since it is in no other set: ``close`` waits for it
        self._supply_all()  # it may have been woken for a ticket
        return True

    def recall(self, worker: ThreadWorker) -> bool:
        with self._lock:
            self.spares.pop(worker, None)
            if worker not in self.workers:
                self._registry.leave(worker)
            return worker in self.workers

    def supply(self, tickets: int, awaited: bool = False) -> None:
        """Wake an idle thread, and start missing ones, for new tickets; ``awaited`` by tasks of this engine or not."""
        woken = self.wake_one()
        if len(self.workers) < self.capacity():
            with self._lock:
                missing = min(tickets - woken - len(self.idle), self.capacity() - len(self.workers))
                for _ in range(missing if not (self.closed or self.broken) else 0):
                    self._add_worker(self.slots.lent() if awaited else 0)

    def _add_worker(self, held: int) -> None:
        if self.spares:
            worker = next(reversed(self.spares))  # the latest, so that the others may end
            worker.gate.open()  # first, as a signal handler may raise: a spare that is woken for nothing ends
            self.workers.add(worker)
            del self.spares[worker]
            return
        worker = ThreadWorker(self, self.name_prefix, self._registry.number())
        try:
            self._registry.enter(worker)
            self.workers.add(worker)
            if self.initializes:
                self._starts.begin(worker)
                wake_each(self.ports)  # a port enforces START_LIMIT, so it must wake in time
            worker.thread.start()
        except BaseException as error:
            self._starts.end(worker)
            self._registry.forget(worker)
            self.workers.discard(worker)  # it may run nevertheless: a signal handler may have raised
            # The system may have no more threads. Those that are there will do, unless all are held by lenders.
            if not (isinstance(error, RuntimeError) and len(self.workers) > held) or is_of_signal(error):
                raise

    def wake_one(self) -> bool:
        """Wake an idle worker, if there is one; whether there was."""
        try:
            self.idle.pop().gate.open()
        except IndexError:
            return False
        except BaseException:  # raised by a signal handler, perhaps after one was taken off the idle ones
            self.rouse()
            raise
        return True

    def initialize(self, worker: ThreadWorker) -> bool:
        """In a new thread: run the initializer; False if it failed, or was given up meanwhile."""
        self._registry.begin(worker)
        if not self.initializes:
            return True
        try:
            self._starts.run()
        except BaseException as error:
            self._break(f"raised {describe_error(error)}", drop_frames(error))
        with self._lock:
            self._starts.end(worker)
            self._count_surplus()
            return self.broken is None and worker in self.workers

    def check_starts(self, now: float) -> float | None:
        if not self._starts or self.broken is not None:
            return None
        with self._lock:
            limit = self._starts.limit()
        if limit is not None and limit <= now:
            self._break(overran())
        return limit

    def _break(self, fate: str, cause: BaseException | None = None) -> None:
        """Break the engine, as a failed initializer breaks the standard pools."""
        self.broken = self._starts.fail(fate, cause)
        for port in self.ports:
            port.fail(self.broken)

    def abandon(self, worker: ThreadWorker, claim: list[float], now: float, timeout: float | None) -> bool:
        """Give up on a thread, so that another may take its place; False if its attempt has just ended."""
        with self._lock:
            # Under the lock, so that the thread's ``strike_off`` comes later: else it would count as abandoned for ever.
            if not take_claim(claim):
                return False
            self.workers.discard(worker)
            self.abandoned.add(worker)
            if self.slots.own() <= 0 and self.loss is None:
                self.loss = loss_at(now, timeout)
                wake_each(self.ports)
        for borrower in self.slots.borrowers(claim):
            borrower._cut_off()
        self._supply_all()
        return True

    def _supply_all(self) -> None:
        """Offer a slot that has come free to whoever waits for one."""
        tell_of_room(self.ports)
        try:
            if waiting := sum(port.waiting() for port in self.ports):
                self.supply(waiting)
        except RuntimeError as error:  # the system has no thread left
            if is_of_signal(error):
                raise
            # Not raised: whoever gave up on a thread has an outcome to report.
            for port in self.ports:
                if port.waiting():
                    port.fail(error)

    def end(self, worker: ThreadWorker) -> None:
        """In a thread that ends: take its leave. Idempotent."""
        with self._lock:
            self._registry.leave(worker)
            with suppress(ValueError):
                self.idle.remove(worker)
        self.strike_off(worker)

    def is_abandoned(self, worker: ThreadWorker) -> bool:
        with self._lock:
            return worker in self.abandoned

    def rouse(self) -> None:
        """Have all threads and ports look again for work: a thread that has just died may have been about to wake one."""
        for waiter in [*self.workers, *self.ports]:
            waiter.gate.force()  # type: ignore[attr-defined]  # both have one

    def strike_off(self, worker: ThreadWorker) -> None:
        """Strike off a worker that is gone; if it was abandoned, it costs no slot any more."""
        with self._lock:
            self.workers.discard(worker)
            self.abandoned.discard(worker)
            if self.slots.own() > 0:
                self.loss = None
        self._supply_all()

    def close(self) -> None:
        """End all idle threads and wait for them; threads in a task or an initializer are left to themselves."""
        with self._lock:
            self.closed = True
            self._starts.give_up(self.workers, self.abandoned)
            # Where a start was interrupted, the thread may be among the idle ones only.
            workers = self.workers.union(snapshot(self.idle), self.spares)
        for port in self.ports:
            port.fail(ParallelKitError("the executor was shut down"))  # else its run would wait for ever
            port.close()
        end_each(workers, self.abandoned)
        self._registry.join()
