"""The initializer of an engine's threads: each new thread calls it, and has ``START_LIMIT`` for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallelkit._executors._contexts import initialize
from parallelkit._executors._thread._worker import ThreadWorker
from parallelkit._system import monotonic

START_LIMIT = 300.0  # seconds that an initializer may take


class Starts:
    """Which threads are in the initializer, and until when; used under the engine's lock, except for ``run``, ``fail`` and ``len``."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._initializer, self._initargs = initializer, initargs
        self._deadlines: dict[ThreadWorker, float] = {}
        self._breaks: list[Exception] = []

    def __len__(self) -> int:
        return len(self._deadlines)

    def run(self) -> None:
        """In a new thread: call the initializer."""
        assert self._initializer is not None, "a thread without an initializer has nothing to call"
        initialize(self._initializer, self._initargs)

    def begin(self, worker: ThreadWorker) -> None:
        """Note that a thread is about to call it."""
        self._deadlines[worker] = monotonic() + START_LIMIT

    def end(self, worker: ThreadWorker) -> None:
        """Note that a thread has called it, or never will. Idempotent."""
        self._deadlines.pop(worker, None)

    def limit(self) -> float | None:
        """When the first of the threads must be done; None if there are none."""
        return min(self._deadlines.values(), default=None)

    def give_up(self, workers: set[ThreadWorker], abandoned: set[ThreadWorker]) -> None:
        """Count the threads that are in it as abandoned."""
        workers.difference_update(self._deadlines)
        abandoned.update(self._deadlines)
        self._deadlines.clear()

    def fail(self, fate: str, cause: BaseException | None) -> Exception:
        """Note that one has failed; return the error that breaks the engine: of two that fail at once, the first.

        The second would cut off the calls that have begun.
        """
        self._breaks.append(broken(fate, cause))
        return self._breaks[0]


def overran() -> str:
    """What is told of an initializer that was given up."""
    return f"did not end within {START_LIMIT:g} s"


def broken(fate: str, cause: BaseException | None) -> Exception:
    """The error of an engine whose initializer failed: that of a standard pool."""
    from concurrent.futures.thread import BrokenThreadPool

    error = BrokenThreadPool(f"the initializer of a worker thread {fate}")
    error.__cause__ = cause
    return error
