"""Which slots an engine has, and which are free: one that is lent serves only what its task waits for, the others every attempt.

Whoever waits lends its slot, and whatever has that slot began later. So of all attempts that wait, the one that began last
finds its slot free for what it waits for: never do all wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from parallelkit._executors._thread._lending import Borrower
from parallelkit._executors._thread._queue import OWN, Slot, TicketQueue
from parallelkit._executors._thread._worker import ThreadWorker


class Slots:
    """Changed under the engine's lock, and looked at without it."""

    def __init__(self, max_workers: int, workers: Collection[ThreadWorker], abandoned: Sized) -> None:
        self._max_workers = max_workers
        self._workers, self._abandoned = workers, abandoned
        self.loans: dict[Any, tuple[Slot, ...]] = {}  # to a port, or to a future that is waited for

    def own(self) -> int:
        """How many there are without loans: each abandoned thread beyond ``max_workers`` costs one."""
        return self._max_workers - max(0, len(self._abandoned) - self._max_workers)

    def lent(self) -> int:
        """How many are lent: a task lends its slot once, however much it waits for, and none once it has ended."""
        return len(self._lent()) if self.loans else 0

    def lend(self, borrower: Borrower, claim: Slot) -> None:
        """Lend the slot of the attempt with this claim."""
        self.loans[borrower] = (*self.loans.get(borrower, ()), claim)

    def repay(self, borrower: Borrower, claim: Slot | None = None) -> None:
        """Take back what this borrower has, or only the slot of the attempt with this claim. Idempotent."""
        claims = () if claim is None else self.loans.get(borrower, ())
        kept = tuple(each for each in claims if each is not claim)
        if kept:
            self.loans[borrower] = kept  # not popped before, since others look without the lock
        else:
            self.loans.pop(borrower, None)

    def borrowers(self, claim: Slot) -> list[Borrower]:
        """To what the attempt with this claim lends its slot."""
        loans = list(self.loans.items())
        return [borrower for borrower, claims in loans if any(each is claim for each in claims)]

    def free(self, port: TicketQueue | None) -> Slot | None:
        """A free slot for an attempt of this port or, without one, for a call that a task waits for; None if there is none."""
        if not self.loans:
            return OWN
        taken = [id(worker.slot) for worker in list(self._workers) if worker.ticket is not None]
        loans = list(self.loans.items()) if port is None else [(port, self.loans.get(port, ()))]
        for borrower, claims in loans:
            if borrower is port or not isinstance(borrower, TicketQueue):
                for claim in claims:
                    if claim and id(claim) not in taken:
                        return claim
        return OWN if self._own_taken(taken) < self.own() else None

    def open_to(self, port: TicketQueue, alone: bool) -> tuple[int, bool]:
        """How many attempts of a port may run now, its own included; and whether other ports have any running.

        ``alone``: there are no other ports.
        """
        workers = () if alone else list(self._workers)
        taken = [
            id(worker.slot) for worker in workers if worker.ticket is not None and worker.port is not port
        ]
        lent = {id(claim) for claim in self.loans.get(port, ()) if claim}.difference(taken)
        return self.own() - self._own_taken(taken) + len(lent), bool(taken)

    def _own_taken(self, taken: list[int]) -> int:
        """How many of these slots, given by their ``id``, are not lent, or no longer."""
        lent = self._lent()
        return len([slot for slot in taken if slot not in lent])

    def _lent(self) -> set[int]:
        return {id(claim) for claims in list(self.loans.values()) for claim in claims if claim}
