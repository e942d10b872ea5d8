"""Decides which of the ready attempts may start next: ``Ready`` is the interface, ``Gated`` serves runs with
priorities or limits, and ``Fifo`` (_fifo.py) all others.

In ``Gated``, tasks of the same groups form a *lane*, sorted by priority. A lane is in exactly one place: in
the queue of lanes that may start, or in that of the one gate that holds it up. So a waiting group never
holds up another, and a gate that opens for one start wakes one lane: O(log n) per start.
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
from parallelkit._scheduling._lanes import Gate, Lane, Rank
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
        self._lanes: dict[tuple[Hashable, ...], Lane] = {}
        self._gates: WeakValueDictionary[tuple[int, Hashable], Gate] = WeakValueDictionary()
        self._open: list[tuple[Rank, int, Lane]] = []
        self._timers: list[tuple[float, int, Gate]] = []
        self._running: dict[int, Lane] = {}
        self._withdrawn: set[int] = set()  # still in their lanes: a heap can only drop its head
        self._unreported: dict[int, list[Gate]] = {}  # the rate limits that await the start of a task
        self._called: deque[Gate] = deque()  # at which another run has reported a start or given one back
        self._asked = False  # whether another run waits for starts that this one has not reported
        self._numbers = count()  # breaks ties in the heaps, since lanes cannot be compared

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
        lane = self._lanes.get(groups)
        if lane is None:
            lane = self._lanes[groups] = Lane(groups, self._gates_of(groups))
        rank = (-priority, ticket[0])
        heappush(lane.tickets, (rank, ticket))
        if lane.tickets[0][0] == rank:  # a new head must try: its gate may have opened for a lane behind it
            self._enqueue(lane, self._open)

    def withdraw(self, indices: Collection[int], now: float) -> None:
        self._withdrawn.update(indices)
        for groups in {self._traits[index][1] for index in indices}:
            lane = self._lanes[groups]
            if not self._drop_withdrawn(lane):
                continue
            if lane.tickets:
                assert lane.place is not None, "a lane with tickets stands somewhere between two calls"
                self._enqueue(lane, lane.place)
            else:
                lane.place = None
                del self._lanes[groups]
            for gate in lane.gates:  # one may have opened for what was withdrawn; then another lane may go
                self._pass_on(gate, now)

    def _drop_withdrawn(self, lane: Lane) -> bool:
        """Drop withdrawn attempts from the head of a lane; return whether there were any."""
        before = len(lane.tickets)
        while self._withdrawn and lane.tickets and lane.tickets[0][1][0] in self._withdrawn:
            self._withdrawn.discard(heappop(lane.tickets)[1][0])
        return len(lane.tickets) < before

    def _gates_of(self, groups: tuple[Hashable, ...]) -> tuple[Gate, ...]:
        gates = []
        for number, (limit, group) in enumerate(zip(self._limits, groups, strict=True)):
            if group is None and limit.by is not None:
                continue
            gate = self._gates.get((number, group))
            if gate is None:
                gate = self._gates[number, group] = Gate(meter_for(limit, group, self._now), self._call)
            gates.append(gate)
        return tuple(gates)

    def _enqueue(self, lane: Lane, place: list[tuple[Rank, int, Lane]]) -> None:
        lane.place = place
        heappush(place, (lane.tickets[0][0], next(self._numbers), lane))

    def _next_of(self, place: list[tuple[Rank, int, Lane]]) -> Lane | None:
        """Remove and return the best lane of a heap, dropping entries that are out of date."""
        while place:
            rank, _, lane = heappop(place)
            if lane.place is place and lane.tickets and lane.tickets[0][0] == rank:
                lane.place = None
                return lane
        return None

    def pop(self, now: float, room: int) -> Sequence[Ticket]:
        self._now = now
        while self._called:
            self._pass_on(self._called.popleft(), now)
        self._expire_timers(now)
        due: list[Ticket] = []
        while len(due) < room:
            lane = self._next_of(self._open)
            if lane is None:
                break
            closed = self._enter(lane, now)
            if closed is None:
                due.append(self._start(lane))
            else:
                self._enqueue(lane, closed.waiting)
            for gate in lane.gates:
                self._pass_on(gate, now)
            if closed is not None and closed.timer is not None and closed.timer <= now:
                break  # reports may show that it is open: get them first, or a lane behind would take the slot
        return due

    def _enter(self, lane: Lane, now: float) -> Gate | None:
        """Take a start from every gate of the lane; if one is closed, take none and return it."""
        for gate in lane.gates:
            if not gate.is_open(now):
                return gate
        taken: list[Gate] = []
        for gate in lane.gates:
            if not gate.meter.take(now, gate):  # another run that shares the RateLimit was faster
                for other in taken:
                    other.meter.give_back(other)
                return gate
            taken.append(gate)
        return None

    def _start(self, lane: Lane) -> Ticket:
        ticket = heappop(lane.tickets)[1]
        self._drop_withdrawn(lane)
        self._running[ticket[0]] = lane
        rates = [gate for gate in lane.gates if isinstance(gate.meter, RateLog)]
        if rates:
            self._unreported[ticket[0]] = rates
        if lane.tickets:
            self._enqueue(lane, self._open)
        else:
            del self._lanes[lane.groups]
        return ticket

    def _call(self, gate: Gate, asked: bool) -> None:
        if asked:
            self._asked = True
        else:
            self._called.append(gate)
        self._wake()

    def take_request(self) -> bool:
        """Whether, since the last call, another run has asked for starts that this one may hold in vain."""
        asked, self._asked = self._asked, False
        return asked

    def put_back(self, ticket: Ticket, now: float) -> None:
        """Make an attempt ready again that was popped and has not begun."""
        for gate in self._unreported.pop(ticket[0], ()):
            assert isinstance(gate.meter, RateLog), "caps are not told of starts"
            gate.shut_until = gate.meter.take_back(now, gate)
        self.ended(ticket[0], now)
        self.push_again(ticket)

    def _pass_on(self, gate: Gate, now: float, expired: bool = False) -> None:
        """Let the gate's next lane try if it is open, or set its timer if it opens by itself. ``expired``: its timer has."""
        if not gate.waiting:
            return
        if gate.is_open(now):
            lane = self._next_of(gate.waiting)
            if lane is not None:
                self._enqueue(lane, self._open)
            return
        at = max(gate.meter.earliest(now), gate.shut_until)
        if expired and at <= now and isinstance(gate.meter, RateLog):
            at = gate.meter.ask(now, gate)  # our own starts are reported: the report must be another run's
        if at < inf and (gate.timer is None or at < gate.timer):
            gate.timer = at
            heappush(self._timers, (at, next(self._numbers), gate))

    def _expire_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, gate = heappop(self._timers)
            if gate.timer == at:
                gate.timer = None
                self._pass_on(gate, now, True)

    def begun(self, index: int, at: float) -> None:
        """Note the start of an attempt, as its worker has reported it."""
        for gate in self._unreported.pop(index, ()):
            assert isinstance(gate.meter, RateLog), "caps are not told of starts"
            gate.meter.confirm(at, gate)

    def looked(self, at: float) -> None:
        """Note that every start up to the instant ``at`` has been reported."""
        for gate in {gate for gates in self._unreported.values() for gate in gates}:
            assert isinstance(gate.meter, RateLog), "caps are not told of starts"
            gate.meter.looked(at, gate)

    def wants_reports(self, now: float) -> bool:
        """Whether the starts that have happened by now must be reported."""
        if not self._unreported:
            self._asked = False  # there is nothing to report or to give back
            return False
        return self._asked or (bool(self._timers) and self._timers[0][0] <= now)

    def ended(self, index: int, now: float) -> None:
        """Note the end of an attempt, or that it will not begin."""
        for gate in self._running.pop(index).gates:
            if isinstance(gate.meter, Cap):
                gate.meter.give_back(gate)
                self._pass_on(gate, now)

    def settled(self, indices: Sequence[int], started: Sequence[float], now: float) -> None:
        """Note the ends of the last attempts of tasks, which began at these instants."""
        for index, at in zip(indices, started, strict=True):
            self.begun(index, at)
            self.ended(index, now)
            self.forget(index)

    def pause(self, index: int, until: float) -> None:
        """Pause the task's groups under rate limits: an error of the task has said how long to wait."""
        for gate in self._gates_of(self._traits[index][1]):
            if isinstance(gate.meter, RateLog):
                gate.meter.pause(until)

    def wake_at(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def clear(self, now: float) -> None:
        for index in list(self._unreported):
            self.begun(index, now)
        for table in (
            self._running,
            self._lanes,
            self._open,
            self._timers,
            self._traits,
            self._called,
            self._withdrawn,
        ):
            table.clear()
