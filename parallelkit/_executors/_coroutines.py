"""Coroutine functions on an event loop of the run's own, and plain ones on threads; they share the slots.

A coroutine can be cancelled, so one that overruns its timeout really ends. One that swallows its
cancellation is abandoned as a thread would be, and a loop that does not even take the cancellation,
because a step of a coroutine blocks it, is left to itself: what had not begun moves to a new one.
"""

from __future__ import annotations

from parallelkit._coroutine_functions import is_coroutine_function
from parallelkit._executors._contract import Job
from parallelkit._executors._coroutine._port import CoroutinePort
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._executors._threads import ThreadEngine


class CoroutineEngine:
    """The threads of a run, and event loops beside them once there are coroutines to run."""

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers
        self._threads = ThreadEngine(max_workers, passing=True)
        self._ports: list[CoroutinePort] = []

    def open(self, job: Job) -> ThreadPort | CoroutinePort:
        """A new port; the threads' own, where no coroutine function can come."""
        threads = self._threads.open(job)
        if job.fn is not None and not is_coroutine_function(job.fn):
            return threads
        port = CoroutinePort(self._threads, threads, job)
        self._ports.append(port)
        return port

    def close(self) -> None:
        """End all threads and loops. A loop that is blocked is left to itself, and ends when it is free."""
        for port in self._ports:
            port.close()
            port.join()
        self._threads.close()
