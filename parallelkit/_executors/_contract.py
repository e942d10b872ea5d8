"""The interface between the loop and the executors, and the values that pass through it.

An executor owns workers. A run opens a *port* on it: tickets go in through ``start``, and finished
attempts come out of ``wait``. Several runs may hold ports on one executor at the same time.
All instants are on the clock of ``time.monotonic``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

from parallelkit._errors import TaskTimeout
from parallelkit._facts import Facts
from parallelkit._named_tuple import NamedTuple
from parallelkit._worker._call import bind

Ticket: TypeAlias = tuple[int, int, Any, float | None]
"""An attempt to run: index of the task, number of the attempt (from 1), item, timeout in seconds.

A plain tuple, because a class costs five times as much. First attempts are mostly handed over in columns
and never become tuples (_tickets.py).
"""

Running: TypeAlias = tuple[int, float, str]
"""An attempt that has begun and not ended: index, instant of the start, worker."""

COROUTINE = "coroutine_"
"""The prefix of worker names that stand for a coroutine on an event loop, not for a thread or process."""

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
"""The item of a task that brings its own function (see ``Job.fn``)."""


class Job(NamedTuple):
    """What all attempts of a run have in common.

    - ``fn``: the function; if None, every item is a ``Call``.
    - ``args``, ``kwargs``: passed after the item's own arguments.
    - ``exact``: no attempt may be handed over before a slot is free for it, because limits, priorities,
      ``then`` or ``max_time`` decide what starts next.
    - ``tentative``: the job is exact only because a task that has yet to be read may call for it. A port need not be
      exact before its ``be_exact`` is called.
    - ``wary``: a failure may stop the run, so threads begin nothing after one until the run has seen it. (A worker
      process goes on with the few milliseconds of work that it has.)
    - ``label``: names a task in messages (index → text).
    - ``shared``: the port serves many callers (``submit``). It therefore does not count as nested in the
      task that happens to open it, and one call more than there are free workers may be handed over.
    - ``ended``: whether all tasks have been read, so that only retries can follow; called from any thread.
    - ``patient``: nobody sees a success before the run is over, so successes may be reported late.
      Never set together with ``exact``.
    - ``folds``: the caller folds each success as it is reported, so few may be reported together even so.
    - ``guard``: entered around what runs the caller's own code in the run's thread (tasks, pickling, unpickling), and
      around asking a cluster as a port is opened. Ctrl-C may be raised there alone.
    """

    fn: Callable[..., Any] | None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})
    star: bool = False
    exact: bool = False
    wary: bool = False
    label: Callable[[int], str] = "task {}".format
    shared: bool = False
    ended: Callable[[], bool] = bool
    patient: bool = False
    folds: bool = False
    guard: Callable[[], AbstractContextManager[object]] = nullcontext
    tentative: bool = False


class Block(NamedTuple):
    """Attempts that succeeded, as columns of equal length; the run settles a whole block in one call."""

    indices: Sequence[int]
    values: Sequence[Any]
    started: Sequence[float]
    ended: Sequence[float]
    workers: Sequence[str]


class PlainBlock(Block):
    """A block whose values are all plain data (numbers, None, small dicts), so that checks of the values can skip it."""

    __slots__ = ()


Row: TypeAlias = tuple[int, Any, float, float, str]
"""An attempt that succeeded: index, value, start, end, worker."""


def as_block(rows: Iterable[Row]) -> Block:
    """Turn rows into columns.

    Not by ``zip(*rows)``, which creates an iterator for each row: that many objects at once trigger full
    garbage collections again and again, which cost a run of a million tasks a fifth of its time.
    """
    indices, values, starts, ends, workers = [], [], [], [], []
    for index, value, started, ended, worker in rows:
        indices.append(index)
        values.append(value)
        starts.append(started)
        ends.append(ended)
        workers.append(worker)
    return Block(consecutive(indices), values, starts, ends, workers)


def consecutive(indices: Sequence[int]) -> Sequence[int]:
    """The same indices, as a range if they are consecutive: a slice then handles them all at once."""
    if not indices:
        return indices
    first, count = indices[0], len(indices)
    if indices[-1] == first + count - 1 and indices == list(found := range(first, first + count)):
        return found
    return indices


class Ended(NamedTuple):
    """One attempt that did not succeed.

    ``started`` is None if it never began. ``final``: a retry cannot help (something cannot be pickled, a pool is broken).
    ``traceback`` is text, or empty if ``error.__traceback__`` is complete.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index(), which nobody needs here
    error: BaseException
    traceback: str
    started: float | None
    ended: float
    worker: str | None
    stack: str | None = None
    final: bool = False


def drain(done: deque[Row], lost: deque[Ended]) -> tuple[list[Block | Ended], int]:
    """Remove what has succeeded and what has not, as ``Port.wait`` returns it; and count that."""
    rows = [done.popleft() for _ in range(len(done))]
    ended = [lost.popleft() for _ in range(len(lost))]
    blocks = [as_block(rows)] if rows else []
    return [*blocks, *ended], len(rows) + len(ended)


class Port:
    """A run's end of an executor; used by one thread, except for ``wake``. A base class, whose first part a port must
    define, and of the second only what it can do.
    """

    failure: Exception | None
    """Why nothing can run here any more (a broken initializer, every thread hung); None while all is well."""

    def room(self) -> int:
        """How many more tickets may be handed over now; 0 when full."""
        raise NotImplementedError

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Hand over attempts; never blocks. The executor batches them as it sees fit."""
        raise NotImplementedError

    def wait(self, until: float | None) -> list[Block | Ended]:
        """Block until an attempt has ended, ``wake`` was called or ``until`` has come; return all that ended.

        May return early, and empty, when something else has changed: an attempt has started, or there is room.

        Enforces the timeouts. Each attempt is reported exactly once: its result or its timeout, not both.
        """
        raise NotImplementedError

    def running(self) -> list[Running]:
        """The attempts that have begun and not ended."""
        raise NotImplementedError

    def wake(self) -> None:
        """Make ``wait`` return soon; callable from any thread or from a signal handler."""
        raise NotImplementedError

    def close(self) -> None:
        """Withdraw what is queued, kill or abandon what runs, and wait for no task. Idempotent.

        A later ``wait`` still returns what was committed before.
        """
        raise NotImplementedError

    # What not every port can do

    @property
    def eager(self) -> bool:
        """Whether tickets handed over one at a time cost little, so that a slow input need not be read ahead."""
        return False

    flows = False
    """Whether they cost next to nothing, and may be handed over before the scheduler knows of the tasks."""

    fate: Literal["abandoned", "worker_died"] | None = None
    """The ``Event.kind`` for a worker whose attempt ``close`` cuts off."""

    late: Sequence[Running] = ()
    """The attempts that ``close`` has cut off. Where attempts begin on their own, some may have begun after ``running``
    was last asked."""

    def announce(self, heard: Callable[[int, float], object]) -> None:
        """Call ``heard`` with each start, if attempts run in the run's own thread, which cannot look for starts meanwhile."""

    def be_exact(self) -> None:
        """From now on, take nothing before a slot is free for it (see ``Job.tentative``)."""

    def give_back(self) -> list[Ticket]:
        """Remove and return what has not begun, for a run that waits for these starts (see ``RateLog.ask``)."""
        return []

    def hurry(self, index: int) -> None:
        """Run this attempt next, for a task of the engine waits for it (see ``Lender``)."""

    def stacks(self) -> dict[int, str]:
        """Where the running attempts are in their code, by index."""
        return {}

    def measure(self, facts: Facts) -> None:
        """Add to the facts of the run what was measured here."""


class Engine(Protocol):
    """An executor as a run sees it."""

    max_workers: int

    def open(self, job: Job) -> Port:
        """Open a port; raises TypeError if the job cannot be sent to the workers."""

    def close(self) -> None:
        """End all workers. When it returns, nothing is left except abandoned threads."""


class OwnExecutor:
    """An executor of parallelkit's own: a run uses its engine, and its timeout if the run has none. A base class,
    not a protocol: the executor of somebody else may have attributes of these names.
    """

    _timeout: float | None

    def _engine(self) -> Engine:
        """The engine; raises where the executor takes no more work."""
        raise NotImplementedError


class PoolEngine(Engine, Protocol):
    """An engine that can back an executor of futures (``ThreadExecutor``, ``ProcessExecutor``)."""

    @property
    def loss(self) -> object:
        """Why the engine can run nothing until a hung call returns; None while it can."""

    @property
    def broken(self) -> object:
        """Why the engine can never run anything again; None otherwise."""

    def is_served_here(self) -> bool:
        """Whether no worker can proceed until the calling thread does."""

    def supply(self, tickets: int) -> None:
        """Make sure that there are workers for this many new tickets; the caller starts any thread that needs."""


def close_port(port: Port) -> None:
    """Close a port that nobody else would close, also where a second signal handler raises as it is closed."""
    try:
        port.close()
    finally:
        port.close()


def call_with(job: Job) -> Callable[[Any], Any]:
    """The job as a function of one item; ``job.fn`` itself if it takes no further arguments."""
    return bind(job.fn, job.args, job.kwargs, job.star)


def timed_out(
    label: str, limit: float, fate: str = "", *, killed: bool = False, abandoned: bool = False
) -> TaskTimeout:
    """The error of an attempt that overran its timeout, worded alike for all executors."""
    error = TaskTimeout(f"{label} ran longer than its timeout of {limit:g} s{fate and f'; {fate}'}")
    error.killed, error.abandoned = killed, abandoned
    return error


def unloaded(label: str, seconds: float) -> TaskTimeout:
    """The error of an attempt whose own function did not load in time."""
    error = TaskTimeout(f"{label} had not loaded its function after {seconds:.3g} s; its process was killed")
    error.killed = True
    return error
