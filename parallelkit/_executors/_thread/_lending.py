"""Slots that are lent: a task that waits for another on its own executor lends its slot until that has ended.

Which attempts a piece of code runs in is known by its context variables, through other executors too.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Lender(Protocol):
    """An engine whose tasks may wait for futures of the same executor."""

    def lend(self, future: object) -> bool:
        """The task that calls is about to wait: lend its slot; False where it is no task of this engine."""

    def repay(self, borrower: object) -> None:
        """It waits no more."""


@runtime_checkable
class LendingPort(Protocol):
    """A port of such an engine."""

    def hurry(self, index: int) -> None:
        """A task of the engine waits for this attempt."""


class Around(NamedTuple):
    """An attempt in which code runs. ``claim`` is empty once it has ended or was abandoned."""

    engine: object
    claim: list[float]
    depth: int


class Here(Protocol):
    """A worker thread, as its own code sees it."""

    def around(self) -> Around | None:
        """The attempt that it runs."""

    def between(self, engine: object) -> Around | None:
        """What stands for one of this engine outside of them, in a finalizer."""


_outer: ContextVar[tuple[Around, ...]] = ContextVar("parallelkit_outer", default=())
_thread = threading.local()


def enter_thread(worker: Here) -> None:
    """In a worker's thread: this is it."""
    _thread.worker = worker


def here() -> Here | None:
    """The worker whose thread this is."""
    worker: Here | None = getattr(_thread, "worker", None)
    return worker


def mark_context() -> None:
    """In the context of attempts that are about to be made: note those around this code."""
    _outer.set(around())


def around() -> tuple[Around, ...]:
    """The attempts in which this code runs, the innermost last; ended ones are left out."""
    worker = here()
    own = None if worker is None else worker.around()
    outer = [attempt for attempt in _outer.get() if attempt.claim]
    return (*outer, own) if own is not None and own not in outer else tuple(outer)


def lender(engine: object) -> Around | None:
    """The innermost attempt of this engine in which this code runs."""
    for attempt in reversed(around()):
        if attempt.engine is engine:
            return attempt
    worker = here()
    return None if worker is None else worker.between(engine)


class Loans:
    """The slots of an engine that are lent, each for a borrower: a port, or a future that is waited for."""

    def __init__(self) -> None:
        self._claims: dict[tuple[object, int], list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._claims)

    def __len__(self) -> int:
        """How many: a task lends its slot once, whatever it waits for, and none once it has ended."""
        return len({id(claim) for claim in list(self._claims.values()) if claim}) if self._claims else 0

    def add(self, borrower: object, claim: list[float]) -> None:
        """An attempt lends its slot."""
        self._claims[borrower, id(claim)] = claim

    def repay(self, borrower: object) -> None:
        """The borrower needs no slot any more. Idempotent."""
        for key in list(self._claims):
            if key[0] is borrower:
                self._claims.pop(key, None)


def take_claim(claim: list[float]) -> bool:
    """Whether the claim is ours now: of all who try, one succeeds."""
    try:
        claim.pop()
    except IndexError:
        return False
    return True
