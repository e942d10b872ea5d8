"""Decides which of the ready attempts may start next: ``Ready`` is the interface, ``Gated`` serves runs with
priorities or limits, and ``Fifo`` (_fifo.py) all others.

In ``Gated``, tasks of the same groups form a queue, sorted by priority. A queue is in exactly one place: in
the heap of queues that may start, or in that of the one limiter that holds it up. So a waiting group never
holds up another, and a limiter that opens for one start wakes one queue: O(log n) per start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Protocol
from weakref import WeakValueDictionary

from parallelkit._executors._contract import Ticket
from parallelkit._limits import Limit, meter_for
from parallelkit._scheduling._limiters import GroupQueue, Limiter, Rank
from parallelkit._scheduling._meters import Cap, RateLog


class Ready(Protocol):
    """What the scheduler needs of a queue of ready attempts."""

    def push(self, tickets: Sequence[Ticket]) -> None:
        """Add ready attempts, behind those that are there."""

    def push_again(self, ticket: Ticket) -> None:
        """Add a ready attempt that is not the first of its task."""

    def pop(self, now: float, room: int) -> Sequence[Ticket]:
        """Remove and return up to ``room`` attempts that may start now."""

    def withdraw(self, indices: Collection[int], now: float) -> None:
        """Remove attempts that were added by ``push_again`` and not popped since."""

    def wake_at(self) -> float | None:
        """When an attempt that may not start now may start; None if that depends on other events."""

    def clear(self, now: float) -> None:
        """Forget all attempts, ready or running."""


class Gated:
    """Starts larger priorities first, exactly, ties in input order, and keeps every limit."""

    def __init__(self, limits: Sequence[Limit], wake: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._wake = wake  # makes the run look for what may start; any thread may call it
        self._now = 0.0  # until the first ``pop``; at 0.0, no group counts as at rest
        self._traits: dict[int, tuple[float, tuple[Hashable, ...]]] = {}
        self._queues: dict[tuple[Hashable, ...], GroupQueue] = {}
        self._limiters: WeakValueDictionary[tuple[int, Hashable], Limiter] = WeakValueDictionary()
        self._open: list[tuple[Rank, int, GroupQueue]] = []
        self._timers: list[tuple[float, int, Limiter]] = []
        self._running: dict[int, GroupQueue] = {}
        self._withdrawn: set[int] = set()  # still in their queues: a heap can only drop its head
        self._unreported: dict[int, list[Limiter]] = {}  # the rate limits that await the start of a task
        self._called: deque[Limiter] = deque()  # at which another run has reported a start or given one back
        self._asked = False  # whether another run waits for starts that this one has not reported
        self._numbers = count()  # breaks ties in the heaps, since queues cannot be compared

    def describe(self, index: int, priority: float, groups: tuple[Hashable, ...]) -> None:
        """Set the priority and the groups of a task, before it is pushed; they are kept until ``forget``."""
        self._traits[index] = (priority, groups)

    def forget(self, index: int) -> None:
        """Forget a task, which is settled."""
        self._traits.pop(index, None)

    def push(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self.push_again(ticket)

    def push_again(self, ticket: Ticket) -> None:
        priority, groups = self._traits[ticket[0]]
        queue = self._queues.get(groups)
        if queue is None:
            queue = self._queues[groups] = GroupQueue(groups, self._limiters_of(groups))
        rank = (-priority, ticket[0])
        heappush(queue.tickets, (rank, ticket))
        if queue.tickets[0][0] == rank:  # a new head must try: a limiter may have opened for those behind it
            self._enqueue(queue, self._open)

    def withdraw(self, indices: Collection[int], now: float) -> None:
        self._withdrawn.update(indices)
        for groups in {self._traits[index][1] for index in indices}:
            queue = self._queues[groups]
            if not self._drop_withdrawn(queue):
                continue
            if queue.tickets:
                assert queue.place is not None, "a queue with tickets is in a heap between two calls"
                self._enqueue(queue, queue.place)
            else:
                queue.place = None
                del self._queues[groups]
            for limiter in queue.limiters:  # one may have opened for what was withdrawn: another may go
                self._pass_on(limiter, now)

    def _drop_withdrawn(self, queue: GroupQueue) -> bool:
        """Drop withdrawn attempts from the head of a queue; return whether there were any."""
        before = len(queue.tickets)
        while self._withdrawn and queue.tickets and queue.tickets[0][1][0] in self._withdrawn:
            self._withdrawn.discard(heappop(queue.tickets)[1][0])
        return len(queue.tickets) < before

    def _limiters_of(self, groups: tuple[Hashable, ...]) -> tuple[Limiter, ...]:
        limiters = []
        for number, (limit, group) in enumerate(zip(self._limits, groups, strict=True)):
            if group is None and limit.by is not None:
                continue
            limiter = self._limiters.get((number, group))
            if limiter is None:
                meter = meter_for(limit, group, self._now)
                limiter = self._limiters[number, group] = Limiter(meter, self._call)
            limiters.append(limiter)
        return tuple(limiters)

    def _enqueue(self, queue: GroupQueue, place: list[tuple[Rank, int, GroupQueue]]) -> None:
        queue.place = place
        heappush(place, (queue.tickets[0][0], next(self._numbers), queue))

    def _next_of(self, place: list[tuple[Rank, int, GroupQueue]]) -> GroupQueue | None:
        """Remove and return the best queue of a heap, dropping entries that are out of date."""
        while place:
            rank, _, queue = heappop(place)
            if queue.place is place and queue.tickets[0][0] == rank:
                queue.place = None
                return queue
        return None

    def pop(self, now: float, room: int) -> Sequence[Ticket]:
        self._now = now
        while self._called:
            self._pass_on(self._called.popleft(), now)
        self._expire_timers(now)
        due: list[Ticket] = []
        while len(due) < room:
            queue = self._next_of(self._open)
            if queue is None:
                break
            closed = self._enter(queue, now)
            if closed is None:
                due.append(self._start(queue))
            else:
                self._enqueue(queue, closed.waiting)
            for limiter in queue.limiters:
                self._pass_on(limiter, now)
            if closed is not None and closed.timer is not None and closed.timer <= now:
                break  # reports may show that it is open: get them first, or a queue behind would take the slot
        return due

    def _enter(self, queue: GroupQueue, now: float) -> Limiter | None:
        """Take a start from every limiter of the queue; if one is closed, take none and return it."""
        for limiter in queue.limiters:
            if not limiter.is_open(now):
                return limiter
        taken: list[Limiter] = []
        for limiter in queue.limiters:
            if not limiter.meter.take(now, limiter):  # another run that shares the RateLimit was faster
                for other in taken:
                    other.meter.give_back(other)
                return limiter
            taken.append(limiter)
        return None

    def _start(self, queue: GroupQueue) -> Ticket:
        ticket = heappop(queue.tickets)[1]
        self._drop_withdrawn(queue)
        self._running[ticket[0]] = queue
        rates = [limiter for limiter in queue.limiters if isinstance(limiter.meter, RateLog)]
        if rates:
            self._unreported[ticket[0]] = rates
        if queue.tickets:
            self._enqueue(queue, self._open)
        else:
            del self._queues[queue.groups]
        return ticket

    def _call(self, limiter: Limiter, asked: bool) -> None:
        if asked:
            self._asked = True
        else:
            self._called.append(limiter)
        self._wake()

    def take_request(self) -> bool:
        """Whether, since the last call, another run has asked for starts that this one may hold in vain."""
        asked, self._asked = self._asked, False
        return asked

    def put_back(self, ticket: Ticket, now: float) -> None:
        """Make an attempt ready again that was popped and has not begun."""
        for limiter in self._unreported.pop(ticket[0], ()):
            assert isinstance(limiter.meter, RateLog), "caps are not told of starts"
            limiter.shut_until = limiter.meter.take_back(now, limiter)
        self.ended(ticket[0], now)
        self.push_again(ticket)

    def _pass_on(self, limiter: Limiter, now: float, expired: bool = False) -> None:
        """Let the limiter's next queue try if it is open, or set its timer if it opens by itself. ``expired``: its timer has."""
        if not limiter.waiting:
            return
        if limiter.is_open(now):
            queue = self._next_of(limiter.waiting)
            if queue is not None:
                self._enqueue(queue, self._open)
            return
        at = max(limiter.meter.earliest(now), limiter.shut_until)
        if expired and at <= now and isinstance(limiter.meter, RateLog):
            at = limiter.meter.ask(now, limiter)  # our starts are reported: what is missing is another run's
        if at < inf and (limiter.timer is None or at < limiter.timer):
            limiter.timer = at
            heappush(self._timers, (at, next(self._numbers), limiter))

    def _expire_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, limiter = heappop(self._timers)
            if limiter.timer == at:
                limiter.timer = None
                self._pass_on(limiter, now, True)

    def begun(self, index: int, at: float) -> None:
        """Note the start of an attempt, as its worker has reported it."""
        for limiter in self._unreported.pop(index, ()):
            assert isinstance(limiter.meter, RateLog), "caps are not told of starts"
            limiter.meter.confirm(at, limiter)

    def looked(self, at: float) -> None:
        """Note that every start up to the instant ``at`` has been reported."""
        for limiter in {limiter for limiters in self._unreported.values() for limiter in limiters}:
            assert isinstance(limiter.meter, RateLog), "caps are not told of starts"
            limiter.meter.looked(at, limiter)

    def wants_reports(self, now: float) -> bool:
        """Whether the starts that have happened by now must be reported."""
        if not self._unreported:
            self._asked = False  # there is nothing to report or to give back
            return False
        return self._asked or (bool(self._timers) and self._timers[0][0] <= now)

    def ended(self, index: int, now: float) -> None:
        """Note the end of an attempt, or that it will not begin."""
        for limiter in self._running.pop(index).limiters:
            if isinstance(limiter.meter, Cap):
                limiter.meter.give_back(limiter)
                self._pass_on(limiter, now)

    def settled(self, indices: Sequence[int], started: Sequence[float], now: float) -> None:
        """Note the ends of the last attempts of tasks, which began at these instants."""
        for index, at in zip(indices, started, strict=True):
            self.begun(index, at)
            self.ended(index, now)
            self.forget(index)

    def pause(self, index: int, until: float) -> None:
        """Pause the task's groups under rate limits: an error of the task has said how long to wait."""
        for limiter in self._limiters_of(self._traits[index][1]):
            if isinstance(limiter.meter, RateLog):
                limiter.meter.pause(until)

    def wake_at(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def clear(self, now: float) -> None:
        for index in list(self._unreported):
            self.begun(index, now)
        for table in (
            self._running,
            self._queues,
            self._open,
            self._timers,
            self._traits,
            self._called,
            self._withdrawn,
        ):
            table.clear()
