"""The threads that an engine has had: their starts, their numbers, which others get after them, and what they used."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from threading import Thread, current_thread, get_ident
from typing import Protocol

from parallelkit._executors._thread._stacks import cpu_seconds_of


class Numbered(Protocol):
    """A thread of the engine."""

    number: int | None
    ident: int | None
    thread: Thread


class Roll:
    """Used under the engine's lock, but for what a thread says, or asks, of itself, and ``join``.

    ``passing``: the ends of all that leave are waited for.
    """

    def __init__(self, passing: bool) -> None:
        self.passing = passing
        self._cpu_seconds = 0.0  # of those that have left
        self._entering: set[Numbered] = set()
        self._numbers = count()
        self._free: list[int] = []  # a heap
        self._left: deque[Thread] = deque()  # those of them that may not have ended yet

    def number(self) -> int:
        """The smallest that no thread has."""
        return heappop(self._free) if self._free else next(self._numbers)

    def enter(self, worker: Numbered) -> None:
        """It is about to be started."""
        self._entering.add(worker)

    def begin(self, worker: Numbered) -> None:
        """In a new thread: it has begun."""
        self._entering.discard(worker)

    def is_entering(self) -> bool:
        """Whether the thread that calls is being started, which is what its starter waits for."""
        ident = get_ident()
        return any(worker.thread.ident == ident for worker in list(self._entering))

    def strike(self, worker: Numbered) -> bool:
        """Take its number from it; False where it has none any more."""
        self._entering.discard(worker)
        number, worker.number = worker.number, None
        if number is None:
            return False
        heappush(self._free, number)
        return True

    def leave(self, worker: Numbered) -> None:
        """In a thread that is about to end. Idempotent."""
        if self.strike(worker):
            self._cpu_seconds += time.thread_time()
            if self.passing:
                while self._left and not self._left[0].is_alive():  # a long run has any number of threads
                    self._left.popleft()
                self._left.append(worker.thread)

    def cpu_seconds(self, there: Iterable[Numbered]) -> float | None:
        """Processor time of these and of all that have left; None where the system does not tell."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return None
        idents = [one.ident for one in there if one.number is not None]
        return self._cpu_seconds + sum(map(cpu_seconds_of, idents))

    def join(self) -> None:
        """Wait until those that have left are gone."""
        for thread in list(self._left):
            if thread is not current_thread():
                thread.join()
