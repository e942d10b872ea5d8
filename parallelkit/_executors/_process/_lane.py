"""What the supervisor knows of a port: its queue, its pace, and where to put what has ended.

A lane is touched by two threads, the run's and the supervisor's. Every field says which of them writes it.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import NamedTuple, TypeAlias

from parallelkit._executors._contract import Ticket
from parallelkit._executors._gate import Gate
from parallelkit._executors._process._arrivals import Content
from parallelkit._executors._process._blocks import Buffered
from parallelkit._executors._process._pace import Pace
from parallelkit._executors._tickets import shortest_timeout
from parallelkit._worker import _channel
from parallelkit._worker._travel import pack

HEAVY = 1 << 20  # bytes of packed items in a batch, but for a single one
UNSEEN = 0.02
"""Seconds for which what has succeeded may wait to be looked at, where nobody waits for it, and enough is queued. To
wake the run for each attempt costs it 75 us, taken from the workers where cpus are few; for several at once, 30."""

MOST_UNSEEN = 8
"""Of attempts that wait so, or two for each worker, if these are more. While the run makes values of many (or folds them),
each system call of the supervisor may take Python's switch interval, 5 ms; with so few, that is over before workers starve."""

WEIGHTY = 1 << 14
"""Bytes of pickles, to unpickle which takes about as long as it does to be woken."""

STALLS = 3  # workers that stand still before the same attempt, until it is to blame
MOST_RECORDS = 64 << 20  # bytes of log records that wait to be handled
_DROPPED = {
    "name": "parallelkit",
    "levelno": 30,
    "levelname": "WARNING",
    "msg": "tasks log faster than their records are handled: some are dropped",
}


class File:
    """Something packed that is too large for the socket, in a file without a name; closed with its last user.

    ``told``: what goes with it through the socket.
    """

    __slots__ = ("fd", "length", "told")

    def __init__(self, fd: int, length: int, told: bytes = b"") -> None:
        self.fd = fd
        self.length = length
        self.told = told

    def __len__(self) -> int:
        return self.length

    def __del__(self) -> None:
        os.close(self.fd)


Payload: TypeAlias = bytes | File | Buffered
"""Something packed."""

OWN_FILE = 1 << 20  # what is packed to so many bytes or more travels in a file of its own


def payload_of(blob: bytes) -> bytes | File:
    """The same, in a file if it is large."""
    if len(blob) < OWN_FILE:
        return blob
    file = File(_channel.new_file("parallelkit-large"), len(blob))
    _channel.write_all(file.fd, blob)
    return file


class Batch(NamedTuple):
    """Attempts of one lane, with their packed items; None where all items are plain atoms."""

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


class Columns(NamedTuple):
    """Results of consecutive slots as they lie in the ring."""

    started: array[float]
    ended: array[float]
    kinds: bytes
    words: bytes
    heap: bytes
    heap_from: int
    files: list[Content]
    keys: bytes
    """What dicts among them refer to (_dicts.py)."""


class Span(NamedTuple):
    """Attempts that were committed, in the ring's own columns; the run's thread makes values of them."""

    batch: Batch
    columns: Columns
    worker: str

    def may_wait(self) -> bool:
        """Whether all succeeded, and none holds anything that others could use."""
        kinds, files = self.columns.kinds, self.columns.files
        return not files and kinds.find(_channel.FAILED) < 0 and kinds.find(_channel.BIG_FAILED) < 0

    def weight(self) -> int:
        """How many values it has; one that takes long to unpickle counts for several."""
        return len(self.columns.kinds) + len(self.columns.heap) // WEIGHTY


class Why(Enum):
    """What made a worker end: something in it, or we."""

    ITSELF = auto()
    OVERDUE = auto()
    GARBAGE = auto()


class Lost(NamedTuple):
    """An attempt whose worker ended under it; ``status`` as subprocess gives it, None where it is not known."""

    batch: Batch
    started: float
    ended: float
    pid: int
    status: int | None
    why: Why
    worker: str
    stack: str


class Record(NamedTuple):
    """A log record that a task wrote; the ticket is None where the task had ended."""

    packed: bytes
    ticket: Ticket | None

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.packed) + 200


class Broken(NamedTuple):
    """Why no attempt can run any more; ``refusal`` is what the initializer raised, packed."""

    reason: str
    refusal: bytes | None = None
    cause: BaseException | None = None


Event: TypeAlias = Span | Lost | Record


@dataclass(eq=False, repr=False, slots=True)
class Lane:
    """The supervisor's side of a port."""

    number: int
    job: bytes | File
    """The function with its arguments, packed."""
    exact: bool
    patient: bool = False
    home: str = ""
    """The function's module (_preload.py)."""
    gate: Gate = field(default_factory=Gate)
    queue: deque[Batch] = field(default_factory=deque)
    """The run appends at the end; the supervisor takes from the front, and puts back there."""
    events: deque[Event] = field(default_factory=deque)
    """The supervisor appends, the run takes."""
    broken: Broken | None = None
    """Written by the supervisor, once."""
    closed: bool = False
    """Written by the run, once, and asked by the supervisor."""

    halted: bool = False
    """The same: it is about to be closed, and nothing more of it begins."""

    others: int = 0
    """Written by the run: how many workers served other lanes when it last looked for room; 0 where it will look anyhow."""

    recorded: int = 0
    """Bytes of log records that the supervisor handed over, and of these ..."""
    logged: int = 0
    """... those that the run has handled."""
    drops_records: bool = False
    _stalled_at: int = -1
    _stalls: int = 0
    fatal_loads: int = 0
    """How many workers ended by themselves while they loaded the function; the supervisor's, as is the pace."""
    struck_loads: int = 0
    """How many were killed from outside while they loaded it, since an attempt was committed."""
    pace: Pace = field(default_factory=Pace)
    _unseen: float = 0
    """How many attempts have succeeded since the run was last woken; infinity where it should look at once."""
    _unseen_since: float = inf

    def post(self, event: Event) -> None:
        """Hand over what came; whoever posts has it told when all is posted."""
        if not self.closed:
            self.events.append(event)
            self._unseen += event.weight() if isinstance(event, Span) and event.may_wait() else inf

    def tell(self, now: float, workers: int) -> float:
        """Wake the run, if there is something that it should look at by now; when that will be, infinity if there is nothing."""
        if self.events and self.patient and self._unseen <= most_unseen(workers):
            self._unseen_since = min(self._unseen_since, now)
            due = self._unseen_since + UNSEEN
            if now < due and self.waiting() >= workers * self.pace.limit:
                return due
        self._unseen, self._unseen_since = 0, inf
        if self.events:
            self.gate.open()
        return inf

    def stock(self, workers: int) -> int:
        """How many attempts shall be at hand, those included that the workers hold."""
        return 3 * self.pace.limit * workers + (most_unseen(workers) if self.patient else 0)

    def post_record(self, record: Record) -> None:
        """Hand over a log record; one that comes when far too many wait is dropped, and that is told in their place."""
        full = self.recorded - self.logged > MOST_RECORDS
        if full and not self.drops_records:
            self.post(Record(pack(_DROPPED), None))
        elif not full:
            self.recorded += record.size
            self.post(record)
        self.drops_records = full

    def stalls_at(self, index: int) -> bool:
        """A worker stands still before this attempt; whether that is the third in a row, so that it must be to blame."""
        self._stalls = self._stalls + 1 if index == self._stalled_at else 1
        self._stalled_at = index
        return self._stalls >= STALLS

    def fail(self, broken: Broken) -> None:
        """Nothing can run here any more."""
        if self.broken is None:
            self.broken = broken
        self.gate.open()

    def give_up(self, broken: Broken) -> None:
        """The same; what is queued is forgotten."""
        self.queue.clear()
        self.fail(broken)

    def waiting(self) -> int:
        """How many attempts are queued."""
        return sum([len(batch.tickets) for batch in list(self.queue)])

    def take(self, most: int) -> Batch:
        """The next attempts in order, at most so many."""
        batch = self.queue.popleft()
        if batch.payloads is not None and batch.size() > HEAVY:
            most = min(most, _light_part(batch.payloads))
        if len(batch.tickets) > most:
            self.queue.appendleft(batch.part(most))
            batch = batch.part(0, most)
        return batch


def most_unseen(workers: int) -> int:
    """How many that have succeeded may wait to be looked at."""
    return max(MOST_UNSEEN, 2 * workers)


def _light_part(payloads: Sequence[Payload]) -> int:
    """How many of the first stay below the bytes of a batch; at least one."""
    total = 0
    for count, payload in enumerate(payloads):
        total += len(payload)
        if total > HEAVY:
            return max(1, count)
    return len(payloads)
