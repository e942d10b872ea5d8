"""The attempts that are ready: which of them may start next. ``Fifo`` (_fifo.py) is for the ordinary run,
``Gated`` where priorities or limits decide.

In ``Gated`` tasks of the same groups form a *lane*, sorted by priority. A lane stands in one place: in
the queue of those that may start, or waiting at the one gate that holds it up; so a waiting group
never holds up another, and a gate that opens for one start wakes one lane: O(log n) a start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary

from parallelkit._executors._contract import Ticket
from parallelkit._lanes import Gate, Lane, Rank
from parallelkit._limits import Limit, meter_for
from parallelkit._meters import Cap, RateLog


class Ready(Protocol):
    """What the scheduler asks of either queue."""

    def push(self, tickets: Sequence[Ticket]) -> None:
        """Attempts become ready, behind those that are."""

    def push_again(self, ticket: Ticket) -> None:
        """An attempt that is not a task's first becomes ready."""

    def pop(self, now: float, room: int) -> Sequence[Ticket]:
        """Up to ``room`` attempts that may start now."""

    def withdraw(self, indices: Collection[int], now: float) -> None:
        """Take back attempts that came by ``push_again`` and have not been popped."""

    def begun(self, index: int, at: float) -> None:
        """The worker of an attempt has reported its start."""

    def looked(self, at: float) -> None:
        """Every start was reported that had happened by then."""

    def wants_reports(self, now: float) -> bool:
        """Whether a start must be known now, if it has happened."""

    def ended(self, index: int, now: float) -> None:
        """An attempt is over."""

    def wake_at(self) -> float | None:
        """When something may start that may not now."""

    def clear(self, now: float) -> None:
        """Forget all that is ready, and all that runs."""


class Gated:
    """Larger priorities first, exactly, ties in input order; every limit kept."""

    def __init__(
        self, limits: Sequence[Limit], clock_now: float = 0.0, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._limits = limits
        self._wake = wake  # from any thread: the run shall look what may start
        self._now = clock_now
        self._traits: dict[int, tuple[float, tuple[Hashable, ...]]] = {}
        self._lanes: dict[tuple[Hashable, ...], Lane] = {}
        self._gates: WeakValueDictionary[tuple[int, Hashable], Gate] = WeakValueDictionary()
        self._open: list[tuple[Rank, int, Lane]] = []
        self._timers: list[tuple[float, int, Gate]] = []
        self._flying: dict[int, Lane] = {}
        self._gone: set[int] = set()  # withdrawn, and still in their lanes: a heap gives up its head alone
        self._silent: dict[int, list[Gate]] = {}  # the rates to which a start has not been reported
        self._called: deque[Gate] = deque()
        self._numbers = count()  # breaks ties in the heaps, where lanes cannot be compared

    def describe(self, index: int, priority: float, groups: tuple[Hashable, ...]) -> None:
        """What is known of a task before it is pushed; kept until ``forget``."""
        self._traits[index] = (priority, groups)

    def forget(self, index: int) -> None:
        """The task is settled."""
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
        if lane.tickets[0][0] == rank:  # a new head; its gate may have opened, and called a lane behind it
            self._stand(lane, self._open)

    def withdraw(self, indices: Collection[int], now: float) -> None:
        self._gone.update(indices)
        for groups in {self._traits[index][1] for index in indices}:
            lane = self._lanes[groups]
            if not self._shed(lane):
                continue
            if lane.tickets:
                assert lane.place is not None, "a lane with tickets stands somewhere between two calls"
                self._stand(lane, lane.place)
            else:
                lane.place = None
                del self._lanes[groups]
            for gate in lane.gates:  # one may have opened for what is gone, and then it is another's turn
                self._pass_on(gate, now)

    def _shed(self, lane: Lane) -> bool:
        """Drop what was withdrawn off the head of a lane; whether there was anything."""
        before = len(lane.tickets)
        while self._gone and lane.tickets and lane.tickets[0][1][0] in self._gone:
            self._gone.discard(heappop(lane.tickets)[1][0])
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

    def _stand(self, lane: Lane, place: list[tuple[Rank, int, Lane]]) -> None:
        lane.place = place
        heappush(place, (lane.tickets[0][0], next(self._numbers), lane))

    def _next_of(self, place: list[tuple[Rank, int, Lane]]) -> Lane | None:
        """Take the best lane out of a heap; entries that are out of date are dropped."""
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
        self._ring_timers(now)
        due: list[Ticket] = []
        while len(due) < room:
            lane = self._next_of(self._open)
            if lane is None:
                break
            closed = self._enter(lane, now)
            if closed is None:
                due.append(self._start(lane))
            else:
                self._stand(lane, closed.waiting)
            for gate in lane.gates:
                self._pass_on(gate, now)
            if closed is not None and closed.timer is not None and closed.timer <= now:
                break  # it may be open: lest a lane behind this one take the slot, have starts reported first
        return due

    def _enter(self, lane: Lane, now: float) -> Gate | None:
        """Take a start from every gate of the lane, or from none: then the one that is closed."""
        for gate in lane.gates:
            if not gate.meter.is_open(now):
                return gate
        taken: list[Gate] = []
        for gate in lane.gates:
            if not gate.meter.take(now, gate):  # another run on the same RateLimit was quicker
                for other in taken:
                    other.meter.give_back(other)
                return gate
            taken.append(gate)
        return None

    def _start(self, lane: Lane) -> Ticket:
        ticket = heappop(lane.tickets)[1]
        self._shed(lane)
        self._flying[ticket[0]] = lane
        rates = [gate for gate in lane.gates if isinstance(gate.meter, RateLog)]
        if rates:
            self._silent[ticket[0]] = rates
        if lane.tickets:
            self._stand(lane, self._open)
        else:
            del self._lanes[lane.groups]
        return ticket

    def _call(self, gate: Gate) -> None:
        self._called.append(gate)
        self._wake()

    def _pass_on(self, gate: Gate, now: float, rang: bool = False) -> None:
        """If the gate is open let the next lane try; if it opens by itself, set the timer, which may have rung."""
        if not gate.waiting:
            return
        if gate.meter.is_open(now):
            lane = self._next_of(gate.waiting)
            if lane is not None:
                self._stand(lane, self._open)
            return
        at = gate.meter.earliest(now)
        if rang and at <= now and isinstance(gate.meter, RateLog):
            at = gate.meter.ask(now, gate)  # we have looked at our own starts: it must be another run's
        if at < float("inf") and (gate.timer is None or at < gate.timer):
            gate.timer = at
            heappush(self._timers, (at, next(self._numbers), gate))

    def _ring_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, gate = heappop(self._timers)
            if gate.timer == at:
                gate.timer = None
                self._pass_on(gate, now, True)

    def begun(self, index: int, at: float) -> None:
        for gate in self._silent.pop(index, ()):
            assert isinstance(gate.meter, RateLog), "caps are not told of starts"
            gate.meter.confirm(at, gate)

    def looked(self, at: float) -> None:
        for gate in {gate for gates in self._silent.values() for gate in gates}:
            assert isinstance(gate.meter, RateLog), "caps are not told of starts"
            gate.meter.looked(at, gate)

    def wants_reports(self, now: float) -> bool:
        if not self._silent:
            return False
        return bool(self._called) or (bool(self._timers) and self._timers[0][0] <= now)

    def ended(self, index: int, now: float) -> None:
        self.begun(index, now)  # where the start was never reported, it is no later than this
        for gate in self._flying.pop(index).gates:
            if isinstance(gate.meter, Cap):
                gate.meter.give_back()
                self._pass_on(gate, now)

    def pause(self, index: int, until: float) -> None:
        """The other side asked the task's rate-limit groups to wait."""
        for gate in self._gates_of(self._traits[index][1]):
            if isinstance(gate.meter, RateLog):
                gate.meter.pause(until)

    def wake_at(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def clear(self, now: float) -> None:
        for index in list(self._silent):
            self.begun(index, now)
        for table in (
            self._flying,
            self._lanes,
            self._open,
            self._timers,
            self._traits,
            self._called,
            self._gone,
        ):
            table.clear()
