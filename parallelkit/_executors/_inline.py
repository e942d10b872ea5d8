"""The engine that runs attempts in the caller's own thread, one after another: for debuggers and tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from parallelkit._executors._contexts import Variables
from parallelkit._executors._contract import Block, Ended, Job, Port, Running, Ticket, call_with
from parallelkit._executors._gate import Gate
from parallelkit._lost import is_a
from parallelkit._raised import drop_frames, is_of_signal
from parallelkit._system import monotonic


class InlineEngine:
    """Runs every attempt inside ``wait``. Timeouts cannot be enforced here, and are not."""

    max_workers = 1

    def open(self, job: Job) -> InlinePort:
        """Open a port, which runs its attempts itself."""
        return InlinePort(job)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class InlinePort(Port):
    """Runs one attempt at a time; there is room for the next once the last was reported."""

    eager = True

    def __init__(self, job: Job) -> None:
        self.failure: Exception | None = None
        self._heard: Callable[[int, float], object] = lambda index, at: None
        self._call, self._guard = call_with(job), job.guard
        self._variables = Variables(InlineEngine(), initialized=False)
        self._queue: deque[Ticket] = deque()
        self._gate = Gate()
        self._woken = False
        self._cut_off: list[Running] = []  # the attempt that Ctrl-C came out of

    def room(self) -> int:
        return 1 - len(self._queue)

    def start(self, tickets: Sequence[Ticket]) -> None:
        self._queue.extend(tickets)

    def wait(self, until: float | None) -> list[Block | Ended]:
        if not self._queue:
            assert until is not None, "nothing runs and nothing is delayed: this would wait for ever"
            self.sleep(max(0.0, until - self.now()))
            return []
        ticket = self._queue.popleft()
        index, started = ticket[0], self.now()
        self._heard(index, started)
        try:
            with self._guard():
                value = self.run(ticket)
        except BaseException as error:
            if ends_program(error):
                self._cut_off.append((index, started, "inline"))
                raise
            return [Ended(index, drop_frames(error), "", started, self.now(), "inline")]
        return [Block((index,), (value,), (started,), (self.now(),), ("inline",))]

    def now(self) -> float:
        """The present instant."""
        return monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until ``wake`` is called, so that Ctrl-C need not wait for the delay of a retry."""
        self._gate.wait(lambda: self._woken, seconds)
        self._woken = False

    def run(self, ticket: Ticket) -> Any:
        """Run one attempt."""
        return self._variables.fresh().run(self._call, ticket[2])

    def running(self) -> list[Running]:
        return list(self._cut_off)

    def announce(self, heard: Callable[[int, float], object]) -> None:
        self._heard = heard

    def wake(self) -> None:
        self._woken = True
        self._gate.open()

    def close(self) -> None:
        self._queue.clear()
        self._cut_off.clear()


QUITS = (("bdb", "BdbQuit"), ("_pytest.outcomes", "Exit"))
"""Raised where ``quit`` was typed into a debugger. As a failure, it would lead to the breakpoint of the next task."""


def ends_program(error: BaseException) -> bool:
    """Whether an error that came out of a task is the caller's, in whose thread it runs: Ctrl-C, or an exit of a signal handler or debugger.

    Another ``Exception`` is the task's even if a signal handler raised it: the task may have set the alarm itself.
    """
    if (type(error).__module__, type(error).__name__) in QUITS:
        return True
    return is_a(error, KeyboardInterrupt) or (not is_a(error, Exception) and is_of_signal(error))
