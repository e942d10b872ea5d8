"""Worker processes that can be killed: a hung or crashed task affects no other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from parallelkit._collector import without_collector
from parallelkit._executors._contract import Block, Ended, Job, Port, Running, Ticket, close_port
from parallelkit._executors._process._decode import Decoding, decode_died
from parallelkit._executors._process._endings import await_ends
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Batch, Broken, Died, Lane, Record, Span
from parallelkit._executors._process._pace import Paces
from parallelkit._executors._process._packing import Packer, Packing, all_atoms, taken_by
from parallelkit._executors._process._payload import File, Payload
from parallelkit._executors._process._preload import module_for
from parallelkit._executors._process._records import handle
from parallelkit._executors._process._reloads import Reloads
from parallelkit._executors._process._setup import pack_logger_classes
from parallelkit._executors._process._sharing import pack_initializer, pack_shared
from parallelkit._executors._process._stacks import running, whereabouts
from parallelkit._executors._process._startable import check_startable, check_watchable
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._shared import Numbers, snapshot
from parallelkit._executors._tickets import items_of
from parallelkit._facts import Facts
from parallelkit._interrupt import times_raised
from parallelkit._raised import describe_error
from parallelkit._system import monotonic
from parallelkit._worker import _faults


class ProcessEngine:
    """Owns up to ``max_workers`` worker processes; they start when there is work, and stay until ``close``.

    ``initializer`` runs in each worker before its first task. A worker is replaced after
    ``max_tasks_per_child`` tasks.
    """

    loss = None  # no slot is ever lost: what hangs is killed
    reloads: Reloads | None = None  # set for an engine that serves several runs
    ahead_of_list = 20_000  # items: few of them are handed over, so no retry waits behind them

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
        self.end_workers = self._supervisor.end_workers
        self._kept = initializer, initargs  # a manager deletes what has no proxy left
        self._numbers, self._paces, self._pid = Numbers(1), Paces(), os.getpid()

    def open(self, job: Job) -> ProcessPort:
        """Open a port; raises TypeError if the function or its arguments cannot be pickled.

        Raises RuntimeError if the engine is closed or belongs to another process, or if no worker can be started here.
        """
        if self._supervisor.closing:
            raise RuntimeError("this executor is closed: it was shut down before the run began")
        if os.getpid() != self._pid:
            raise RuntimeError("this executor belongs to the process that made it, not to a fork of that")
        check_startable()
        began = monotonic()
        with job.guard():
            packed = pack_shared(job)
            pack_logger_classes()
        if not job.shared:  # that of calls is opened in another thread than theirs
            self._supervisor.setups.heed()
        took = monotonic() - began
        module, pace = module_for(job.fn), self._paces.recall(None if job.tentative else packed)
        lane = Lane(
            self._numbers.draw(), packed, job.exact and not job.tentative, job.patient, module, pace=pace
        )
        lane.folds = job.folds
        if self.reloads is not None and self.reloads.look():
            self._supervisor.ask(self._supervisor.pool.renew)
        port = ProcessPort(self, self._supervisor, lane, job)
        try:
            port.job_cost = took, len(packed)
            self._supervisor.enter(lane)
        except BaseException:  # raised by a signal handler: nobody else would close it
            close_port(port)
            raise
        return port

    def supply(self, tickets: int) -> None:
        """Wake the supervisor, which starts workers for new tickets."""
        self._supervisor.poke()

    @property
    def broken(self) -> Broken | None:
        """Why no worker will ever start again; None while one may, even if the system has none to give now."""
        return self._supervisor.broken

    def is_served_here(self) -> bool:
        """Whether the caller is the supervisor's thread, without which no worker does anything."""
        return self._supervisor.is_own_thread()

    def close(self) -> None:
        """Kill all workers and their children; nothing is left when this returns. Idempotent."""
        if os.getpid() == self._pid:
            self._supervisor.stop()
            self._supervisor.join()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # As the interpreter goes, modules may be empty already, and the workers end with it.
        if not is_finalizing() and "_pid" in vars(self) and os.getpid() == self._pid:
            self._supervisor.stop()


class ProcessPort(Port):
    """A run's end of the engine: packs items and unpacks results; the supervisor does everything in between."""

    failure: Exception | None = None
    fate = "worker_died"
    job_cost = (0.0, 0)
    """Seconds that packing the job took, and its length in bytes."""

    def __init__(self, engine: ProcessEngine, supervisor: Supervisor, lane: Lane, job: Job) -> None:
        self._engine, self._supervisor = engine, supervisor
        self._lane, self._job, self.late = lane, job, lane.late
        self._pending = 0  # tickets that were handed over and have not come out of ``wait``
        self._packing = self._new_packing(lambda: engine.max_workers)
        self._seconds = 0.0  # spent on packing and unpacking
        self._ended: list[Block | Ended] = []
        self._decoding: Decoding | None = None
        self._interrupted = self._woken = self._withdrawn = False

    def _new_packing(self, width: Callable[[], int]) -> Packing:
        pack = Packer(self._supervisor.blocks, calls=self._job.fn is None)
        return Packing(width, pack, self._job, self._lane.definitions)

    def room(self) -> int:
        """The free slots, for an exact job; for others, enough that no worker starves, within the limits of memory."""
        lane, width = self._lane, self._engine.max_workers
        if lane.closed or lane.broken is not None:
            return 0
        if lane.exact:
            lane.others = self._supervisor.pool.others(lane)
            free = width - lane.others - self._pending
            if self._job.shared:  # one more waits for the first worker to get free, as in a standard pool
                free += 1
            return max(free, 1 if self._pending == 0 else 0)  # a lane gets its turn only if it has one queued
        if self._packing.line:
            return 0
        room = lane.enough(width) - self._pending
        return max(0, min(room, self._packing.space(self._pending)))

    @property
    def eager(self) -> bool:
        return self._lane.pace.single

    def be_exact(self) -> None:
        self._lane.exact = True

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Pack the items and queue them; ``wait`` reports those that cannot be packed."""
        if not tickets:
            return
        self._pending += len(tickets)
        if not self._packing.line and all_atoms(items_of(tickets)):
            self._queue(tickets, None)
        else:
            self._packing.line.extend(tickets)
            self._pack()

    def _pack(self) -> None:
        """Pack and queue as many items of the line as there is space for."""
        good: list[Ticket] = []
        payloads: list[Payload] = []
        ahead, began = self._pending - len(self._packing.line), monotonic()
        try:
            with self._job.guard():
                self._packing.pack(ahead, good, payloads, self._ended)
        finally:
            self._seconds += monotonic() - began
            if good:
                self._queue(good, payloads)

    def _queue(self, tickets: Sequence[Ticket], payloads: list[Payload] | None) -> None:
        self._supervisor.offer(Batch(self._lane, tickets, payloads))

    def wait(self, until: float | None) -> list[Block | Ended]:
        """Block until something has ended, ``wake`` was called or ``until`` has come; return all that ended."""
        if self._packing.line and not self._lane.closed:
            self._pack()
        if not self._ended:
            self._lane.gate.wait(self._has_news, None if until is None else until - monotonic())
        self._woken, self._lane.others = False, 0
        # Only the events that are there now: log records may come without end.
        kinds = list(map(type, snapshot(self._lane.events)))
        if Record in kinds:
            self._take(len(kinds))  # handlers of records run code that has nothing to do with this run
        elif kinds:
            # To unpickle many objects takes half of the time if the collector does not go over them again and again.
            without_collector(partial(self._take, len(kinds)))
        if self._lane.broken is not None and self.failure is None:
            self.failure = self._explain(self._lane.broken)
        self._decoding = None
        ended, self._ended = self._ended, []
        self._pending -= sum(len(entry.indices) if isinstance(entry, Block) else 1 for entry in ended)
        return ended

    def _take(self, count: int) -> None:
        """Take the next events, and add to ``_ended`` what they tell."""
        events = self._lane.events
        for _ in range(count):
            ended, (size, files) = self._open(events[0])
            # Python runs signal handlers between calls, and there is no call from here to ``popleft``. So an
            # exception out of a handler neither loses an event nor has it handled twice.
            self._ended += ended
            self._packing.bytes -= size
            self._packing.files -= files
            events.popleft()

    def _has_news(self) -> object:
        lane = self._lane
        return lane.events or self._woken or lane.broken is not None or self._supervisor.pool.has_left(lane)

    def _open(self, event: Span | Died | Record) -> tuple[list[Block | Ended], tuple[int, int]]:
        """The outcomes in an event, and how many bytes and descriptors their packed items took."""
        if isinstance(event, Record):
            self._lane.logged += event.size
            handle(event)
            return [], (0, 0)
        if isinstance(event, Died):
            return [decode_died(event, self._job.label)], taken_by(event.batch)
        began = monotonic()
        with self._job.guard() if event.columns.heap or event.columns.files else nullcontext():
            ended = self._finish(event)
        self._seconds += monotonic() - began
        return ended, taken_by(event.batch)

    def _finish(self, span: Span) -> list[Block | Ended]:
        """Unpickle the results of a span; go on where Ctrl-C, or a KeyboardInterrupt of a value's own code, stopped it."""
        if self._decoding is None or self._decoding.span is not span:
            self._decoding = Decoding(span, self._job.label)
        before = times_raised()
        while True:
            try:
                return self._decoding.finish(self._interrupted)
            except KeyboardInterrupt:
                if times_raised() != before:
                    self._interrupted = True
                    raise

    def _explain(self, broken: Broken) -> Exception:
        from concurrent.futures.process import BrokenProcessPool

        reason, cause = broken.reason, broken.cause
        if broken.refusal is not None:
            cause, _, _ = _faults.restore(broken.refusal, lambda: "the initializer")
            reason = f"the initializer of a worker process raised {describe_error(cause)}"
        error = BrokenProcessPool(reason)
        error.__cause__ = cause
        return error

    def running(self) -> list[Running]:
        """The attempts that have begun and not ended: index, instant of the start, label of the worker."""
        return running(self._supervisor, self._lane)

    def stacks(self) -> dict[int, str]:
        """The stacks of the running attempts by index, as far as their workers can tell them."""
        return whereabouts(self._supervisor, self._lane)

    def measure(self, facts: Facts) -> None:
        """Note the seconds that this process spent on packing and unpacking, and the size of the job."""
        facts.travel_seconds = self._seconds
        facts.job_seconds, facts.job_bytes = self.job_cost

    def wake(self) -> None:
        """Make ``wait`` return soon; takes no lock, so that a signal handler may call it."""
        self._woken = True
        self._lane.gate.open()

    def close(self) -> None:
        """Withdraw what is queued and kill the workers that hold attempts of this run, but no others."""
        if self._withdrawn or os.getpid() != self._engine._pid:  # a fork leaves its parent's workers alone
            return
        self._lane.closed = True
        self._engine._paces.note(self._lane.job, self._lane.pace)
        drop = partial(self._supervisor.pool.drop, self._lane)
        victims: list[Worker] = []
        if self._pending > 0:
            victims = self._supervisor.ask(drop)
        else:  # no worker holds anything of this run: there is nothing to wait for
            self._supervisor.post(drop, at_once=isinstance(self._lane.job, File))
        self._withdrawn = True  # only now: if a signal handler raised above, the next call does it again
        await_ends(victims)
