"""Daemon threads; a thread cannot be killed, so one that overruns its timeout is abandoned, and we say so.

The protocol: each port has one deque of tickets, each worker its own gate. An idle worker puts itself
on the idle deque, looks for tickets once more and blocks. Whoever adds tickets wakes one worker, and
a worker that leaves tickets behind wakes the next. A finished attempt goes onto its port's deque of
results, and opens the port's gate in case the run waits there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from parallelkit._errors import ParallelKitError
from parallelkit._executors._contract import Job
from parallelkit._executors._gate import Gate
from parallelkit._executors._thread_port import Current, Loss, ThreadPort

IDLE = 5.0  # seconds after which an idle thread retires
START_LIMIT = 60.0  # seconds that an initializer may take
PATIENCE = 60.0  # seconds for a thread to return that was abandoned without a timeout, as its run was stopped

_numbers = count(1)


class ThreadEngine:
    """Owns the threads. Up to ``max_workers`` run, and as many again may be abandoned ones."""

    def __init__(
        self,
        max_workers: int,
        name_prefix: str = "parallelkit",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.max_workers = max_workers
        self.name_prefix = name_prefix
        self.broken: Exception | None = None
        self.closed = False
        self.ports: tuple[ThreadPort, ...] = ()
        self.workers: set[_Worker] = set()
        self.abandoned: set[_Worker] = set()
        self.idle: deque[_Worker] = deque()
        self.loss: Loss | None = None
        self._initializer = initializer
        self._initargs = initargs
        self._starting: dict[_Worker, float] = {}  # those in their initializer, and until when they may be
        self._spent = 0.0  # processor seconds of the threads that have ended
        self.surplus = 0  # threads that there are too many, since nested runs gave their slots back
        self._lent = 0  # slots whose task waits for a nested run on this same engine
        self._lock = threading.Lock()

    def open(self, job: Job) -> ThreadPort:
        """A new port. Opened from a task of this engine, it gets that task's slot as one more."""
        nested = any(worker.ident == threading.get_ident() for worker in tuple(self.workers))
        port = ThreadPort(self, job, nested)
        with self._lock:
            self._lent += nested
            self.ports += (port,)
        return port

    def capacity(self) -> int:
        """How many threads may run tasks now: slots are lost once too many threads are abandoned."""
        return self.max_workers + self._lent - max(0, len(self.abandoned) - self.max_workers)

    def cpu_seconds(self) -> float | None:
        """Processor time of all threads so far; None where the system does not tell."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return None
        with self._lock:  # which a thread takes when it ends: so each that is asked still lives
            idents = [worker.ident for worker in (*self.workers, *self.abandoned)]
            clocks = [time.pthread_getcpuclockid(ident) for ident in idents if ident is not None]
            return self._spent + sum(map(time.clock_gettime, clocks))

    def remove(self, port: ThreadPort) -> None:
        """Forget a closed port. Idempotent, as its ``close`` is: a slot that was lent comes back once."""
        with self._lock:
            self._lent -= port.nested and port in self.ports
            self.ports = tuple(other for other in self.ports if other is not port)
            self.surplus = max(0, len(self.workers) - self.capacity())

    def dismiss(self, worker: _Worker) -> bool:
        """Whether this thread is one too many, and must end."""
        with self._lock:
            self.surplus = max(0, len(self.workers) - self.capacity())
            if not self.surplus:
                return False
            self.workers.discard(worker)
            self.surplus -= 1
            return True

    def supply(self, tickets: int) -> None:
        """See that somebody works on ``tickets`` new ones: wake one that idles, start those that lack."""
        self.wake_one()
        if len(self.workers) < self.capacity():
            with self._lock:
                missing = min(tickets - len(self.idle), self.capacity() - len(self.workers))
                for _ in range(missing if not self.closed else 0):
                    self._start_worker()

    def _start_worker(self) -> None:
        worker = _Worker(self, f"{self.name_prefix}_{next(_numbers)}")
        self.workers.add(worker)
        if self._initializer is not None:
            self._starting[worker] = time.monotonic() + START_LIMIT
            for port in self.ports:
                port.look()  # it has to watch this start
        try:
            worker.thread.start()
        except BaseException as error:
            self._starting.pop(worker, None)
            self.workers.discard(worker)  # whether it runs is not known: a signal handler may have raised
            # At the limit of the system fewer threads will do; none will not.
            if not (isinstance(error, RuntimeError) and self.workers):
                raise

    def wake_one(self) -> None:
        """Wake an idle worker, if there is one."""
        try:
            self.idle.pop().gate.open()
        except IndexError:
            return

    def initialize(self, worker: _Worker) -> bool:
        """In a new thread: run the initializer; False where it failed, or was given up meanwhile."""
        if self._initializer is None:
            return True
        try:
            self._initializer(*self._initargs)
        except BaseException as error:
            self._break(f"raised {type(error).__name__}", error)
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

    def abandon(self, worker: _Worker, now: float, timeout: float | None) -> None:
        """Give up on a thread: it no longer counts as a worker, and another may take its place."""
        with self._lock:
            self.workers.discard(worker)
            self.abandoned.add(worker)
            if self._is_lost() and self.loss is None:
                patience = PATIENCE if timeout is None else timeout
                self.loss = Loss(now + patience, patience)
                for port in self.ports:
                    port.look()
        waiting = sum(len(port.queue) for port in self.ports)
        if waiting:
            self.supply(waiting)

    def _is_lost(self) -> bool:
        """Whether abandoned threads have cost every slot; one that was lent is not free for anybody else."""
        return self.capacity() <= self._lent

    def leave(self, worker: _Worker) -> None:
        """A thread ends. If it had been abandoned, the slot that it had cost is back."""
        with self._lock:
            self._spent += time.thread_time()
            self.workers.discard(worker)
            self.abandoned.discard(worker)
            if not self._is_lost():
                self.loss = None
        waiting = sum(len(port.queue) for port in self.ports)
        if waiting and not self.closed:
            self.supply(waiting)

    def close(self) -> None:
        """End all idle threads and wait for their end; those in a task or an initializer are left to themselves."""
        with self._lock:
            self.closed = True
            self._give_up_starts()
            workers = tuple(self.workers)
        for port in self.ports:
            port.fail(ParallelKitError("the executor was shut down"))  # whose run would wait for ever
            port.close()
        for worker in {*workers, *tuple(self.idle)}:
            worker.gate.open()
        for worker in workers:
            if worker not in self.abandoned and worker.ident != threading.get_ident():
                worker.thread.join()


class _Worker:
    """One thread. ``current`` is what it runs: port, ticket, and the claim on its outcome."""

    __slots__ = ("current", "engine", "gate", "ident", "name", "thread")

    def __init__(self, engine: ThreadEngine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.gate = Gate()
        self.current: Current | None = None
        self.ident: int | None = None
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        self.ident = threading.get_ident()
        try:
            if self.engine.initialize(self):
                self._serve()
        finally:
            self.engine.leave(self)

    def _serve(self) -> None:
        engine = self.engine
        turn = 0
        while not (engine.surplus and engine.dismiss(self)):
            ports = engine.ports
            for offset in range(len(ports)):  # ports take turns
                port = ports[(turn + offset) % len(ports)]
                try:
                    ticket = port.queue.popleft()
                except IndexError:
                    continue
                turn += 1
                if port.queue and engine.idle:
                    engine.wake_one()
                if not port.execute(self, ticket):
                    return  # abandoned: another thread has this one's slot
                del ticket  # an idle thread keeps no argument alive
                break
            else:
                ports, port = (), None  # nor a run that is over
                if engine.closed or engine.broken is not None or not self._rest():
                    return

    def _rest(self) -> bool:
        """Wait for work; False when there has been none for long."""
        engine = self.engine
        engine.idle.append(self)
        in_time = self.gate.wait(self._wanted, IDLE)
        try:
            engine.idle.remove(self)
        except ValueError:
            return True  # somebody took this worker off the deque: there is work for it
        return in_time

    def _wanted(self) -> bool:
        return any(port.queue for port in self.engine.ports) or self.engine.closed
