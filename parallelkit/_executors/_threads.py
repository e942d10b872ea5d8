"""Daemon threads; a thread cannot be killed, so one that overruns its timeout is abandoned, and we say so.

The protocol: each port has one deque of tickets, each worker its own gate. An idle worker puts itself
on the idle deque, looks for tickets once more and blocks. Whoever adds tickets wakes one worker, and
a worker that leaves tickets behind wakes the next. A finished attempt goes onto its port's deque of
results, and opens the port's gate in case the run waits there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from parallelkit._errors import ParallelKitError
from parallelkit._executors._contexts import initialize
from parallelkit._executors._contract import Job, Ticket
from parallelkit._executors._thread._lending import Loans, lender, take_claim
from parallelkit._executors._thread._line import AWAITED
from parallelkit._executors._thread._port import Loss, ThreadPort
from parallelkit._executors._thread._roll import Roll
from parallelkit._executors._thread._worker import ThreadWorker, end_each, tell_of_room
from parallelkit._raised import describe_error, drop_frames
from parallelkit._system import monotonic

START_LIMIT = 60.0  # seconds that an initializer may take
PATIENCE = 60.0  # seconds for a thread to return that was abandoned without a timeout, as its run was stopped


class ThreadEngine:
    """Owns the threads. Up to ``max_workers`` run, and as many again may be abandoned ones. ``passing``: for one run."""

    def __init__(
        self,
        max_workers: int,
        name_prefix: str = "parallelkit",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        passing: bool = False,
    ) -> None:
        self.max_workers = max_workers
        self.name_prefix = name_prefix
        self.broken: Exception | None = None
        self.closed = False
        self.ports: tuple[ThreadPort, ...] = ()
        self.workers: set[ThreadWorker] = set()
        self.abandoned: set[ThreadWorker] = set()
        self.idle: deque[ThreadWorker] = deque()
        self.loss: Loss | None = None
        self.initializes = initializer is not None
        self._initializer = initializer
        self._initargs = initargs
        self._starting: dict[ThreadWorker, float] = {}  # those in their initializer, and until when
        self._roll = Roll(passing)
        self.surplus = 0  # threads that there are too many, since nested runs gave their slots back
        self.loans = Loans()  # of tasks that wait for others on this same engine
        self.awaited = Loans()  # those of them that wait for futures
        self.lending = False  # whether there has ever been one
        self._lock = threading.RLock()  # garbage that is collected while it is held may have finalizers

    def open(self, job: Job) -> ThreadPort:
        """A new port. Opened from a task of this engine, it gets that task's slot as one more."""
        outer = None if job.shared else lender(self)
        port = ThreadPort(self, job, 0 if outer is None else max(outer.depth, 0) + 1)
        with self._lock:
            if self.closed:  # after the executor was asked for its engine: nobody would ever work here
                raise RuntimeError("this executor is closed: it was shut down before the run began")
            if outer is not None:
                self.lending = True
                self.loans.add(port, outer.claim)
            self.ports += (port,)
        return port

    def is_served_here(self) -> bool:
        """Whether others wait for what this thread is in the midst of: at the lock, or as it is being started."""
        return self._roll.is_entering() or self._lock._is_owned()  # type: ignore[attr-defined]  # as Condition asks it

    def lend(self, future: object) -> bool:
        """The task that calls, if it is one of this engine, is about to wait for a future: lend its slot."""
        outer = lender(self)
        if outer is None:
            return False
        with self._lock:
            self.lending = True
            self.loans.add(future, outer.claim)
            self.awaited.add(future, outer.claim)
        self._supply_all()
        return True

    def repay(self, borrower: object) -> None:
        """What a slot was lent for is over."""
        if self.loans:
            with self._lock:
                self.loans.repay(borrower)
                self.awaited.repay(borrower)
                self.surplus = max(0, len(self.workers) - self.capacity())

    def capacity(self) -> int:
        """How many threads may run tasks now: slots are lost once too many threads are abandoned."""
        return self._own() + len(self.loans)

    def _own(self) -> int:
        return self.max_workers - max(0, len(self.abandoned) - self.max_workers)

    def take(self, worker: ThreadWorker, port: ThreadPort) -> Ticket | None:
        """The next ticket of a port, if a free thread may have it.

        A slot that was lent is for what its task waits for. Would it serve whatever is queued beside
        that task, each of these might lend its slot in turn, until there were as many threads as tasks;
        and the task would not be alone in its slot when it goes on.
        """
        with self._lock:
            worker.depth = worker.ticket = None
            self.surplus = max(0, len(self.workers) - self.capacity())
            if self.surplus:
                return None
            worker.ticket, worker.depth = port.take(self._allows)
            return worker.ticket

    def serves(self, port: ThreadPort) -> bool:
        """Whether a free thread might take a ticket of this port."""
        return port.has_work(self._allows if self.lending else None)

    def _allows(self, depth: int) -> bool:
        """Whether one more attempt may run at this depth."""
        if not self.loans:
            return True
        most = len(self.awaited) if depth == AWAITED else self.max_workers if depth else self._own()
        return sum(worker.depth == depth for worker in list(self.workers)) < most

    def cpu_seconds(self) -> float | None:
        """Processor time of all threads so far; None where the system does not tell."""
        with self._lock:  # which a thread takes when it ends: so each that is asked still lives
            return self._roll.cpu_seconds(self.workers | self.abandoned)

    def remove(self, port: ThreadPort) -> None:
        """Forget a closed port."""
        with self._lock:
            self.loans.repay(port)
            self.ports = tuple(other for other in self.ports if other is not port)
            self.surplus = max(0, len(self.workers) - self.capacity())

    def is_spent(self) -> bool:
        """Whether a thread that finds nothing to do may end: nothing new will come."""
        return self._roll.passing and all(port.is_spent() for port in self.ports)

    def dismiss(self, worker: ThreadWorker) -> bool:
        """Whether this thread is one too many, and must end."""
        with self._lock:
            self.surplus = max(0, len(self.workers) - self.capacity())
            if not self.surplus:
                return False
            self.workers.discard(worker)
            self.surplus -= 1
            return True

    def supply(self, tickets: int, awaited: bool = False) -> None:
        """Have somebody work on so many new ones, ``awaited`` by tasks here: wake one that idles, start those that lack."""
        woken = self.wake_one()
        if len(self.workers) < self.capacity():
            with self._lock:
                missing = min(tickets - woken - len(self.idle), self.capacity() - len(self.workers))
                for _ in range(missing if not self.closed else 0):
                    self._start_worker(len(self.loans) if awaited else 0)

    def _start_worker(self, held: int) -> None:
        worker = ThreadWorker(self, self.name_prefix, self._roll.number())
        try:
            self._roll.enter(worker)
            self.workers.add(worker)
            if self._initializer is not None:
                self._starting[worker] = monotonic() + START_LIMIT
                for port in self.ports:
                    port.look()  # it has to watch this start
            worker.thread.start()
        except BaseException as error:
            self._starting.pop(worker, None)
            self._roll.strike(worker)
            self.workers.discard(worker)  # whether it runs is not known: a signal handler may have raised
            # At the system's limit fewer will do, if there are others than those that are held.
            if not (isinstance(error, RuntimeError) and len(self.workers) > held):
                raise

    def wake_one(self) -> bool:
        """Wake an idle worker, if there is one; whether there was."""
        try:
            self.idle.pop().gate.open()
        except IndexError:
            return False
        return True

    def initialize(self, worker: ThreadWorker) -> bool:
        """In a new thread: run the initializer; False where it failed, or was given up meanwhile."""
        self._roll.begin(worker)
        if self._initializer is None:
            return True
        try:
            initialize(self._initializer, self._initargs)
        except BaseException as error:
            self._break(f"raised {describe_error(error)}", drop_frames(error))
        with self._lock:
            self._starting.pop(worker, None)
            return self.broken is None and worker in self.workers

    def check_starts(self, now: float) -> float | None:
        """Break if an initializer takes too long; when to look again."""
        if not self._starting:
            return None
        with self._lock:
            limit = min(self._starting.values(), default=None)
            overdue = limit is not None and limit <= now
            if overdue:
                self._give_up_starts()
        if overdue:
            self._break(f"did not end within {START_LIMIT:g} s")
        return limit

    def _give_up_starts(self) -> None:
        """Wait for no initializer any more."""
        self.workers.difference_update(self._starting)
        self.abandoned.update(self._starting)
        self._starting.clear()

    def _break(self, fate: str, cause: BaseException | None = None) -> None:
        """A failed initializer breaks the engine, as it breaks the standard pools."""
        from concurrent.futures.thread import BrokenThreadPool

        self.broken = BrokenThreadPool(f"the initializer of a worker thread {fate}")
        self.broken.__cause__ = cause
        for port in self.ports:
            port.fail(self.broken)

    def abandon(self, worker: ThreadWorker, claim: list[float], now: float, timeout: float | None) -> bool:
        """Give up on a thread: another may take its place. False where its attempt has ended this moment."""
        with self._lock:
            # Taken in here, so that it leaves after this: else it would count as abandoned for ever.
            if not take_claim(claim):
                return False
            self.workers.discard(worker)
            self.abandoned.add(worker)
            if self._own() <= 0 and self.loss is None:
                patience = PATIENCE if timeout is None else timeout
                self.loss = Loss(now + patience, patience)
                for port in self.ports:
                    port.look()
        self._supply_all()
        return True

    def _supply_all(self) -> None:
        """A slot has come free: somebody may wait for it."""
        tell_of_room(self.ports)
        waiting = sum(port.waiting() for port in self.ports)
        if waiting and not self.closed:
            self.supply(waiting)

    def end(self, worker: ThreadWorker) -> None:
        """In a thread that ends. Idempotent."""
        with self._lock:
            self._roll.leave(worker)
            with suppress(ValueError):
                self.idle.remove(worker)
        self.leave(worker)

    def is_abandoned(self, worker: ThreadWorker) -> bool:
        """Whether a run has given up on this thread."""
        with self._lock:
            return worker in self.abandoned

    def rouse(self) -> None:
        """Let everybody look again for what there is to do: a thread may have ended in the midst of waking one."""
        for waiter in [*self.workers, *self.ports]:
            waiter.gate.force()  # type: ignore[attr-defined]  # both have one
        self._supply_all()

    def leave(self, worker: ThreadWorker) -> None:
        """A worker is gone. If it had been abandoned, the slot that it had cost is back."""
        with self._lock:
            self.workers.discard(worker)
            self.abandoned.discard(worker)
            if self._own() > 0:
                self.loss = None
        self._supply_all()

    def close(self) -> None:
        """End all idle threads and wait for their end; those in a task or an initializer are left to themselves."""
        with self._lock:
            self.closed = True
            self._give_up_starts()
            workers = self.workers.union(self.idle)  # with those whose start was broken off, and who idle
        for port in self.ports:
            port.fail(ParallelKitError("the executor was shut down"))  # whose run would wait for ever
            port.close()
        end_each(workers, self.abandoned)
        self._roll.join()
