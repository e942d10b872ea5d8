"""What the loop asks of an executor, and the values that pass between them.

An executor owns workers. A run opens a *port* on it, its own end of the executor: tickets go in by
``start``, what has ended comes out of ``wait``. Several runs may hold ports on one executor at once.
All instants are on the clock of ``time.monotonic``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from parallelkit._errors import ParallelKitError, TaskTimeout
from parallelkit._raised import drop_frames
from parallelkit._worker._call import bind

Ticket: TypeAlias = tuple[int, int, Any, float | None]
"""An attempt to run: index of the task, number of the attempt (from 1), item, timeout in seconds.

A plain tuple on purpose: anything else costs five times as much. Many first attempts come without even
that (_tickets.py).
"""

Running: TypeAlias = tuple[int, float, str]
"""An attempt that has begun and not ended: index, instant of the start, worker."""

COROUTINE = "coroutine_"
"""How the name of a worker begins that is none: a coroutine's place on an event loop."""

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
"""The item of a task that brings its own function (see ``Job.fn``)."""


class Job(NamedTuple):
    """What all attempts of a run have in common.

    With ``fn`` None every item is a ``Call``. ``args`` and ``kwargs`` follow the item's own. ``exact``:
    nothing may be handed over ahead of a free slot (limits, priorities, ``then``, a ``max_time``).
    ``wary``: a failure may stop the run, so nothing more shall begin until the run has seen it. ``label``
    names a task (index → text) in messages about it. ``shared``: the port serves many callers, so it is
    part of no task in which it happens to be opened; one more than can begin may be at hand. ``ended``:
    whether all tasks have been read, so that only attempts made again may still come; asked in any thread.
    ``patient``: nobody looks at what has succeeded before the run is over, so it may be handed back late;
    not if exact.
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


class Block(NamedTuple):
    """Attempts that succeeded, in columns of equal length; a whole block is settled in one call."""

    indices: Sequence[int]
    values: Sequence[Any]
    started: Sequence[float]
    ended: Sequence[float]
    workers: Sequence[str]


class PlainBlock(Block):
    """One whose values are known to be numbers, or None; whoever looks for other things in a block may pass it over."""

    __slots__ = ()


def as_block(rows: Iterable[tuple[int, Any, float, float, str]]) -> Block:
    """Rows made columns.

    ``zip(*rows)`` would make an iterator a row: so many objects at once that the cycle collector goes
    over everything there is again and again, which costs a run of a million tasks a fifth of its time.
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
    """As a range, where they follow on from each other: what is done with them then is done with a slice."""
    if not indices:
        return indices
    first, count = indices[0], len(indices)
    if indices[-1] == first + count - 1 and indices == list(found := range(first, first + count)):
        return found
    return indices


class Ended(NamedTuple):
    """One attempt that did not succeed.

    ``started`` is None where it never began. ``final``: another try cannot help (what cannot be
    pickled). ``traceback`` is text, or empty where ``error.__traceback__`` says it all.
    """

    index: int  # type: ignore[assignment]  # in place of a tuple's own index(), which nobody needs here
    error: BaseException
    traceback: str
    started: float | None
    ended: float
    worker: str | None
    stack: str | None = None
    final: bool = False


class Port(Protocol):
    """A run's end of an executor; used by one thread, but for ``wake``."""

    failure: Exception | None
    """Why nothing can run here any more (a broken initializer, every thread hung); None while all is well."""

    def room(self) -> int:
        """How many more tickets may be handed over now; 0 when full."""

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Hand over attempts; never blocks. The executor batches them as it sees fit."""

    def wait(self, until: float | None) -> list[Block | Ended]:
        """Block until something has ended, ``wake`` was called or ``until`` has come; return all that ended.

        It may return early, with nothing, when something else has changed: a start, or room.

        Enforces the timeouts. An attempt is reported exactly once, and never after its timeout was.
        """

    def running(self) -> list[Running]:
        """The attempts that have begun and not ended."""

    def wake(self) -> None:
        """Make ``wait`` return soon, from any thread or from a signal handler."""

    def close(self) -> None:
        """Withdraw what is queued, kill or abandon what runs, and wait for no task. Idempotent.

        A ``wait`` afterwards still returns what had been committed before.
        """


class Engine(Protocol):
    """An executor as a run sees it."""

    max_workers: int

    def open(self, job: Job) -> Port:
        """A new port; raises TypeError where the job cannot be sent to the workers."""

    def close(self) -> None:
        """End all workers. Nothing is left when it returns, but for abandoned threads."""


class DeskEngine(Engine, Protocol):
    """An engine that may stand behind an executor of futures."""

    @property
    def loss(self) -> object:
        """Why it can run nothing until a hung call returns; None while it can."""

    @property
    def broken(self) -> object:
        """Why nothing can ever run in it again; None while that may be."""

    def is_served_here(self) -> bool:
        """Whether this is a thread without which no worker does anything now."""

    def supply(self, tickets: int) -> None:
        """See that there is somebody for so many new tickets; whoever is lacking is started by the thread that calls."""


def call_with(job: Job) -> Callable[[Any], Any]:
    """The job as a function of one item; the bare function itself where nothing is added to it."""
    return bind(job.fn, job.args, job.kwargs, job.star)


def timed_out(
    label: str, limit: float, fate: str = "", *, killed: bool = False, abandoned: bool = False
) -> TaskTimeout:
    """The error of an attempt that overran its timeout, in one wording for all executors."""
    error = TaskTimeout(f"{label} ran longer than its timeout of {limit:g} s{fate and f'; {fate}'}")
    error.killed, error.abandoned = killed, abandoned
    return error


class Hung(Protocol):
    """What was abandoned, and holds a slot: as its run was ``stopped``, or else for its timeout."""

    stopped: bool


def all_hung(
    abandoned: Iterable[Hung], patience: float, what: str = "threads", fate: str = "cannot be killed"
) -> str:
    """Why a run ends whose every slot is lost."""
    stopped = [each.stopped for each in list(abandoned)]
    reasons = {False: "overran their timeout", True: "belong to runs that were stopped"}
    why = " or ".join(reasons[reason] for reason in sorted(set(stopped)))
    return f"every slot is lost: {len(stopped)} {what} {why}, {fate}, and none returned within {patience:g} s more"


def ended_early(label: str, cause: BaseException) -> ParallelKitError:
    """The error of an attempt whose thread was hit by an exception outside of the task."""
    kind = type(cause).__name__
    error = ParallelKitError(
        f"{label} has no outcome: something raised {kind} in its thread, outside of the task"
    )
    error.__cause__ = cause
    return error


def drop_own_frames(error: BaseException) -> BaseException:
    """Cut the executor's own frames off the head of the traceback, where they are not all there is."""
    return drop_frames(error)
