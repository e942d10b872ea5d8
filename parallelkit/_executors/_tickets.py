"""Attempts as they are handed over: first attempts in columns, because a tuple for each would be a third of their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from math import inf
from typing import Any, overload

from parallelkit._executors._contract import Ticket


class FirstTries(Sequence[Ticket]):
    """The first attempts of consecutive tasks with the same timeout; a ticket is made when it is looked at."""

    __slots__ = ("first", "items", "timeout")

    def __init__(self, first: int, items: list[Any], timeout: float | None) -> None:
        self.first = first
        self.items = items
        self.timeout = timeout

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Ticket]:
        # Not strict, since ``repeat`` is endless.
        return zip(self.indices, repeat(1), self.items, repeat(self.timeout), strict=False)

    @overload
    def __getitem__(self, at: int) -> Ticket: ...
    @overload
    def __getitem__(self, at: slice) -> FirstTries: ...
    def __getitem__(self, at: int | slice) -> Ticket | FirstTries:
        indices = self.indices[at]
        if isinstance(indices, range):
            assert indices.step == 1, "only consecutive tasks can be given by their first index"
            return FirstTries(indices.start, self.items[at], self.timeout)
        return indices, 1, self.items[at], self.timeout

    @property
    def indices(self) -> range:
        return range(self.first, self.first + len(self.items))


def items_of(tickets: Sequence[Ticket]) -> list[Any]:
    return tickets.items if isinstance(tickets, FirstTries) else [item for _, _, item, _ in tickets]


def indices_of(tickets: Sequence[Ticket]) -> Sequence[int]:
    return tickets.indices if isinstance(tickets, FirstTries) else [index for index, _, _, _ in tickets]


def shortest_timeout(tickets: Sequence[Ticket]) -> float:
    """The shortest timeout, in seconds; infinity if there is none."""
    some = [tickets.timeout] if isinstance(tickets, FirstTries) else [timeout for _, _, _, timeout in tickets]
    return min([inf if timeout is None else timeout for timeout in some])
