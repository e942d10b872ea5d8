"""The caller's own thread as an executor: one attempt after another, for debuggers and tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import Block, Ended, Job, Ticket, call_with, drop_own_frames
from parallelkit._world import World


class InlineEngine:
    """Runs every attempt inside ``wait``. A timeout cannot be enforced here, and is not.

    In a world that a test has staged, the clock says after the attempt whether it was overdue.
    """

    max_workers = 1

    def __init__(self, world: World) -> None:
        self._world = world

    def open(self, job: Job) -> InlinePort:
        """A port that runs its attempts itself."""
        return InlinePort(job, self._world)

    def close(self) -> None:
        """Nothing to close."""


class InlinePort:
    """One attempt at a time: there is room for the next when the last has been reported."""

    def __init__(self, job: Job, world: World) -> None:
        self.failure: Exception | None = None
        self.guard: Callable[[], AbstractContextManager[object]] = nullcontext  # around the caller's own code
        self._world = world
        self._call = call_with(job)
        self._queue: deque[Ticket] = deque()

    def room(self) -> int:
        return 1 - len(self._queue)

    def start(self, tickets: Sequence[Ticket]) -> None:
        self._queue.extend(tickets)

    def wait(self, until: float | None) -> list[Block | Ended]:
        now = self._world.now
        if not self._queue:
            assert until is not None, "nothing runs and nothing is delayed: this would wait for ever"
            self._world.sleep(max(0.0, until - now()))
            return []
        index, number, item, limit = self._queue.popleft()
        value, error, started = None, None, now()
        try:
            with self.guard():
                value = self._call(item)
        except KeyboardInterrupt:
            raise  # this is the caller's thread: the interrupt is the caller's, not the task's
        except BaseException as raised:
            error = drop_own_frames(raised)
        ended = now()
        if self._world.staged and limit is not None and ended - started > limit:
            error = TaskTimeout(f"attempt {number} ran longer than its timeout of {limit:g} s")
            ended = started + limit
        if error is not None:
            return [Ended(index, error, "", started, ended, "inline")]
        return [Block((index,), (value,), (started,), (ended,), ("inline",))]

    def running(self) -> list[tuple[int, float, str]]:
        return []

    def wake(self) -> None:
        """``wait`` never blocks for news: nothing to wake."""

    def close(self) -> None:
        self._queue.clear()
