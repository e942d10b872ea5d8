"""The threads that an engine has had: their numbers, which others get after them, and what they used."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from threading import Thread, current_thread
from time import thread_time
from typing import Protocol


class Numbered(Protocol):
    """A thread of the engine."""

    number: int | None
    thread: Thread


class Roll:
    """Used under the engine's lock, but for ``join``. ``passing``: the ends of all that leave are waited for."""

    def __init__(self, passing: bool) -> None:
        self.passing = passing
        self.cpu_seconds = 0.0  # of those that have left
        self._numbers = count()
        self._free: list[int] = []  # a heap
        self._left: deque[Thread] = deque()  # those of them that may not have ended yet

    def number(self) -> int:
        """The smallest that no thread has."""
        return heappop(self._free) if self._free else next(self._numbers)

    def strike(self, worker: Numbered) -> bool:
        """Take its number from it; False where it has none any more."""
        number, worker.number = worker.number, None
        if number is None:
            return False
        heappush(self._free, number)
        return True

    def leave(self, worker: Numbered) -> None:
        """In a thread that is about to end. Idempotent."""
        if self.strike(worker):
            self.cpu_seconds += thread_time()
            if self.passing:
                while self._left and not self._left[0].is_alive():  # a long run has any number of threads
                    self._left.popleft()
                self._left.append(worker.thread)

    def join(self) -> None:
        """Wait until those that have left are gone."""
        for thread in list(self._left):
            if thread is not current_thread():
                thread.join()
