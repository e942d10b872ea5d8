"""Lending of slots: a task that waits for another task on its own executor lends its slot meanwhile.

Context variables tell which attempts a piece of code runs in, even through other executors.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

from parallelkit._named_tuple import NamedTuple


class Borrower(Protocol):
    """What a task waits for, and lends its slot to: a port, or a future."""

    def _cut_off(self) -> None:
        """Have a task that was abandoned wait no longer: what it waits for might never have a slot, nor the thread an end."""


@runtime_checkable
class Lender(Protocol):
    """An engine whose tasks may wait for futures of the same executor."""

    def lend(self, future: Borrower) -> list[float] | None:
        """Lend the slot of the calling task, which is about to wait, and return the task's claim (see ``Enclosing``).

        None if it is no task of this engine; an empty claim if it was abandoned, and must not wait.
        """

    def repay(self, borrower: Borrower, claim: list[float] | None = None) -> None:
        """Take back the slots that were lent for this future, or only that of the attempt with this claim."""


class Enclosing(NamedTuple):
    """An attempt that encloses some code. ``claim`` is empty once it has ended or was abandoned."""

    engine: object
    claim: list[float]


class CurrentWorker(Protocol):
    """A worker thread, as the code that it runs sees it."""

    @property
    def engine(self) -> object:
        """Whose thread it is."""

    def attempt(self) -> Enclosing | None:
        """The attempt that it runs."""

    def stand_in(self, engine: object) -> Enclosing | None:
        """A stand-in for an attempt of this engine, for a finalizer that is called between attempts."""


_outer: ContextVar[tuple[Enclosing, ...]] = ContextVar("parallelkit_outer", default=())
_thread = threading.local()


def enter_thread(worker: CurrentWorker) -> None:
    """Called in a worker's thread: note whose thread this is."""
    _thread.worker = worker


def current_worker() -> CurrentWorker | None:
    """The worker whose thread this is; None in any other thread."""
    worker: CurrentWorker | None = getattr(_thread, "worker", None)
    return worker


def is_thread_of(engine: object) -> bool:
    """Whether the calling thread is one of this engine's."""
    worker = current_worker()
    return worker is not None and worker.engine is engine


def mark_context() -> None:
    """In the context of future attempts: note the attempts that enclose the calling code."""
    _outer.set(enclosing_attempts())


def enclosing_attempts() -> tuple[Enclosing, ...]:
    """The attempts that enclose the calling code, innermost last, without those that have ended."""
    worker = current_worker()
    own = None if worker is None else worker.attempt()
    outer = [attempt for attempt in _outer.get() if attempt.claim]
    return tuple(outer) if own is None else (*outer, own)


def lender(engine: object) -> Enclosing | None:
    """The innermost attempt of this engine that encloses the calling code."""
    for attempt in reversed(enclosing_attempts()):
        if attempt.engine is engine:
            return attempt
    worker = current_worker()
    return None if worker is None else worker.stand_in(engine)


def take_claim(claim: list[float]) -> bool:
    """Try to take the claim; of all callers exactly one succeeds."""
    try:
        claim.pop()
    except IndexError:
        return False
    return True
