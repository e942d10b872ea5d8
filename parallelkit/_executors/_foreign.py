"""Runs on any ``concurrent.futures.Executor``, and promises no more than such a pool can keep.

Such a pool cannot kill a call, nor, unless it is of threads, say when one began. So at most ``max_workers``
attempts are in flight, and each counts as started when it is handed over (in threads, when it begins). An
attempt past its timeout is reported at once, and holds its slot until it really ends; one that has not even
begun so long after its hand-over is withdrawn. The run ends once overdue attempts hold every slot and none
returns within one more timeout. The pool is never shut down from here.
"""

from __future__ import annotations

import concurrent.futures  # from which ProcessPoolExecutor is taken only when needed: it loads multiprocessing
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from itertools import count
from typing import Any

from parallelkit._errors import ParallelKitError, TaskTimeout
from parallelkit._executors._contexts import Variables
from parallelkit._executors._contract import Block, Ended, Job, Port, Running, Ticket, call_with, timed_out
from parallelkit._executors._foreign_calls import (
    as_future,
    as_report,
    broken_value,
    dropped,
    opened,
    our_time,
    run_sealed,
    sealed,
    timed,
)
from parallelkit._executors._gate import Gate
from parallelkit._executors._greenlets import refuse_deaf_pool
from parallelkit._executors._process._packing import refusal
from parallelkit._numbers import as_whole
from parallelkit._raised import describe_error, is_interrupt, is_of_signal
from parallelkit._system import monotonic
from parallelkit._worker._editions import Editions
from parallelkit._worker._travel import pack

_serials = count()  # see ``run_sealed``


def _is_of_threads(executor: Executor) -> bool:
    """Whether its calls see the objects of this interpreter. Those of Python 3.14's InterpreterPoolExecutor do not, though it is derived."""
    loaded = sys.modules.get("concurrent.futures.interpreter")
    is_apart = loaded is not None and isinstance(executor, loaded.InterpreterPoolExecutor)
    return isinstance(executor, ThreadPoolExecutor) and not is_apart


class ForeignEngine:
    """A pool that the caller owns."""

    def __init__(self, executor: Executor, max_workers: int | None) -> None:
        refuse_deaf_pool(executor)
        width = max_workers or as_whole(getattr(executor, "_max_workers", None))
        if not width:
            raise ValueError(
                f"max_workers must be given for {type(executor).__name__}, which does not say how many workers it has"
            )
        self.max_workers = width
        self.executor = executor

    def open(self, job: Job) -> ForeignPort:
        """A new port."""
        return ForeignPort(self, job)

    def close(self) -> None:
        """Do nothing: the pool is the caller's."""


class ForeignPort(Port):
    """A run's port on a foreign pool."""

    def __init__(self, engine: ForeignEngine, job: Job) -> None:
        self.failure: Exception | None = None
        self._engine = engine
        self._job = job
        self._sealed = None if _is_of_threads(engine.executor) else sealed(job)
        self._call = call_with(job)
        self._variables = Variables(engine, initialized=False)  # the caller's
        self._flights: dict[Future[Any], Flight] = {}
        self._overdue: set[Future[Any]] = set()  # past their timeout, not cancellable, not ended
        self._patience = 0.0  # the timeout of the last attempt that became overdue
        self._lost_at: float | None = None  # while overdue ones hold every slot: when the run gives up
        self._landed: deque[Future[Any]] = deque()
        self._kept: list[Block | Ended] = []  # for the next ``wait``
        self.late: list[Running] = []  # what ``close`` has cut off
        self._gate = Gate()
        self._woken = False
        self._name = type(engine.executor).__name__

    def room(self) -> int:
        return self._engine.max_workers - len(self._flights) - len(self._overdue)

    def give_back(self) -> list[Ticket]:
        """Remove and return what has not begun, as far as the pool lets go of it, for a run that asks for these starts."""
        unbegun = [future for future, flight in self._flights.items() if not flight[2]]
        return [self._flights.pop(future)[0] for future in unbegun if future.cancel()]

    def start(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            claim: list[float] = []
            try:
                call = self._call_of(ticket[2], claim)
            except BaseException as error:  # an item that cannot be pickled
                if is_interrupt(error):
                    raise
                self._kept.append(refusal(ticket, self._job, error))
                continue
            handed = monotonic()
            try:
                future = as_future(self._engine.executor.submit(*call), self._name)
            except Exception as error:
                if is_of_signal(error):
                    raise
                if isinstance(error, RuntimeError):  # broken, or shut down: the run ends
                    self.failure = error
                    if isinstance(error, BrokenExecutor) and self._sealed is not None:  # threads go on
                        self._lose(error)
                    return
                # The pool would not take it another time either.
                self._kept.append(Ended(ticket[0], error, "", None, monotonic(), None, final=True))
                continue
            if self._sealed is not None:  # nobody will say when it begins
                claim.append(monotonic())
            self._flights[future] = (ticket, handed, claim)
            future.add_done_callback(self._land)

    def _lose(self, error: BrokenExecutor) -> None:
        """Report what was in flight when the pool broke; its futures may hear of that only later."""
        for future, (ticket, handed, _) in list(self._flights.items()):
            if not future.done():
                del self._flights[future]
                died = self._died(error)
                self._kept.append(Ended(ticket[0], died, "", handed, monotonic(), self._name, final=True))

    def _call_of(self, item: Any, claim: list[float]) -> tuple[Any, ...]:
        if self._sealed is None:
            return self._variables.call, timed, self._call, item, claim
        return run_sealed, self._sealed, pack(item, editions=Editions()), next(_serials)

    def _land(self, future: Future[Any]) -> None:
        self._landed.append(future)
        self._gate.open()

    def wait(self, until: float | None) -> list[Block | Ended]:
        while True:
            events = self._collect()
            now = monotonic()
            events += self._expire(now)
            self._check_lost(now)
            if events or self._woken or self.failure is not None or (until is not None and now >= until):
                self._woken = False
                return events
            ends = (until, self._lost_at, *map(due_at, self._flights.values()))
            instants = [at for at in ends if at is not None]
            self._gate.wait(self._news, min(instants) - now if instants else None)

    def _news(self) -> bool:
        return bool(self._landed or self._woken)

    def _collect(self) -> list[Block | Ended]:
        events, self._kept = self._kept, []
        while self._landed:
            future = self._landed.popleft()
            if future in self._overdue:
                self._overdue.discard(future)
                self._lost_at = None
                self._woken = True  # there is room, and no event that says so
            flight = self._flights.pop(future, None)
            if flight is not None and (event := self._event(future, flight)) is not None:
                events.append(event)
        return events

    def _event(self, future: Future[Any], flight: Flight) -> Block | Ended | None:
        """How a call has ended; None if the pool has dropped it before it began: then the run fails."""
        (index, _, _, _), handed, claim = flight
        try:
            started, ended, ok, value = report = as_report(future.result())
        except BaseException as error:
            if is_of_signal(error):
                raise
            # Attempts never raise (see ``timed``): this is the pool's own failure.
            if not claim or never_began(future, self._engine.executor):
                self.failure = dropped(error, self._name)
                return None
            lost = isinstance(error, BrokenExecutor) and not self._takes_calls()  # then a retry has no pool
            return Ended(index, self._died(error), "", handed, monotonic(), self._name, final=lost)
        text, final = "", False
        if self._sealed is None:
            report.clear()  # no cycle: an error refers to the pool's frames, these to the future, this to the report
        else:
            started, ended = our_time(started, ended, handed, monotonic())
            try:
                value, text, final = opened(ok, value, lambda: self._job.label(index))
            except BaseException as error:
                if is_of_signal(error):
                    raise
                ok, value, final = False, broken_value(self._job.label(index), error), True
        if ok:
            return Block((index,), (value,), (started,), (ended,), (self._name,))
        return Ended(index, value, text, started, ended, self._name, final=final)

    def _takes_calls(self) -> bool:
        """Whether a pool that broke takes calls nevertheless, as one does that starts new workers."""
        try:
            self._engine.executor.submit(bool).cancel()
        except Exception as error:
            if is_of_signal(error):
                raise
            return False
        return True

    def _died(self, error: BaseException) -> Exception:
        from parallelkit._died import WorkerDied

        text = f"the {self._name} broke while this task was in flight: {describe_error(error)}"
        died = WorkerDied(text, may_have_run=True)
        died.__cause__ = error
        return died

    def _expire(self, now: float) -> list[Block | Ended]:
        overdue: list[Block | Ended] = []
        for future, flight in list(self._flights.items()):
            due = due_at(flight)
            if due is None or now < due:
                continue
            if future.done():
                self._land(future)  # in time, but its pool makes the callback late, or never
                continue
            (index, _, _, limit), handed, claim = flight
            assert limit is not None, "only what has a timeout is due"
            withdrawn = future.cancel()
            if not withdrawn:
                if not claim:
                    claim.append(now)  # it begins at this moment
                if now < claim[0] + limit:
                    continue  # it has begun since we looked
            del self._flights[future]
            if not withdrawn:
                self._overdue.add(future)
                self._patience = limit
            error = overran(self._job.label(index), limit, self._name, withdrawn)
            overdue.append(Ended(index, error, "", claim[0] if claim else handed, now, self._name))
        return overdue

    def _check_lost(self, now: float) -> None:
        """If calls past their timeout hold every slot, give them one more timeout, then fail."""
        if len(self._overdue) < self._engine.max_workers:
            return
        if self._lost_at is None:
            self._lost_at = now + self._patience
        elif now >= self._lost_at:
            self.failure = ParallelKitError(
                f"every slot is lost: {len(self._overdue)} calls overran their timeout, a {self._name} "
                f"cannot end them, and none returned within {self._patience:g} s more"
            )

    def running(self) -> list[tuple[int, float, str]]:
        return [
            (ticket[0], claim[0], self._name)
            for future, (ticket, _, claim) in self._flights.items()
            if claim and not never_began(future, self._engine.executor)
        ]

    def wake(self) -> None:
        self._woken = True
        self._gate.open()

    def close(self) -> None:
        self._kept = self._collect()  # what had ended before is final
        for future, (ticket, handed, claim) in self._flights.items():
            if not future.cancel():
                self.late.append((ticket[0], claim[0] if claim else handed, self._name))
        self._flights.clear()


Flight = tuple[Ticket, float, list[float]]
"""A ticket, the instant of its hand-over, and that of its start in a list, which is empty until then."""


def due_at(flight: Flight) -> float | None:
    """When an attempt becomes overdue; None if it has no timeout."""
    (_, _, _, limit), handed, claim = flight
    return None if limit is None else (claim[0] if claim else handed) + limit


def never_began(future: Future[Any], pool: Executor) -> bool:
    """Whether a call was surely cancelled before it began; pools of other kinds, such as dask's, also cancel what runs."""
    return future.cancelled() and isinstance(pool, concurrent.futures.ProcessPoolExecutor)


def overran(label: str, limit: float, pool: str, withdrawn: bool) -> TaskTimeout:
    """The error of an attempt that overran its timeout; ``withdrawn``: that had not even begun."""
    if withdrawn:
        return TaskTimeout(f"{label} waited for its timeout of {limit:g} s in a busy {pool}, unbegun")
    return timed_out(label, limit, f"a {pool} cannot end it")
