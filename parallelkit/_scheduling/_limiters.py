"""Queues of ready tasks that are in the same groups, and limiters, which hold them up (see ``Gated``)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf

from parallelkit._executors._contract import Ticket
from parallelkit._scheduling._meters import Cap, RateLog

Rank = tuple[float, int]  # minus the priority, then the index: the smallest goes first


class Limiter:
    """A meter, and the queues that wait until it allows a start.

    ``timer``: when it is looked at next, if set. ``shut_until``: until when other runs go first.
    """

    __slots__ = ("__weakref__", "call", "meter", "shut_until", "timer", "waiting")

    def __init__(self, meter: RateLog | Cap, call: Callable[[Limiter, bool], None]) -> None:
        self.meter = meter
        self.call = call
        self.waiting: list[tuple[Rank, int, GroupQueue]] = []
        self.timer: float | None = None
        self.shut_until = -inf

    def is_open(self, now: float) -> bool:
        """Whether this run may start something now, as far as is known."""
        return now >= self.shut_until and self.meter.is_open(now)

    def look(self, asked: bool = False) -> None:
        """From any thread: another run waits for our reports of starts (``asked``), or has one that we wait for."""
        self.call(self, asked)


class GroupQueue:
    """The ready tasks of the same groups, in a heap. ``place``: the heap of queues in which it is, or None."""

    __slots__ = ("groups", "limiters", "place", "tickets")

    def __init__(self, groups: tuple[Hashable, ...], limiters: tuple[Limiter, ...]) -> None:
        self.groups = groups
        self.limiters = limiters
        self.tickets: list[tuple[Rank, Ticket]] = []
        self.place: list[tuple[Rank, int, GroupQueue]] | None = None
