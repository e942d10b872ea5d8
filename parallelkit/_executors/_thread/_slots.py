"""How many attempts may run on an engine at once, and how many of a port, while tasks lend their slots."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any, Protocol

from parallelkit._executors._thread._line import AWAITED, Line


class Busy(Protocol):
    """A thread of the engine. ``depth``: how many tasks of the engine wait, in a chain, for its ``ticket``."""

    ticket: Any  # None if it has none
    depth: int | None

    @property
    def port(self) -> Line | None:
        """Where the ticket is from."""


class Slots(Protocol):
    """An engine, as far as its slots are concerned."""

    max_workers: int

    @property
    def ports(self) -> Sized:
        """The open ones."""

    @property
    def workers(self) -> Collection[Busy]:
        """The threads that count as workers."""

    @property
    def loans(self) -> Sized:
        """The slots that are lent."""

    @property
    def awaited(self) -> Sized:
        """Those of them that are lent for futures."""

    def capacity(self) -> int:
        """How many attempts may run at once, with lent slots."""


def most_at(engine: Slots, depth: int) -> int:
    """How many threads may run attempts at a depth: a slot that was lent serves only what its task waits for."""
    if depth == AWAITED:
        return len(engine.awaited)
    return engine.max_workers if depth else engine.capacity() - len(engine.loans)


def slots_for(port: Line, engine: Slots) -> tuple[int, bool]:
    """How many attempts of a port may run now, its own included; and whether other ports have any running."""
    workers = list(engine.workers) if len(engine.ports) > 1 else ()
    others = [worker for worker in workers if worker.ticket is not None and worker.port is not port]
    here = sum(worker.depth == port.depth for worker in others)
    return min(engine.capacity() - len(others), most_at(engine, port.depth) - here), bool(others)
