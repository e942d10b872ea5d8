"""Worker processes that can be killed: a hung or crashed task costs itself, and no other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any

from parallelkit._executors._contract import Block, Ended, Job, Ticket
from parallelkit._executors._process._decode import Opening, decode_lost
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Batch, Broken, Lane, Lost, Payload, Record, Span
from parallelkit._executors._process._pace import Paces
from parallelkit._executors._process._packing import Packer, Packing, all_atoms
from parallelkit._executors._process._preload import home_of
from parallelkit._executors._process._reloads import Reloads
from parallelkit._executors._process._sharing import pack_initializer, pack_shared
from parallelkit._executors._process._stacks import whereabouts
from parallelkit._executors._process._startable import check_startable, check_watchable
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._tickets import items_of
from parallelkit._interrupt import times_raised
from parallelkit._ledger import Facts
from parallelkit._raised import describe_error, is_of_signal, tolerated
from parallelkit._system import monotonic
from parallelkit._worker import _faults
from parallelkit._worker._travel import Editions, unpack

PATIENCE = 10.0  # seconds for which the end of a run waits for killed workers that do not end


class ProcessEngine:
    """Owns up to ``max_workers`` worker processes; they start when there is work, and stay until ``close``.

    ``initializer`` runs in each worker before its first task. A worker is replaced after
    ``max_tasks_per_child`` tasks.
    """

    loss = None  # no slot is ever lost: what hangs is killed
    reloads: Reloads | None = None  # of one that stays from run to run
    at_hand = 20_000  # of a list are read ahead: few are handed over, so no retry stands behind them

    def __init__(
        self,
        max_workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
    ) -> None:
        check_watchable()
        packed = pack_initializer(initializer, initargs)
        self.max_workers = max_workers
        self._supervisor = Supervisor(max_workers, packed, max_tasks_per_child)
        self._numbers, self._paces = count(1), Paces()
        self._pid = os.getpid()

    def open(self, job: Job) -> ProcessPort:
        """A new port; raises TypeError where the function or its arguments cannot be pickled.

        RuntimeError where the engine is closed, or no interpreter is known that could be started.
        """
        if self._supervisor.closing:
            raise RuntimeError("this executor is closed: it was shut down before the run began")
        if os.getpid() != self._pid:
            raise RuntimeError("this executor belongs to the process that made it, not to a fork of that")
        check_startable()
        began = monotonic()
        packed = pack_shared(job)
        took = monotonic() - began
        home, pace = home_of(job.fn), self._paces.recall(packed)
        lane = Lane(next(self._numbers), packed, job.exact, job.patient, home, pace=pace)
        port = ProcessPort(self, self._supervisor, lane, job)
        port.sent = took, len(packed)
        if self.reloads is not None and self.reloads.look():
            self._supervisor.ask(self._supervisor.crew.renew)
        return port

    def supply(self, tickets: int) -> None:
        """See that there is somebody who starts workers for new tickets."""
        self._supervisor.poke()

    @property
    def broken(self) -> Broken | None:
        """Why no worker will ever start again; that the system has none to give now is no such reason."""
        return self._supervisor.broken

    def is_served_here(self) -> bool:
        """Whether this is the thread without which no worker does anything."""
        return self._supervisor.is_own_thread()

    def close(self) -> None:
        """End all workers and their children at once; when this returns, nothing is left. Idempotent."""
        if os.getpid() == self._pid:
            self._supervisor.stop()
            self._supervisor.join()

    def __del__(self) -> None:
        if "_pid" in vars(self) and os.getpid() == self._pid:
            self._supervisor.stop()


class ProcessPort:
    """A run's end: packs items, unpacks results; everything between is the supervisor's."""

    failure: Exception | None = None
    fate = "worker_died"
    sent = (0.0, 0)
    """How long it took to pack the job, and its length."""
    eager = property(lambda self: self._lane.pace.limit == 1)  # tasks so long that each is a batch

    def __init__(self, engine: ProcessEngine, supervisor: Supervisor, lane: Lane, job: Job) -> None:
        self._engine, self._supervisor = engine, supervisor
        self._lane, self._job = lane, job
        self._pending = 0  # handed over and not yet returned
        self._packing = Packing(lambda: engine.max_workers, self._packer(supervisor), job)
        self._seconds = 0.0  # spent on packing and unpacking
        self._ended: list[Block | Ended] = []
        self._opening: Opening | None = None
        self._interrupted = self._woken = self._withdrawn = False
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext
        """Around the caller's own code: what pickling and unpickling call."""
        supervisor.crew.lanes.append(lane)
        if supervisor.broken is not None:
            lane.fail(supervisor.broken)

    def _packer(self, supervisor: Supervisor) -> Callable[[object, Editions], Payload]:
        return Packer(supervisor.pool)

    def room(self) -> int:
        """For an exact job the free slots; else enough that no worker starves, by count and by bytes."""
        lane, width = self._lane, self._engine.max_workers
        if lane.closed or lane.broken is not None:
            return 0
        if lane.exact:
            lane.others = self._supervisor.crew.others(lane)
            free = width - lane.others - self._pending
            if self._job.shared:  # one more, for the first that gets free, as in a standard pool
                free += 1
            return max(free, 1 if self._pending == 0 else 0)  # to have one queued is to get one's turn
        if self._packing.line:
            return 0
        room = lane.stock(width) - self._pending
        return max(0, min(room, self._packing.space(self._pending)))

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Pack the items and queue them; what cannot be packed is reported by the next ``wait``."""
        if not tickets:
            return
        if self._lane.closed:
            raise RuntimeError("this port is closed")
        self._pending += len(tickets)
        if not self._packing.line and all_atoms(items_of(tickets)):
            self._queue(tickets, None)
        else:
            self._packing.line.extend(tickets)
            self._pack()

    def _pack(self) -> None:
        """Pack as many of those in line as there is space for, and queue them."""
        good: list[Ticket] = []
        payloads: list[Payload] = []
        ahead, began = self._pending - len(self._packing.line), monotonic()
        try:
            with self.guard():
                self._packing.pack(ahead, good, payloads, self._ended)
        finally:
            self._seconds += monotonic() - began
            if good:
                self._queue(good, payloads)

    def _queue(self, tickets: Sequence[Ticket], payloads: list[Payload] | None) -> None:
        self._lane.queue.append(Batch(self._lane, tickets, payloads))
        self._supervisor.offer()

    def wait(self, until: float | None) -> list[Block | Ended]:
        """Block until something has ended, ``wake`` was called or ``until`` has come; return all that ended."""
        if self._packing.line and not self._lane.closed:
            self._pack()
        if not self._ended:
            self._lane.gate.wait(self._has_news, None if until is None else until - monotonic())
        self._woken, self._lane.others = False, 0
        events = self._lane.events
        for _ in range(len(events)):  # no more than that: log records may come without end
            ended, size = self._open(events[0])
            # Signal handlers run between calls, and there is none up to the removal: an exception out of
            # one neither loses what the event holds nor has it dealt with twice.
            self._ended += ended
            self._packing.bytes -= size
            events.popleft()
        if self._lane.broken is not None and self.failure is None:
            self.failure = self._explain(self._lane.broken)
        self._opening = None
        ended, self._ended = self._ended, []
        self._pending -= sum(len(entry.indices) if isinstance(entry, Block) else 1 for entry in ended)
        return ended

    def _has_news(self) -> object:
        lane = self._lane
        return lane.events or self._woken or lane.broken is not None or self._supervisor.crew.has_left(lane)

    def _open(self, event: Span | Lost | Record) -> tuple[list[Block | Ended], int]:
        """The outcomes that an event holds, and how many bytes of packed items they took."""
        if isinstance(event, Record):
            self._lane.logged += event.size
            self._log(event)
            return [], 0
        if isinstance(event, Lost):
            return [decode_lost(event, self._job.label)], event.batch.size()
        began = monotonic()
        with self.guard() if event.columns.heap or event.columns.files else nullcontext():
            ended = self._finish(event)
        self._seconds += monotonic() - began
        return ended, event.batch.size()

    def _finish(self, span: Span) -> list[Block | Ended]:
        """Make values of a span; go on where that was interrupted, or where a value's own code says it was."""
        if self._opening is None or self._opening.span is not span:
            self._opening = Opening(span, self._job.label)
        before = times_raised()
        while True:
            try:
                return self._opening.finish(self._interrupted)
            except KeyboardInterrupt:
                if times_raised() != before:
                    self._interrupted = True
                    raise

    def _log(self, record: Record) -> None:
        """Handle a task's log record as if it had been logged here."""
        import logging
        import traceback  # logging has loaded it

        try:
            made = logging.makeLogRecord(unpack(record.packed))
            made.task_index, made.task_attempt = record.ticket[:2] if record.ticket else (None, None)
            level = logging.getLevelName(made.levelno)  # which the program may have named, or named otherwise
            made.levelname = made.levelname if level == f"Level {made.levelno}" else level
            logging.getLogger(made.name).handle(made)
        except Exception as error:  # as logging itself does: what cannot be logged must not end the program
            if is_of_signal(error):
                raise
            if logging.raiseExceptions and sys.stderr is not None:
                with tolerated():  # it may be closed
                    traceback.print_exc()

    def _explain(self, broken: Broken) -> Exception:
        from concurrent.futures.process import BrokenProcessPool

        error = BrokenProcessPool(broken.reason)
        error.__cause__ = broken.cause
        if broken.refusal is not None:
            cause, _, _ = _faults.restore(broken.refusal, lambda: "the initializer")
            error = BrokenProcessPool(f"the initializer of a worker process raised {describe_error(cause)}")
            error.__cause__ = cause
        return error

    def running(self) -> list[tuple[int, float, str]]:
        """The attempts that have begun and not ended: index, instant of the start, worker."""
        return self._supervisor.ask(self._find_running)

    def _find_running(self) -> list[tuple[int, float, str]]:
        found = []
        for worker in self._supervisor.crew.workers:
            running = worker.running() if worker.lane is self._lane else None
            if running is not None:
                found.append((running[0][0], running[1], worker.label))
        return found

    def stacks(self) -> dict[int, str]:
        """Where those that run stand now, as far as their workers can tell."""
        return whereabouts(self._supervisor, self._lane)

    def measure(self, facts: Facts) -> None:
        """Note how long the parent packed and unpacked."""
        facts.travel_seconds = self._seconds
        facts.job_seconds, facts.job_bytes = self.sent

    def wake(self) -> None:
        """Make ``wait`` return soon; takes no lock, so a signal handler may call it."""
        self._woken = True
        self._lane.gate.open()

    def close(self) -> None:
        """Withdraw what is queued and kill the workers that hold attempts of this run, and only these."""
        if self._withdrawn or os.getpid() != self._engine._pid:  # a fork leaves its parent's workers alone
            return
        self._lane.closed = True
        self._engine._paces.note(self._lane.job, self._lane.pace)
        victims: list[Worker] = []
        if self._pending == 0:
            self._supervisor.let_go(self._lane)
        else:
            victims = self._supervisor.ask(lambda: self._supervisor.crew.drop(self._lane))
        self._withdrawn = True  # not before: what a signal handler raises above leaves it to the next call
        deadline = monotonic() + PATIENCE
        for worker in victims:
            worker.gone.wait(max(0.0, deadline - monotonic()))
