"""Coroutine functions on an event loop of the run's own, and plain functions on threads; both share the slots.

A coroutine can be cancelled, so one that overruns its timeout really ends. One that swallows the cancellation is
abandoned, as a thread would be. If a coroutine blocks its loop, so that no cancellation gets through, the loop is
abandoned, and what had not begun there moves to a new loop.
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
        """Open a port; a plain thread port if no task can be a coroutine function."""
        threads = self._threads.open(job)
        if job.fn is not None and not is_coroutine_function(job.fn):
            return threads
        port = CoroutinePort(self._threads, threads, job)
        self._ports.append(port)
        return port

    def close(self) -> None:
        """End all threads and loops. A blocked loop is left to itself, and ends once it is free."""
        for port in self._ports:
            port.close()
            port.join()
        self._threads.close()
