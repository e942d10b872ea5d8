"""Any ``concurrent.futures.Executor``: a pass-through that promises what such a pool can keep.

It cannot be told to kill or to say when a task began. So no more than ``max_workers`` attempts are in
flight, which makes the hand-over about the start; an attempt past its timeout is reported, and its
slot stays busy until it really ends. The pool is never shut down from here.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from time import monotonic
from typing import Any

from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import Block, Ended, Job, Ticket, call_with, drop_own_frames
from parallelkit._executors._gate import Gate


class ForeignEngine:
    """Somebody else's pool."""

    def __init__(self, executor: Executor, max_workers: int | None) -> None:
        width = max_workers or getattr(executor, "_max_workers", None)
        if not isinstance(width, int):
            raise ValueError(
                f"max_workers must be given for {type(executor).__name__}, which does not say how many workers it has"
            )
        self.max_workers = width
        self.executor = executor

    def open(self, job: Job) -> ForeignPort:
        """A new port."""
        return ForeignPort(self, job)

    def close(self) -> None:
        """Nothing: the pool is the caller's."""


class ForeignPort:
    """A run's end of a foreign pool."""

    def __init__(self, engine: ForeignEngine, job: Job) -> None:
        self.failure: Exception | None = None
        self._engine = engine
        self._job = job
        self._call = sealed(job) if not isinstance(engine.executor, ThreadPoolExecutor) else None
        self._plain = call_with(job)
        self._flights: dict[Future[Any], tuple[Ticket, float]] = {}
        self._overdue: set[Future[Any]] = set()
        self._landed: deque[Future[Any]] = deque()
        self._failed: list[Ended] = []
        self._gate = Gate()
        self._woken = False
        self._name = type(engine.executor).__name__

    def room(self) -> int:
        return self._engine.max_workers - len(self._flights) - len(self._overdue)

    def start(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            try:
                future = self._submit(ticket)
            except Exception as error:
                self._refuse(ticket, error)
                continue
            self._flights[future] = (ticket, monotonic())
            future.add_done_callback(self._land)

    def _submit(self, ticket: Ticket) -> Future[Any]:
        submit = self._engine.executor.submit
        if self._call is None:
            return submit(copy_context().run, timed, self._plain, ticket[2])
        return submit(run_sealed, self._call, seal(ticket[2]))

    def _refuse(self, ticket: Ticket, error: Exception) -> None:
        """The pool took nothing: broken, shut down, or an item that cannot be pickled."""
        if isinstance(error, (BrokenExecutor, RuntimeError)):
            self.failure = error
        final = not isinstance(error, BrokenExecutor)
        self._failed.append(Ended(ticket[0], error, "", None, monotonic(), None, None, final))

    def _land(self, future: Future[Any]) -> None:
        self._landed.append(future)
        self._gate.open()

    def wait(self, until: float | None) -> list[Block | Ended]:
        while True:
            events = self._collect()
            now = monotonic()
            events += self._expire(now)
            if events or self._woken or self.failure is not None or (until is not None and now >= until):
                self._woken = False
                return events
            instants = [at + limit for (_, _, _, limit), at in self._flights.values() if limit is not None]
            instants += [] if until is None else [until]
            self._gate.wait(self._news, min(instants) - now if instants else None)

    def _news(self) -> bool:
        return bool(self._landed or self._failed or self._woken)

    def _collect(self) -> list[Block | Ended]:
        events: list[Block | Ended] = [*self._failed]
        self._failed.clear()
        while self._landed:
            future = self._landed.popleft()
            self._overdue.discard(future)
            flight = self._flights.pop(future, None)
            if flight is not None:
                events.append(self._event(future, *flight))
        return events

    def _event(self, future: Future[Any], ticket: Ticket, handed: float) -> Block | Ended:
        now = monotonic()
        try:
            started, ended, value = future.result()
            if self._call is not None:
                value = unseal(value)
        except (BrokenExecutor, CancelledError) as error:
            return Ended(ticket[0], self._died(error), "", handed, now, self._name)
        except Exception as error:
            return Ended(ticket[0], drop_own_frames(error), "", handed, now, self._name)
        except BaseException as error:
            return Ended(ticket[0], error, "", handed, now, self._name)
        return Block((ticket[0],), (value,), (started,), (ended,), (self._name,))

    def _died(self, error: BaseException) -> Exception:
        from parallelkit._died import WorkerDied

        died = WorkerDied(f"the {self._name} broke while this task was in flight: {error}", may_have_run=True)
        died.__cause__ = error
        return died

    def _expire(self, now: float) -> list[Block | Ended]:
        overdue: list[Block | Ended] = []
        for future, (ticket, handed) in list(self._flights.items()):
            limit = ticket[3]
            if limit is not None and now >= handed + limit and not future.done():
                del self._flights[future]
                if not future.cancel():
                    self._overdue.add(future)
                message = f"attempt {ticket[1]} ran longer than its timeout of {limit:g} s; a {self._name} cannot end it"
                overdue.append(Ended(ticket[0], TaskTimeout(message), "", handed, now, self._name))
        return overdue

    def running(self) -> list[tuple[int, float, str]]:
        return [(ticket[0], handed, self._name) for ticket, handed in self._flights.values()]

    def wake(self) -> None:
        self._woken = True
        self._gate.open()

    def close(self) -> None:
        for future in list(self._flights):
            future.cancel()
        self._flights.clear()


def timed(call: Callable[[Any], Any], item: Any) -> tuple[float, float, Any]:
    """In a worker: the value of a call, with the instants of its start and end."""
    started = monotonic()
    value = call(item)
    return started, monotonic(), value


def sealed(job: Job) -> bytes:
    """The job as bytes, which any pool can carry whatever its own pickling can do."""
    import cloudpickle

    return cloudpickle.dumps((job.fn, job.args, dict(job.kwargs), job.star))  # type: ignore[no-any-return]  # untyped


def seal(item: Any) -> bytes:
    """An item, or a value, as bytes."""
    import cloudpickle

    return cloudpickle.dumps(item)  # type: ignore[no-any-return]  # untyped


def unseal(payload: bytes) -> Any:
    """The inverse of ``seal``."""
    return pickle.loads(payload)


def run_sealed(job: bytes, item: bytes) -> tuple[float, float, bytes]:
    """In a worker process: run one attempt; errors travel as the pool carries them."""
    started = monotonic()
    call = call_with(Job(*pickle.loads(job)))
    value = seal(call(pickle.loads(item)))
    return started, monotonic(), value
