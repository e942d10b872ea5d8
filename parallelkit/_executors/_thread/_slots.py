"""Which slots are free: one that is lent serves only what its task waits for, the others serve every attempt."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any, Protocol

from parallelkit._executors._thread._lending import Loans
from parallelkit._executors._thread._line import OWN, Line, Slot


class Busy(Protocol):
    """A thread of the engine, and the slot that its ticket has."""

    ticket: Any  # None if it has none
    slot: Slot

    @property
    def port(self) -> Line | None:
        """Where the ticket is from."""


class Slots(Protocol):
    """An engine, as far as its slots are concerned."""

    max_workers: int

    loans: Loans
    """The slots that are lent."""

    awaited: Loans
    """Those of them that are lent for futures."""

    @property
    def ports(self) -> Sized:
        """The open ones."""

    @property
    def workers(self) -> Collection[Busy]:
        """The threads that count as workers."""

    def own(self) -> int:
        """How many attempts may run at once, without lent slots."""


def free_slot(port: Line | None, engine: Slots) -> Slot | None:
    """A free slot for an attempt of this port or, without one, for a call that a task waits for; None if there is none.

    Whoever waits lends its slot, and whatever has that slot began later. So of all attempts that wait, the one that began last
    finds its slot free for what it waits for: never do all wait.
    """
    taken = [id(worker.slot) for worker in list(engine.workers) if worker.ticket is not None]
    for slot in engine.awaited.all_claims() if port is None else engine.loans.claims(port):
        if id(slot) not in taken:
            return slot
    return OWN if _own_taken(taken, engine) < engine.own() else None


def slots_for(port: Line, engine: Slots) -> tuple[int, bool]:
    """How many attempts of a port may run now, its own included; and whether other ports have any running."""
    workers = list(engine.workers) if len(engine.ports) > 1 else ()
    taken = [id(worker.slot) for worker in workers if worker.ticket is not None and worker.port is not port]
    lent = set(map(id, engine.loans.claims(port))).difference(taken)
    return engine.own() - _own_taken(taken, engine) + len(lent), bool(taken)


def _own_taken(taken: list[int], engine: Slots) -> int:
    """How many of these slots, given by their ``id``, are not lent, or no longer."""
    lent = set(map(id, engine.loans.all_claims()))
    return len([slot for slot in taken if slot not in lent])
