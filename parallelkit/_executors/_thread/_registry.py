"""The register of an engine's threads: which are being started, their numbers (used again), and their processor time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from threading import Thread, get_ident

from parallelkit._executors._shared import snapshot
from parallelkit._executors._thread._worker import ThreadWorker


class Registry:
    """Used under the engine's lock, except for ``begin``, ``is_entering`` and ``join``."""

    def __init__(self) -> None:
        self._cpu_seconds = 0.0  # of threads that have left
        self._entering: set[ThreadWorker] = set()
        self._numbers = count()
        self._free: list[int] = []  # a heap
        self._left: deque[Thread] = deque()  # threads that have left and may not have ended yet

    def number(self) -> int:
        """The smallest number that no thread has."""
        return heappop(self._free) if self._free else next(self._numbers)

    def enter(self, worker: ThreadWorker) -> None:
        """Note that a thread is about to be started."""
        self._entering.add(worker)

    def begin(self, worker: ThreadWorker) -> None:
        """Called in a new thread: note that it has begun."""
        self._entering.discard(worker)

    def is_entering(self) -> bool:
        """Whether the calling thread is still being started, so that its starter waits for it."""
        ident = get_ident()
        return any(worker.thread.ident == ident for worker in list(self._entering))

    def forget(self, worker: ThreadWorker) -> bool:
        """Take back a thread's number; False if it has none any more."""
        self._entering.discard(worker)
        number, worker.number = worker.number, None
        if number is None:
            return False
        heappush(self._free, number)
        return True

    def leave(self, worker: ThreadWorker) -> None:
        """Called in a thread that is about to end. Idempotent."""
        if self.forget(worker):
            self._cpu_seconds += time.thread_time()
            while self._left and not self._left[0].is_alive():  # any number of threads may have left
                self._left.popleft()
            self._left.append(worker.thread)

    def cpu_seconds(self, there: Iterable[ThreadWorker]) -> float | None:
        """Processor time of these threads and of all that have left; None if the system does not tell."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return None
        idents = [one.thread.ident for one in there if one.number is not None]
        return self._cpu_seconds + sum(map(_cpu_seconds_of, idents))

    def join(self) -> None:
        """Wait until the threads that have left have ended, except for the calling one."""
        own = get_ident()  # ``current_thread`` no longer knows one that drops its thread-locals
        for thread in snapshot(self._left):
            if thread.ident != own:
                thread.join()


def _cpu_seconds_of(ident: int | None) -> float:
    """Processor time of a thread; 0 if it has not begun or is gone, as all others are in a forked process."""
    try:
        return 0.0 if ident is None else time.clock_gettime(time.pthread_getcpuclockid(ident))
    except OSError:
        return 0.0
