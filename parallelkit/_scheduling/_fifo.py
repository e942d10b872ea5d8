"""The ready attempts of a run without limits and priorities: first in, first out."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from typing import Any

from parallelkit._executors._contract import Ticket
from parallelkit._executors._tickets import FirstTries


class Fifo:
    """The queue of an ordinary run, one of the two kinds of ``Ready``. What is tried again goes first."""

    def __init__(self) -> None:
        self._again: OrderedDict[int, Ticket] = OrderedDict()  # by index, since any may be withdrawn
        self._queue: deque[_Firsts | deque[Ticket]] = deque()

    def push(self, tickets: Sequence[Ticket]) -> None:
        last = self._queue[-1] if self._queue else None
        if not isinstance(tickets, FirstTries):
            self._queue.append(deque(tickets))
        elif isinstance(last, _Firsts):
            last.extend(tickets)
        else:
            self._queue.append(_Firsts(tickets))

    def push_again(self, ticket: Ticket) -> None:
        self._again[ticket[0]] = ticket

    def withdraw(self, indices: Collection[int], now: float) -> None:
        for index in indices:
            del self._again[index]

    def pop(self, now: float, room: int) -> Sequence[Ticket]:
        parts: list[Sequence[Ticket]] = []
        if self._again and room > 0:
            count = min(room, len(self._again))
            parts.append([self._again.popitem(last=False)[1] for _ in range(count)])
            room -= len(parts[0])
        while self._queue and room > 0:
            head = self._queue[0]
            parts.append(head.take(room) if isinstance(head, _Firsts) else take(head, room))
            room -= len(parts[-1])
            if not head:
                self._queue.popleft()
        return parts[0] if len(parts) == 1 else [ticket for part in parts for ticket in part]

    def wake_at(self) -> float | None:
        return None

    def clear(self, now: float) -> None:
        self._queue.clear()
        self._again.clear()


class _Firsts:
    """A part of the queue in columns: first attempts of consecutive tasks, with the timeout of the run."""

    def __init__(self, tickets: FirstTries) -> None:
        self._next = tickets.first
        # A deque, from which each item goes as it is taken: a list would keep those alive that are done.
        self._items = deque(tickets.items)
        self._timeout = tickets.timeout

    def __len__(self) -> int:
        return len(self._items)

    def extend(self, tickets: FirstTries) -> None:
        assert tickets.first == self._next + len(self._items), "what came between is a part of the queue"
        self._items.extend(tickets.items)

    def take(self, room: int) -> FirstTries:
        first, items = self._next, take(self._items, room)
        self._next += len(items)
        return FirstTries(first, items, self._timeout)


def take(things: deque[Any], room: int) -> list[Any]:
    """Remove up to ``room`` things from the front, and return them."""
    if room >= len(things):
        due = list(things)
        things.clear()
        return due
    return [things.popleft() for _ in range(room)]
