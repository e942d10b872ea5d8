"""A clock that is moved by hand and an executor that follows a script: hours of a run in a millisecond.

``FakeClock`` (``parallelkit/testing.py``) stands still until it is moved. ``FakeExecutor`` implements the contract of
``parallelkit/_executors/_contract.py`` on such a clock: the value that a task returns says how its attempt
ends (``Done``, ``Fail``, ``Hang``, ``Die``), and ``wait`` does not block, but moves the clock to the next event. A
``wait`` that would never return is an error. ``FakeRun`` connects both to the real scheduler and loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from parallelkit._book import Book
from parallelkit._died import died_with
from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import Block, Ended, Job, Port, Ticket, call_with
from parallelkit._facts import Facts
from parallelkit._input._intake import Intake, Portion, Shape
from parallelkit._input._source import AHEAD_OF_LIST, WINDOW, DirectSource, Window
from parallelkit._ledger import Ledger
from parallelkit._limits import Limit
from parallelkit._loop import Interrupt, Loop
from parallelkit._lost import Lost
from parallelkit._marks import OPEN
from parallelkit._outcomes import Outcome
from parallelkit._results import Results
from parallelkit._runs._interruptible import InterruptibleCall
from parallelkit._scheduler import Scheduler
from parallelkit._scheduling._ready import Gated
from parallelkit._scheduling._stopping import StopRule
from parallelkit.testing import FakeClock

STOP_OPTIONS = set(StopRule._fields)

# How an attempt ends: what a task returns to a FakeExecutor. Any other value means Done(value) at once.


@dataclass(frozen=True, slots=True)
class Done:
    """The attempt returns a value, ``after`` so many seconds."""

    value: Any = None
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt raises. ``final``: a retry cannot help."""

    error: BaseException
    after: float = 0.0
    final: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """The attempt never ends."""


@dataclass(frozen=True, slots=True)
class Die:
    """The attempt's worker exits; its slot is free again at once."""

    exitcode: int = 1
    after: float = 0.0


Step = Done | Fail | Hang | Die


class Script:
    """A task function that follows a script: for each item one step, or a step for each attempt.

    An item that is not in the script is its own value, at once. More attempts than steps are an
    AssertionError. ``calls`` lists the items in the order in which their attempts began.

    >>> script = Script({"a": [Fail(OSError()), Done(1)]})
    >>> script("a"), script("a"), script("b")
    (Fail(error=OSError(), after=0.0, final=False), Done(value=1, after=0.0), 'b')
    """

    def __init__(self, steps: Mapping[Any, Step | Sequence[Step]] | None = None) -> None:
        self.calls: list[Any] = []
        self._left = {
            item: deque(its if isinstance(its, Sequence) else (its,)) for item, its in (steps or {}).items()
        }

    def __call__(self, item: Any) -> Any:
        self.calls.append(item)
        if item not in self._left:
            return item
        assert self._left[item], f"the script foresees no further attempt of {item!r}"
        return self._left[item].popleft()

    @property
    def left(self) -> dict[Any, list[Step]]:
        """The steps that have not been taken yet."""
        return {item: list(steps) for item, steps in self._left.items() if steps}


class Delays:
    """A retry policy without randomness: each call gives the next of these delays, then None: no retry.

    ``asked`` lists the arguments of the calls: number, error and elapsed time.
    """

    budget = max_time = None

    def __init__(self, *delays: float) -> None:
        self.asked: list[tuple[int, BaseException, float]] = []
        self._left = deque(delays)

    def delay_after(self, number: int, error: BaseException, elapsed: float) -> float | None:
        self.asked.append((number, error, elapsed))
        return self._left.popleft() if self._left else None


class FakeExecutor:
    """An executor in simulated time: attempts start, end and time out by a ``FakeClock``.

    ``ahead``: how many tickets a port takes beyond the free slots, as if workers were fed in batches
    (0 for an ``exact`` job). ``widest`` is the largest number of attempts that ever ran at once.
    """

    def __init__(self, clock: FakeClock, max_workers: int = 2, *, ahead: float = math.inf) -> None:
        self.clock = clock
        self.max_workers = max_workers
        self.ahead = ahead
        self.ports: list[FakePort] = []
        self.running: list[_Run] = []
        self.widest = 0
        self._pids = count(1)

    def open(self, job: Job) -> FakePort:
        """Open a port."""
        port = FakePort(self, job)
        self.ports.append(port)
        return port

    def close(self) -> None:
        """Close all ports, and so end all attempts."""
        for port in tuple(self.ports):
            port.close()

    def catch_up(self) -> None:
        """Process, in order, everything due by now: attempts end, and queued ones take their slots."""
        while self.running:
            first = min(self.running, key=lambda run: run.ends_at)
            if first.ends_at > self.clock():
                return
            self.running.remove(first)
            first.port.report(first.end)
            self.fill(first.ends_at)

    def fill(self, now: float) -> None:
        """Start queued attempts while there are free slots; ports take turns."""
        while len(self.running) < self.max_workers:
            port = next((port for port in self.ports if port.queue), None)
            if port is None:
                return
            self.ports.remove(port)
            self.ports.append(port)
            self.running.append(self._begin(port, port.queue.popleft(), now))
            self.widest = max(self.widest, len(self.running))

    def _begin(self, port: FakePort, ticket: Ticket, now: float) -> _Run:
        taken = {run.worker for run in self.running}
        worker = next(name for name in map("fake {}".format, count(1)) if name not in taken)
        index, number, _, limit = ticket
        step = port.step_of(ticket)
        ends_at = math.inf if isinstance(step, Hang) else now + step.after
        if limit is not None and ends_at > now + limit:  # to end exactly at the limit is in time
            error = TaskTimeout(f"attempt {number} ran longer than its timeout of {limit:g} s")
            return _Run(port, now, worker, Ended(index, error, "", now, now + limit, worker))
        return _Run(port, now, worker, self._end_of(step, index, now, ends_at, worker))

    def _end_of(self, step: Step, index: int, now: float, ends_at: float, worker: str) -> Block | Ended:
        match step:
            case Done(value):
                return Block((index,), (value,), (now,), (ends_at,), (worker,))
            case Fail(error, _, final):
                return Ended(index, error, "", now, ends_at, worker, None, final)
            case Die(exitcode):
                died = died_with(exitcode, next(self._pids))
                return Ended(index, died, "", now, ends_at, worker)
            case Hang():
                return Ended(index, AssertionError("a hanging task ended"), "", now, ends_at, worker)


@dataclass(slots=True, eq=False)
class _Run:
    """A running attempt, and how it will end."""

    port: FakePort
    started: float
    worker: str
    end: Block | Ended

    @property
    def index(self) -> int:
        return self.end.indices[0] if isinstance(self.end, Block) else self.end.index

    @property
    def ends_at(self) -> float:
        return self.end.ended[0] if isinstance(self.end, Block) else self.end.ended


class FakePort(Port):
    """A port of a ``FakeExecutor``. ``waits`` counts the calls of ``wait``; ``ends`` lists everything that ended."""

    eager = False

    def __init__(self, executor: FakeExecutor, job: Job) -> None:
        self.failure: Exception | None = None
        self.queue: deque[Ticket] = deque()
        self.waits = 0
        self.closed = False
        self._executor = executor
        self._call = call_with(job)
        self._ahead = 0 if job.exact else executor.ahead
        self.ends: list[Block | Ended] = []
        self._events: list[Block | Ended] = []
        self._given = 0  # tickets handed over and not reported back
        self._woken = False

    def step_of(self, ticket: Ticket) -> Step:
        """How the attempt of this ticket ends."""
        try:
            step = self._call(ticket[2])
        except BaseException as error:
            return Fail(error)
        return step if isinstance(step, Step) else Done(step)

    def report(self, end: Block | Ended) -> None:
        """Take in the end of an attempt, for the next ``wait``."""
        self.ends.append(end)
        self._events.append(end)

    def room(self) -> int:
        self._executor.catch_up()
        free = self._executor.max_workers - len(self._executor.running)
        # A port is not told when another one frees a slot; one queued ticket is enough to get its turn.
        return int(min(max(free + self._ahead - len(self.queue), 0 if self._given else 1), 10**9))

    def start(self, tickets: Sequence[Ticket]) -> None:
        assert not self.closed, "a ticket came after the close"
        assert len(tickets) <= self.room(), "more tickets came than there was room for"
        self._given += len(tickets)
        self.queue.extend(tickets)
        self._executor.fill(self._executor.clock())

    def wait(self, until: float | None) -> list[Block | Ended]:
        self.waits += 1
        clock = self._executor.clock
        while True:
            self._executor.catch_up()
            if self._events or self._woken or self.failure is not None:
                break
            if until is not None and clock() >= until:
                break
            clock.jump(self._next_instant(until))
        self._woken = False
        return self._drain()

    def _next_instant(self, until: float | None) -> float:
        ends = [run.ends_at for run in self._executor.running]
        instants = [at for at in (until, self._executor.clock.next_call_at(), *ends) if at is not None]
        soonest = min(instants, default=math.inf)
        assert soonest < math.inf, (
            "this wait would never return: nothing ends, and nobody was asked to wake it"
        )
        return soonest

    def _drain(self) -> list[Block | Ended]:
        """Everything that has ended since the last call, the successes in one block."""
        done = [event for event in self._events if isinstance(event, Block)]
        lost = [event for event in self._events if isinstance(event, Ended)]
        self._given -= len(self._events)
        self._events.clear()
        columns = zip(*(tuple(column[0] for column in block) for block in done), strict=True)
        return [*([Block(*columns)] if done else []), *lost]

    def running(self) -> list[tuple[int, float, str]]:
        self._executor.catch_up()
        return [(run.index, run.started, run.worker) for run in self._executor.running if run.port is self]

    def wake(self) -> None:
        self._woken = True

    def fail(self, error: Exception) -> None:
        """Break the port: nothing can run on it any more."""
        self.failure = error

    def close(self) -> None:
        if self.closed:
            return
        self._executor.catch_up()
        self.closed = True
        self.queue.clear()
        self._executor.running = [run for run in self._executor.running if run.port is not self]
        self._executor.ports.remove(self)
        self._executor.fill(self._executor.clock())


def outcomes_of(ledger: Ledger) -> list[Any]:
    """Every outcome, in order of admission."""
    return list(map(ledger.outcome, range(len(ledger))))


class StrictLedger(Ledger):
    """A ledger that refuses to settle a task twice."""

    def succeed(self, block: Any) -> None:
        self.check_open(block[0])
        super().succeed(block)

    def fail(self, index: int, lost: Lost) -> None:
        self.check_open((index,))
        super().fail(index, lost)

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        self.check_open(indices)
        super().cancel(indices, last)

    def check_open(self, indices: Sequence[int]) -> None:
        """Assert that none of these is settled."""
        twice = [index for index in indices if self.values[index] is not OPEN]
        assert len(set(indices)) == len(indices), f"one of {indices} was settled twice at once"
        assert not twice, f"{twice} were settled before"


def make_scheduler(book: Book, **options: Any) -> Scheduler:
    """A scheduler; ``options`` are its own and those of its stop rule."""
    rule = {name: options.pop(name) for name in STOP_OPTIONS & options.keys()}
    return Scheduler(book, stop_rule=StopRule(**rule), **options)


class FakeRun:
    """A run of the real scheduler and loop, on a ``FakeClock`` and a ``FakeExecutor``.

    Without ``fn``, the items are tasks. ``limits``, ``priority`` and ``key`` are options of a run, ``options``
    those of the ``Scheduler`` and its ``StopRule``. Nothing happens before ``drive``.

    >>> from parallelkit import Retry
    >>> script = Script({"a": [Fail(OSError(), after=2), Done(1, after=3)]})
    >>> run = FakeRun(script, ["a"], policy=Retry(1, delay=0)).drive()
    >>> run.clock(), run.results[0]
    (5.0, 1)
    """

    def __init__(
        self,
        fn: Callable[[Any], Any] | None,
        items: Iterable[Any],
        *,
        workers: int = 2,
        ahead: float = math.inf,
        buffersize: int | None = None,
        clock: FakeClock | None = None,
        limits: Sequence[Limit] = (),
        priority: Callable[[Any], float] | None = None,
        key: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        gated = bool(limits) or priority is not None
        self.clock = clock or FakeClock()
        self.executor = FakeExecutor(self.clock, workers, ahead=ahead)
        self.port = self.executor.open(Job(fn, exact=gated))
        self.ledger = StrictLedger(Facts(began_at=self.clock()))
        bys = tuple(limit.by for limit in limits)
        ranked = priority is not None
        shape = Shape(fn is None, key, gated=gated, ranked=ranked, priority=priority, bys=bys)
        self.intake = Intake(items, shape)
        self.interrupt = Interrupt(self.port.wake)
        self.scheduler = make_scheduler(
            self.ledger,
            gated=Gated(limits, wake=self.port.wake) if gated else None,
            call_user=InterruptibleCall(self.interrupt),
            **options,
        )
        window = Window(AHEAD_OF_LIST if self.intake.at_hand else WINDOW * workers, buffersize)
        source = DirectSource(self.intake, window, self.interrupt, self._admit)
        self.loop = Loop(self.scheduler, self.port, source, self.clock)
        self.loop.interrupt = self.interrupt

    def _admit(self, portion: Portion) -> None:
        self.ledger.admit(portion.keys, len(portion.items), self.clock())

    def drive(self) -> FakeRun:
        """Run to the end."""
        self.loop.drive()
        self.ledger.facts.ended_at = self.clock()
        return self

    @property
    def results(self) -> Results[Any, Any]:
        """The results of all tasks that were admitted."""
        return Results(self.ledger)

    @property
    def outcomes(self) -> list[Outcome[Any, Any]]:
        """The outcomes in input order."""
        return outcomes_of(self.ledger)
