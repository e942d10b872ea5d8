"""The supervisor's side of a port: its queue, its pace, and where to put what has ended.

Two threads use a lane, the run's and the supervisor's. Each field says which of them writes it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from itertools import accumulate, takewhile
from math import inf
from typing import TypeAlias

from parallelkit._executors._contract import Running, Ticket
from parallelkit._executors._gate import Gate
from parallelkit._executors._process._arrivals import Content
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._pace import Pace
from parallelkit._executors._process._payload import File, Payload
from parallelkit._executors._shared import snapshot
from parallelkit._executors._tickets import shortest_timeout
from parallelkit._named_tuple import NamedTuple
from parallelkit._worker import _channel
from parallelkit._worker._travel import pack

HEAVY = 1 << 20  # bytes of packed items in a batch of more than one
UNSEEN = 0.02
"""Seconds that successes may wait until the run is woken, if it is patient and enough is queued. To be woken for each
attempt costs a run 75 µs of processor time, taken from the workers where cpus are few; for several at once, 30."""

MOST_UNSEEN = 8
"""How many results (``Span.weight``) may wait so, or two for each worker if that is more. While the run unpickles (or folds) many, each
system call of the supervisor may take Python's switch interval, 5 ms; with so few that ends before workers starve."""

WEIGHTY = 1 << 14
"""Bytes of pickles that take about as long to unpickle as the run takes to be woken."""

LIGHT = 64  # results that count as one if none of them is unpickled or folded
AT_HAND = 3  # batches for each worker that the run should have handed over, with those that it holds
MORE_AT_HAND = 5  # the same for a patient run, whose workers do two while it sleeps

STALLS = 3  # workers in a row that stand still before the same attempt, until it is to blame
MOST_RECORDS = 64 << 20  # bytes of log records that wait to be handled
_DROPPED = {
    "name": "parallelkit",
    "levelno": 30,
    "levelname": "WARNING",
    "msg": "tasks log faster than their records are handled: some are dropped",
}


class Batch(NamedTuple):
    """Attempts of one lane, with their packed items; None where the items are pickled together (``all_atoms``)."""

    lane: Lane
    tickets: Sequence[Ticket]
    payloads: Sequence[Payload] | None

    def part(self, start: int, end: int | None = None) -> Batch:
        payloads = self.payloads[start:end] if self.payloads is not None else None
        return Batch(self.lane, self.tickets[start:end], payloads)

    def shortest_timeout(self) -> float:
        return shortest_timeout(self.tickets)

    def size(self) -> int:
        """How many bytes of packed items it holds."""
        return sum(map(len, self.payloads)) if self.payloads is not None else 0


class RawColumns(NamedTuple):
    """The results of consecutive slots, as they lie in the ring."""

    started: array[float]
    ended: array[float]
    kinds: bytes
    words: bytes
    heap: bytes
    heap_from: int
    files: list[Content]
    keys: bytes
    """The keys to which dicts among them refer (_dicts.py)."""
    classes: Sequence[bytes] = ()
    """The classes to which they refer (_result_classes.py)."""


class Span(NamedTuple):
    """Attempts that were committed, in the ring's own columns; the run's thread unpickles them."""

    batch: Batch
    columns: RawColumns
    worker: str

    def may_wait(self) -> bool:
        """Whether all succeeded, and no result holds memory that the worker could use again."""
        kinds, files = self.columns.kinds, self.columns.files
        return not files and kinds.find(_channel.FAILED) < 0 and kinds.find(_channel.BIG_FAILED) < 0

    def weight(self, folds: bool) -> float:
        """How many results it has; those that take long to unpickle count for several, and those that cost nearly nothing for little."""
        count, size = len(self.columns.kinds), len(self.columns.heap)
        return count + size // WEIGHTY if size or folds else count / LIGHT


class Why(Enum):
    """Why a worker ended: by itself, or killed by us."""

    ITSELF = auto()
    """Or killed because it stood still, for which nothing is to blame."""
    OVERDUE = auto()
    """Its attempt overran the timeout."""
    UNENDED = auto()
    """The same, and it was given up as the kernel does not end it."""
    UNLOADED = auto()
    """It took too long to start, or to load a function."""
    GARBAGE = auto()
    """What it wrote made no sense."""
    DISMISSED = auto()
    """Its lane was closed, or the engine is broken."""
    ASKED = auto()
    """By ``kill_workers``, or ``terminate_workers`` had not ended it."""


class Died(NamedTuple):
    """An attempt whose worker ended during it; ``status`` is that of subprocess, or None if it is not known."""

    batch: Batch
    started: float
    ended: float
    pid: int
    status: int | None
    why: Why
    worker: str
    stack: str


class Record(NamedTuple):
    """A log record that a task wrote; the ticket is None if the attempt had ended."""

    packed: bytes
    ticket: Ticket | None

    @property
    def size(self) -> int:
        """Roughly, in bytes."""
        return len(self.packed) + 200


class Broken(NamedTuple):
    """Why no attempt can run any more; ``refusal`` is the pickled error of the initializer."""

    reason: str
    refusal: bytes | None = None
    cause: BaseException | None = None


Event: TypeAlias = Span | Died | Record


class Lane:
    """The supervisor's side of a port."""

    def __init__(
        self,
        number: int,
        job: bytes | File,
        exact: bool,
        patient: bool = False,
        module: str = "",
        pace: Pace | None = None,
    ) -> None:
        """``job``: the function with its arguments, packed. ``module``: the function's (``module_for`` in _preload.py)."""
        self.number = number
        self.job = job
        self.exact = exact
        self.patient = patient
        self.folds = False  # see ``Job``
        self.module = module
        self.definitions = Definitions(number)
        self.gate = Gate()
        self.queue: deque[Batch] = deque()
        """The run appends at the end; the supervisor takes from the front, and puts back there."""
        self.events: deque[Event] = deque()
        """The supervisor appends, the run takes."""
        self.broken: Broken | None = None
        """Written by the supervisor, once."""
        self.closed = False
        """Written by the run, once."""
        self.halted = False
        """Written by the run, once: the lane is about to be closed, and nothing more of it begins."""
        self.others = 0
        """Written by the run: how many workers served other lanes when it last looked for room; 0 from waking up until it looks again."""
        self.late: list[Running] = []
        """Written by the supervisor: the attempts that had begun when their workers were killed, since the lane is closed."""
        self.recorded = 0
        """Written by the supervisor, as all that follows but for ``logged``: bytes of log records that it handed over ..."""
        self.logged = 0
        """... and, written by the run, of those that it has handled."""
        self.drops_records = False
        self._stalled_at = -1
        self._stalls = 0
        self.fatal_loads = 0
        """How many workers ended by themselves while they loaded the function, since a new one last committed something."""
        self.killed_loads = 0
        """How many were killed from outside while they loaded it, since an attempt was last committed."""
        self.pace = Pace() if pace is None else pace
        self._unseen: float = 0
        """The weight of what has been posted since the run was last woken (``Span.weight``); infinity if it should look at once."""
        self._unseen_since: float = inf
        """When ``tell`` first let some of it wait; infinity if it has not."""

    def post(self, event: Event) -> None:
        """Hand an event over to the run; ``tell`` wakes it, when all events of a turn are posted."""
        if self.closed:
            self._note_late(event)
        else:
            self.events.append(event)
            self._unseen += event.weight(self.folds) if isinstance(event, Span) and event.may_wait() else inf

    def _note_late(self, event: Event) -> None:
        if not isinstance(event, Record):
            starts = event.columns.started if isinstance(event, Span) else (event.started,)
            late = zip(event.batch.tickets, starts, strict=True)
            self.late += [(ticket[0], start, event.worker) for ticket, start in late]

    def tell(self, now: float, workers: int) -> float:
        """Wake the run if it should look at something by now; else return when it should (infinity: there is nothing)."""
        if self.events and self.patient and self._unseen <= most_unseen(workers):
            self._unseen_since = min(self._unseen_since, now)
            due = self._unseen_since + UNSEEN
            if now < due and self.waiting() >= workers * self.pace.limit:
                return due
        self._unseen, self._unseen_since = 0, inf
        if self.events:
            self.gate.open()
        return inf

    def enough(self, workers: int) -> int:
        """How many attempts are enough for the run to have handed over, including those that the workers hold."""
        batches = self.pace.limit * workers
        return MORE_AT_HAND * batches + most_unseen(workers) if self.patient else AT_HAND * batches

    def post_record(self, record: Record) -> None:
        """Hand over a log record; while too many wait, drop them and log one warning instead."""
        full = self.recorded - self.logged > MOST_RECORDS
        if full and not self.drops_records:
            self.post(Record(pack((_DROPPED, {}, None)), None))
        elif not full:
            self.recorded += record.size
            self.post(record)
        self.drops_records = full

    def stalls_at(self, index: int) -> bool:
        """Note that a worker stands still before this attempt; whether it is the third in a row, and so to blame."""
        self._stalls = self._stalls + 1 if index == self._stalled_at else 1
        self._stalled_at = index
        return self._stalls >= STALLS

    def fail(self, broken: Broken) -> None:
        """Tell the run that nothing can run here any more."""
        if self.broken is None:
            self.broken = broken
        self.gate.open()

    def waiting(self) -> int:
        """How many attempts are queued."""
        return sum([len(batch.tickets) for batch in snapshot(self.queue)])

    def take(self, most: int) -> Batch:
        """Take the next attempts in order, at most ``most``, and no more bytes than ``HEAVY`` unless it is one."""
        batch = self.queue.popleft()
        if batch.payloads is not None and batch.size() > HEAVY:
            most = min(most, _light_part(batch.payloads))
        if len(batch.tickets) > most:
            self.queue.appendleft(batch.part(most))
            batch = batch.part(0, most)
        return batch


def most_unseen(workers: int) -> int:
    """How many results may wait until the run is woken, by ``Span.weight``."""
    return max(MOST_UNSEEN, 2 * workers)


def _light_part(payloads: Sequence[Payload]) -> int:
    """How many of the first payloads fit into the bytes of a batch; at least one."""
    totals = accumulate(map(len, payloads))
    return max(1, len(list(takewhile(lambda total: total <= HEAVY, totals))))
