"""A run's end of an engine that runs coroutines: hands tickets to an event loop or to threads, and returns outcomes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from itertools import count
from math import inf
from typing import Any

from parallelkit._coroutine_functions import is_coroutine_function
from parallelkit._errors import ParallelKitError
from parallelkit._executors._contexts import Variables
from parallelkit._executors._contract import (
    COROUTINE,
    Block,
    Ended,
    Job,
    Port,
    Row,
    Running,
    Ticket,
    call_with,
    drain,
)
from parallelkit._executors._coroutine._event_loop import GRACE, EventLoop, Flight
from parallelkit._executors._coroutine._overdue import SWALLOWED, Deadlines, blocked_by, overran
from parallelkit._executors._thread._lending import take_claim
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._executors._thread._queue import UNLIMITED
from parallelkit._executors._thread._stacks import stack_of
from parallelkit._executors._threads import ThreadEngine
from parallelkit._facts import Facts
from parallelkit._lost import note_where
from parallelkit._raised import drop_frames, is_of_signal
from parallelkit._system import monotonic
from parallelkit._tasks import function_of

JOIN = 3 * GRACE  # seconds for which closed loops are waited for


class CoroutinePort(Port):
    """Hands each ticket to the loop or to the threads.

    While all tickets are of one kind, they are handed over at once, and the loop or the threads queue them: so the run's
    thread need not wake for every start. Of both kinds together, never more than ``max_workers`` are handed over.
    """

    eager = flows = True  # as in threads
    fate = "abandoned"

    def __init__(self, engine: ThreadEngine, threads: ThreadPort, job: Job) -> None:
        self.failure: Exception | None = None
        self.call = call_with(job)
        self._engine, self._threads = engine, threads
        threads.hear_of_room = self.hear_of_room  # type: ignore[method-assign]  # both kinds share the slots
        self._fn, self._label = job.fn, job.label
        self._exact = job.exact or job.wary
        self._variables = Variables(engine, initialized=False)
        self._held: deque[Ticket] = deque()  # handed over to neither, as yet
        self._queue: deque[Ticket] = deque()  # for the loop
        self._out = {True: 0, False: 0}  # coroutines, plain ones: handed over and not reported back
        self._flights: set[Flight] = set()  # attempts that hold a slot
        self._loop: EventLoop | None = None
        self._loops: list[EventLoop] = []
        self._names = map(f"{COROUTINE}{{}}".format, count(1))
        self._free: list[str] = []
        self._deadlines = Deadlines()
        self.late: list[Running] = []  # what ``close`` has cut off
        self._done: deque[Row] = deque()
        self._lost: deque[Ended] = deque()
        self._woken = self._closed = self._begun = False
        self._short = False  # whether the run has tickets left, perhaps, for which there was no slot

    # In the run's thread.

    def room(self) -> int:
        if not self._exact:
            return UNLIMITED
        self._short = True  # before the count, so that whoever frees a slot after it sees this
        given = self._given()
        room = self._engine.capacity() - given
        self._short = room <= 0
        return max(room, 0 if given else 1)  # with one ticket queued, it is noticed that every slot is lost

    def _given(self) -> int:
        """How many tickets were handed over and not reported back."""
        return len(self._held) + sum(self._out.values())

    def start(self, tickets: Sequence[Ticket]) -> None:
        self._held.extend(tickets)
        self._try(self._hand_over)
        self._begun = True

    def _try(self, step: Callable[[], None]) -> None:
        """Do a step that may start a thread; if the system has none left, fail: once some have begun, an error would cost outcomes."""
        try:
            step()
        except (OSError, RuntimeError) as error:  # OSError: it has no descriptors for a loop
            if not self._begun or is_of_signal(error):
                raise
            self._threads.fail(error)

    def _hand_over(self) -> None:
        plain: list[Ticket] = []
        coroutines: list[Ticket] = []
        out, capacity = self._out, self._engine.capacity()
        while self._held:
            kind = self._is_coroutine(self._held[0])
            if out[not kind] and out[True] + out[False] >= capacity:
                break
            (coroutines if kind else plain).append(self._held.popleft())
            out[kind] += 1
        self._threads.start(plain)
        if coroutines:
            self._queue.extend(coroutines)
            self._offer()

    def _is_coroutine(self, ticket: Ticket) -> bool:
        if self._fn is not None:
            return True
        return is_coroutine_function(function_of(ticket[2]))

    def _offer(self) -> None:
        if self._loop is None:
            self._loop = EventLoop(self, f"{self._engine.name_prefix}_loop_{len(self._loops) + 1}")
            self._loops.append(self._loop)
            self._loop.start()
        self._loop.offer()

    def wait(self, until: float | None) -> list[Block | Ended]:
        while True:
            now = monotonic()
            events = self._landed() + self._expire(now)
            look_at = self._deadlines.settle_at(self._check_lost(now))
            over = bool(events or self._woken or self.failure) or (until is not None and now >= until)
            at = now if over else min(look_at, inf if until is None else until)
            plain = self._threads.wait(None if at == inf else at)
            self.failure = self._threads.failure
            self._out[False] -= sum(len(event.indices) if isinstance(event, Block) else 1 for event in plain)
            if plain or over:
                self._woken = False
                return events + plain

    def _landed(self) -> list[Block | Ended]:
        events, ended = drain(self._done, self._lost)
        self._out[True] -= ended
        return events

    def _expire(self, now: float) -> list[Ended]:
        """Cancel overdue attempts, and give up on those that have not ended although they were cancelled."""
        lost = []
        for flight in self._deadlines.overdue(now, len(self._flights)):
            if flight.asked:
                lost += self._give_up(flight, now)
            else:
                flight.asked = True
                flight.loop.cancel(flight)
                self._deadlines.look_again(flight, now + GRACE)
        return lost

    def _give_up(self, flight: Flight, now: float) -> list[Ended]:
        """Abandon an attempt that its cancellation did not end; an empty list if it has just ended after all."""
        blocked = not flight.cancelled
        stack = stack_of(flight.loop.thread) if blocked else flight.stack
        how = blocked_by(flight, self._label) if blocked else SWALLOWED
        error = overran(flight, self._label, how, abandoned=True)
        # It costs a slot, as an abandoned thread does.
        if not self._engine.abandon(flight, flight.claim, now, flight.ticket[3]):  # type: ignore[arg-type]  # no thread
            return []
        self._out[True] -= 1
        self._flights.discard(flight)
        if blocked:
            self._replace(flight.loop)
        if self._queue:
            self._try(self._offer)  # its slot is free
        note_where(error, stack)
        return [Ended(flight.ticket[0], error, "", flight.started, now, flight.worker, stack)]

    def _replace(self, loop: EventLoop) -> None:
        """Leave a blocked loop to itself, and take back what it has not begun."""
        if loop is not self._loop:
            return
        self._loop = None
        loop.retire()
        for flight in sorted(loop.flights.copy(), key=lambda flight: flight.ticket[0], reverse=True):
            if take_claim(flight.unbegun):  # else it has begun
                self._queue.appendleft(flight.ticket)
                self._flights.discard(flight)

    def _check_lost(self, now: float) -> float:
        """As ``ThreadPort._check_engine``, for tickets of both kinds."""
        loss = self._engine.loss
        if loss is None or not self._given():
            return inf
        if now >= loss.until:
            self._threads.fail(loss.error(self._engine.abandoned, "attempts", "could not be ended"))
        return loss.until

    def running(self) -> list[tuple[int, float, str]]:
        flights = [flight for flight in self._flights.copy() if flight.claim]
        begun = [(flight.ticket[0], flight.started, flight.worker) for flight in flights]
        return begun + self._threads.running()

    def stacks(self) -> dict[int, str]:
        """The current stack of each running attempt, by index."""
        places = {flight.ticket[0]: flight.place() for flight in self._flights.copy()}
        return {**places, **self._threads.stacks()}

    def measure(self, facts: Facts) -> None:
        """Record for how long the loops were blocked, and which task blocked one longest."""
        facts.coroutines = bool(self._loops)  # without a loop, there were none
        for loop in self._loops:
            total, longest, index = loop.blocked()
            facts.blocked_seconds += total
            if longest > facts.longest_step:
                facts.longest_step, facts.longest_step_of = longest, index

    def wake(self) -> None:
        self._woken = True
        self._threads.wake()

    def close(self) -> None:
        self._closed = True
        self._held.clear()
        self._queue.clear()
        for flight in self._flights.copy():
            if take_claim(flight.unbegun):
                self._flights.discard(flight)  # it never lands, and refers to its loop: a cycle
            elif take_claim(flight.claim):
                self.late.append((flight.ticket[0], flight.started, flight.worker))
        self._threads.close()
        self.late += self._threads.late
        for loop in self._loops:
            loop.close()

    def join(self) -> None:
        """Wait for the closed loops to end, except for blocked ones, and drop them: each refers to this port, a cycle."""
        until = monotonic() + JOIN  # for all: a function that blocks its loop does so each time
        for loop in self._loops:
            loop.join(until)
        self._loop, self._loops = None, []
        self._threads.hear_of_room = bool  # type: ignore[method-assign, assignment]  # another cycle

    def hear_of_room(self) -> None:
        """In any thread: a slot is free, such as that of an abandoned attempt which has ended after all."""
        loop = self._loop
        if loop is not None and self._queue:
            loop.offer()
        if self._short:
            self._short = False
            self.wake()

    # In the thread of a loop.

    def take(self, loop: EventLoop) -> Flight | None:
        if loop is not self._loop or len(self._flights) >= self._engine.capacity():
            return None
        try:
            ticket = self._queue.popleft()
        except IndexError:
            return None
        flight = Flight(ticket, loop, self._free.pop() if self._free else next(self._names))
        self._flights.add(flight)
        if self._closed:  # read after the addition: ``close`` sees the flight, or we see the flag
            self._flights.discard(flight)
            return None
        return flight

    def context(self) -> Context:
        return self._variables.fresh()

    def begun(self, flight: Flight) -> None:
        limit = flight.ticket[3]
        if limit is not None and self._deadlines.begun(flight, limit):
            self._threads.wake()

    def land(self, flight: Flight, value: Any, error: BaseException | None) -> None:
        index, ended = flight.ticket[0], monotonic()
        self._flights.discard(flight)
        self._free.append(flight.worker)
        if not take_claim(flight.claim):
            self._engine.strike_off(flight)  # type: ignore[arg-type]  # no thread; abandoned, it costs no slot any more
            return
        if flight.cancelled:
            timeout = overran(flight, self._label, "it was cancelled")
            timeout.__cause__ = error and drop_frames(error)  # shows where it was, and how it ended
            self._lost.append(Ended(index, timeout, "", flight.started, ended, flight.worker))
        elif error is not None:
            self._lost.append(Ended(index, drop_frames(error), "", flight.started, ended, flight.worker))
        else:
            self._done.append((index, value, flight.started, ended, flight.worker))
        self._threads.wake()

    def fail(self, error: BaseException) -> None:
        broken = ParallelKitError("the event loop broke")
        broken.__cause__ = error
        self._threads.fail(broken)
