"""The tickets of a port that no thread has taken yet, and which of them a thread may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat, starmap
from sys import maxsize
from threading import Lock
from typing import TypeAlias

from parallelkit._executors._contract import Ticket
from parallelkit._executors._shared import snapshot
from parallelkit._locks import careful

UNLIMITED = maxsize  # tickets that a port may have queued

Slot: TypeAlias = "list[float]"
"""The claim of the attempt that lends it, or ``OWN``."""

OWN: Slot = []
"""Any slot that no task lends."""


class TicketQueue:
    """Two queues: an ordinary one, and an urgent one of calls that tasks of the same engine wait for.

    After a failure that may stop the run, the ordinary tickets are ``held`` until the run has seen it.
    """

    def __init__(self, ended: Callable[[], bool] = bool) -> None:
        self._ended = ended  # whether only retries will be added
        self.queue: deque[Ticket] = deque()
        self.urgent: deque[Ticket] = deque()
        # Iterated over in place of calling ``popleft``: an exception sent into the thread could strike right
        # after that call, and the ticket would be lost (see ``ThreadWorker``).
        self.drawn = starmap(self.queue.popleft, repeat(()))
        self.drawn_urgent = starmap(self.urgent.popleft, repeat(()))
        self.held: deque[Ticket] = deque()
        self._lock = careful(Lock)

    def hold(self) -> None:
        """Let no more of the ordinary tickets be taken."""
        with self._lock, suppress(IndexError):
            self.held.extend(self.drawn)

    def release(self) -> int:
        """Put back what was held; return how many tickets that is."""
        with self._lock:
            count = len(self.held)
            self.queue.extendleft(reversed(self.held))
            self.held.clear()
            return count

    def withdraw(self) -> list[Ticket]:
        """Remove and return all tickets, held ones included."""
        with self._lock:
            tickets = [*self.held]
            self.held.clear()
            for drawn in (self.drawn_urgent, self.drawn):
                with suppress(IndexError):
                    tickets.extend(drawn)
            return tickets

    def clear(self) -> None:
        """Drop all tickets."""
        self._ended = bool  # the former may refer to the run
        with self._lock:
            for queue in (self.queue, self.urgent, self.held):
                queue.clear()

    def move_forward(self, index: int) -> bool:
        """Move a ticket that a task waits for to the urgent queue; False if a thread has taken it already."""
        for ticket in snapshot(self.queue):
            if ticket[0] == index:
                try:
                    self.queue.remove(ticket)
                except ValueError:
                    return False  # a thread has taken it
                self.urgent.append(ticket)
                return True
        return False

    def take_back(self, ticket: Ticket, urgent: bool) -> None:
        """Queue a ticket again that was taken and not begun."""
        queue = self.urgent if urgent else self.queue
        queue += (ticket,)

    def waiting(self) -> int:
        """How many tickets no thread has taken yet."""
        return len(self.queue) + len(self.urgent) + len(self.held)

    def is_spent(self) -> bool:
        """Whether nothing is left to take, and only retries may still come."""
        return self._ended() and not self.waiting()

    def has_work(self, slot_for: Callable[[TicketQueue | None], Slot | None]) -> bool:
        """Whether there is a ticket that may be taken (see ``take``)."""
        return bool(self.urgent and slot_for(None) is not None) or bool(
            self.queue and slot_for(self) is not None
        )

    def take(self, slot_for: Callable[[TicketQueue | None], Slot | None]) -> tuple[Ticket | None, Slot, bool]:
        """The next ticket for which there is a slot, that slot, and whether the ticket is urgent.

        ``slot_for`` returns a free slot for a port or, without one, for an urgent ticket; None if there is none.
        """
        try:
            if self.urgent and (slot := slot_for(None)) is not None:
                for ticket in self.drawn_urgent:
                    return ticket, slot, True
            if self.queue and (slot := slot_for(self)) is not None:
                for ticket in self.drawn:
                    return ticket, slot, False
        except IndexError:
            pass  # the port has just been closed
        return None, OWN, False
