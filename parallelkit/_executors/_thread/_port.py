"""A run's end of a thread engine: takes tickets, returns outcomes, and watches the timeouts.

Either the worker that finished an attempt settles it, or the run that gave up on it, never both: an
atomic ``pop`` of the attempt's claim decides.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from parallelkit._errors import ParallelKitError
from parallelkit._executors._contexts import Variables
from parallelkit._executors._contract import Block, Ended, Job, Port, Row, Running, Ticket, call_with, drain
from parallelkit._executors._gate import Gate
from parallelkit._executors._thread._lending import current_worker, take_claim
from parallelkit._executors._thread._loss import Loss
from parallelkit._executors._thread._overdue import Lookout, overrun
from parallelkit._executors._thread._queue import UNLIMITED, TicketQueue
from parallelkit._executors._thread._stacks import stack_of
from parallelkit._facts import Facts
from parallelkit._forked import end_child
from parallelkit._raised import drop_frames, is_of_signal
from parallelkit._system import monotonic

Current: TypeAlias = "tuple[ThreadPort, Ticket, list[float]]"
"""What a worker runs: port, ticket, and the claim on the outcome, a list that holds the instant of the start."""

_open: set[ThreadPort] = set()  # of all engines of this process


class Worker(Protocol):
    """A thread, as its port sees it."""

    name: str
    ticket: Any  # None if it has none
    thread: threading.Thread
    current: Current | None
    failed: bool
    stopped: bool
    forked: bool


class Crew(Protocol):
    """The engine, as its ports see it."""

    max_workers: int
    initializes: bool
    broken: Exception | None
    loss: Loss | None

    @property
    def workers(self) -> Collection[Worker]:
        """The threads that count as workers."""

    @property
    def abandoned(self) -> Collection[Worker]:
        """The threads that were given up on."""

    def slots_for(self, port: TicketQueue) -> tuple[int, bool]:
        """How many attempts of a port may run now, its own included; and whether other ports have any running."""

    def cpu_seconds(self) -> float | None:
        """Processor time of all threads so far; None if the system does not tell."""

    def supply(self, tickets: int, awaited: bool = False) -> None:
        """Provide threads for new tickets, ``awaited`` by tasks of the engine or not; raises if none can be started."""

    def abandon(self, worker: Any, claim: list[float], now: float, timeout: float | None) -> bool:
        """Give up on a thread whose attempt had this timeout; False if the attempt has just ended."""

    def check_starts(self, now: float) -> float | None:
        """Break the engine if an initializer takes too long; return when to look again."""

    def remove(self, port: ThreadPort) -> None:
        """Forget a closed port."""


class ThreadPort(TicketQueue, Port):
    """A run's end of a thread engine."""

    eager = flows = True  # handing over attempts one at a time costs next to nothing
    fate = "abandoned"

    def __init__(self, engine: Crew, job: Job, nested: bool) -> None:
        super().__init__(job.ended)
        self._nested = nested  # a task of this engine waits for it
        self.failure: Exception | None = None
        self._engine = engine
        self._exact = job.exact
        self._wary = job.wary
        self._call = call_with(job)
        self.label = job.label
        self._variables = Variables(engine, engine.initializes)
        self._done: deque[Row] = deque()
        self._lost: deque[Ended] = deque()
        self.gate = Gate()
        self._woken = self._closed = False
        self.late: list[Running] = []  # what ``close`` has cut off
        self._spent_before = engine.cpu_seconds()
        self._given = 0  # tickets handed over and not reported back
        self._squeezed = False  # whether other ports hold slots that this one could use
        self._begun = job.shared  # whether an error raised from here would cost outcomes of other attempts
        self._lookout = Lookout()
        self._alone = True  # no other port has been open meanwhile

    def begin(self) -> None:
        """Count as open; called once the engine knows this port."""
        _open.add(self)  # before the look, so that of two new ports one sees the other
        if len(_open) > 1:
            for port in list(_open):
                port._alone = False
        opener: object = current_worker()
        if opener in self._engine.abandoned:
            self._cut_off()
        if self._engine.broken is not None:  # read now: of what breaks it later, it tells the ports it knows
            self.failure = self._engine.broken

    def room(self) -> int:
        if not self._exact:
            return UNLIMITED
        self._squeezed = True  # before the count, so that whoever frees a slot after it sees this
        slots, self._squeezed = self._engine.slots_for(self)
        return max(slots - self._given, 0 if self._given else 1)  # with one ticket queued, it gets its turn

    def give_back(self) -> list[Ticket]:
        """Remove and return what has not begun: what has the slots may wait for a run that asks for these starts."""
        tickets = self.withdraw()
        self._given -= len(tickets)
        return tickets

    def hear_of_room(self) -> None:
        """Wake the run if it was short of room: another port's slot is free."""
        if self._squeezed:
            self._squeezed = False
            self.wake()

    def start(self, tickets: Sequence[Ticket]) -> None:
        try:
            if self.held:  # the run has seen the failure and goes on
                self._engine.supply(self.release())
            if tickets:
                self._given += len(tickets)
                self._lookout.expect(tickets)
                self.queue.extend(tickets)
                self._engine.supply(len(tickets), self._nested)
                self._begun = True
        except RuntimeError as error:
            if not self._begun or is_of_signal(error):
                raise
            self.fail(error)  # the system has no thread left

    def hurry(self, index: int) -> None:
        """Run this attempt next, in the slot of the task of this engine that waits for it."""
        if self.move_forward(index):
            self._engine.supply(1, awaited=True)

    def execute(self, worker: Worker) -> bool:
        """In a worker: run the attempt that it has taken; False if the run has given up on it meanwhile."""
        ticket = worker.ticket
        started = monotonic()
        claim = [started]
        worker.current = (self, ticket, claim)
        if self._closed:  # read after ``current`` is set: close() sees the claim, or we see the flag
            worker.current = worker.ticket = None
            return take_claim(claim)
        index, _, item, _ = ticket
        try:
            value = self._variables.fresh().run(self._call, item)
        except BaseException as error:
            if worker.forked:
                end_child(error)
            ended, worker.failed = monotonic(), True
            drop_frames(error)  # what follows gets no name here: the traceback refers to this frame, a cycle
            return self._commit(
                worker, claim, self._lost, Ended(index, error, "", started, ended, worker.name)
            )
        return self._commit(worker, claim, self._done, (index, value, started, monotonic(), worker.name))

    def _commit(self, worker: Worker, claim: list[float], results: deque[Any], result: Any) -> bool:
        try:
            claim.pop()  # as take_claim does, whose call would be a twentieth of all that a task costs
        except IndexError:
            return False
        if self._wary and results is self._lost:
            self.hold()
        results += (result,)
        worker.current = worker.ticket = None
        self.gate.open()
        return True

    def give_up(self, entry: Ended) -> None:
        """In a worker that ends early: report its attempt as failed."""
        if self._wary:
            self.hold()
        self._lost += (entry,)

    def wait(self, until: float | None) -> list[Block | Ended]:
        while True:
            events = self._drain()
            now = monotonic()
            if self._lookout.is_due(now):
                events += self._expire(now)
            engine_at = self._check_engine(now)
            if events or self._woken or self.failure is not None or (until is not None and now >= until):
                self._woken = False
                return events
            instants = [at for at in (until, self._lookout.look_at, engine_at) if at is not None]
            self.gate.wait(self._news, min(instants) - now if instants else None)

    def _news(self) -> bool:
        return bool(self._done or self._lost or self._woken or self.failure is not None)

    def _drain(self) -> list[Block | Ended]:
        events, ended = drain(self._done, self._lost)
        self._given -= ended
        return events

    def _expire(self, now: float) -> list[Block | Ended]:
        """Give up on overdue attempts; one whose claim is gone was committed in time."""
        overdue: list[Block | Ended] = []
        instants: list[float] = []
        begun = 0
        for worker, ticket, claim in self._at_work():
            begun += 1
            if ticket[3] is None:
                continue
            try:
                started = claim[0]
            except IndexError:
                continue  # it has just been committed
            if started + ticket[3] > now:
                instants.append(started + ticket[3])
                continue
            stack = stack_of(worker.thread, __file__)
            if self._engine.abandon(worker, claim, now, ticket[3]):
                overdue.append(overrun(ticket, self.label(ticket[0]), started, now, worker.name, stack))
        self._lookout.look_again(now, instants, self._given > begun)
        self._given -= len(overdue)
        return overdue

    def _check_engine(self, now: float) -> float | None:
        """Fail if every slot is lost for good and a ticket waits for one; return when to look again."""
        starts_at, loss = self._engine.check_starts(now), self._engine.loss
        if loss is None or not self._given:
            return starts_at
        if now >= loss.until:
            self.fail(loss.error(self._engine.abandoned))
        return loss.until if starts_at is None else min(starts_at, loss.until)

    def fail(self, error: Exception) -> None:
        """Note, and tell the waiting run, that nothing can run here any more."""
        self.failure = error
        self.gate.open()

    def _cut_off(self) -> None:
        self.fail(ParallelKitError("the task that made this run was abandoned"))

    def running(self) -> list[tuple[int, float, str]]:
        return [(ticket[0], at, worker.name) for worker, ticket, claim in self._at_work() for at in claim]

    def stacks(self) -> dict[int, str]:
        """The current stack of each running attempt, by index."""
        return {ticket[0]: stack_of(worker.thread, __file__) for worker, ticket, _ in self._at_work()}

    def _at_work(self) -> Iterator[tuple[Worker, Ticket, list[float]]]:
        """The workers that run attempts of this port."""
        for worker in list(self._engine.workers):
            current = worker.current
            if current is not None and current[0] is self:
                yield worker, current[1], current[2]

    def measure(self, facts: Facts) -> None:
        """Record the processor time that the threads have used since the port was opened."""
        spent = self._engine.cpu_seconds()
        if spent is not None and self._spent_before is not None:
            facts.worker_cpu_seconds = spent - self._spent_before
        facts.alone = self._alone

    def wake(self) -> None:
        self._woken = True
        self.gate.open()

    def close(self) -> None:
        self._closed = True
        _open.discard(self)
        self.clear()
        for worker, ticket, claim in self._at_work():
            self.late += [(ticket[0], started, worker.name) for started in claim]
            worker.stopped = self._engine.abandon(worker, claim, monotonic(), ticket[3])
        self._engine.remove(self)
