"""The tickets of a port that no thread has taken yet, and which of them a thread may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat, starmap
from sys import maxsize
from threading import Lock

from parallelkit._executors._contract import Ticket

UNLIMITED = maxsize  # tickets that a port may have in line
AWAITED = -1  # the depth of calls whose futures tasks of the same executor wait for


class Line:
    """Two queues: an ordinary one, and an urgent one of calls that tasks of the same engine wait for.

    After a failure that may stop the run, the ordinary tickets are ``held`` until the run has seen it.
    """

    def __init__(self, depth: int, ended: Callable[[], bool] = bool) -> None:
        self._ended = ended  # whether only retries will be added
        self.depth = depth  # how many tasks of this engine wait for these tickets, in a chain
        self.queue: deque[Ticket] = deque()
        self.urgent: deque[Ticket] = deque()
        # Iterated over in place of calling ``popleft``: an exception sent into the thread could strike right
        # after that call, and the ticket would be lost (see ``ThreadWorker``).
        self.drawn = starmap(self.queue.popleft, repeat(()))
        self.drawn_urgent = starmap(self.urgent.popleft, repeat(()))
        self.held: deque[Ticket] = deque()
        self._lock = Lock()

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
        """Remove and return the ordinary tickets, held ones included."""
        with self._lock:
            tickets = [*self.held]
            self.held.clear()
            with suppress(IndexError):
                tickets.extend(self.drawn)
            return tickets

    def clear(self) -> None:
        """Drop all tickets."""
        self._ended = bool  # the former may refer to the run
        with self._lock:
            for queue in (self.queue, self.urgent, self.held):
                queue.clear()

    def move_forward(self, index: int) -> bool:
        """Move a ticket that a task waits for to the urgent queue; False if a thread has taken it already."""
        for ticket in list(self.queue):
            if ticket[0] == index:
                try:
                    self.queue.remove(ticket)
                except ValueError:
                    return False  # a thread has taken it
                self.urgent.append(ticket)
                return True
        return False

    def take_back(self, ticket: Ticket, depth: int | None) -> None:
        """Queue a ticket again that was taken at this depth and not begun."""
        queue = self.urgent if depth == AWAITED else self.queue
        queue += (ticket,)

    def waiting(self) -> int:
        """How many tickets no thread has taken yet."""
        return len(self.queue) + len(self.urgent) + len(self.held)

    def is_spent(self) -> bool:
        """Whether nothing is left to take, and only retries may still come."""
        return self._ended() and not self.waiting()

    def has_work(self, allows: Callable[[Line, int], bool] | None) -> bool:
        """Whether there is a ticket that may be taken: any without ``allows``, which judges by port and depth."""
        if allows is None:
            return bool(self.queue)
        return bool(self.urgent and (allows(self, AWAITED) or allows(self, 0))) or bool(
            self.queue and allows(self, self.depth)
        )

    def take(self, allows: Callable[[Line, int], bool]) -> tuple[Ticket | None, int | None]:
        """The next ticket that may be taken, and the depth at which it counts."""
        try:
            if self.urgent and allows(self, AWAITED):
                for ticket in self.drawn_urgent:
                    return ticket, AWAITED
            if self.urgent and allows(self, 0):  # whoever waited for it no longer does
                for ticket in self.drawn_urgent:
                    return ticket, 0
            if self.queue and allows(self, self.depth):
                for ticket in self.drawn:
                    return ticket, self.depth
        except IndexError:
            pass  # the port has just been closed
        return None, None
