"""Threads that had a lent slot, which was given back: kept for the next one, since the start of a thread takes longer."""

from __future__ import annotations

from collections.abc import Iterator

from parallelkit._executors._thread._worker import ThreadWorker


class Spares:
    """At most ``most`` of them; used under the engine's lock, except for ``in``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: dict[ThreadWorker, None] = {}

    def __contains__(self, worker: object) -> bool:
        return worker in self._threads

    def __iter__(self) -> Iterator[ThreadWorker]:
        return iter(self._threads)

    def add(self, worker: ThreadWorker) -> bool:
        """Keep this thread, unless there are enough; whether it is kept."""
        if len(self._threads) >= self._most:
            return False
        self._threads[worker] = None
        return True

    def discard(self, worker: ThreadWorker) -> None:
        """Keep this thread no longer. Idempotent."""
        self._threads.pop(worker, None)

    def use(self, workers: set[ThreadWorker]) -> bool:
        """Make a worker of the latest one, so that the others may end; False if there is none."""
        for worker in reversed(self._threads):
            worker.gate.open()  # first, as a signal handler may raise: a spare that is woken for nothing ends
            workers.add(worker)
            del self._threads[worker]
            return True
        return False
