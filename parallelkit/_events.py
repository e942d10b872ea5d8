"""Events of a run, reported as they happen (``on_event``): ``Event``, and the observer that reports them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from parallelkit._book import Failed, News
from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import COROUTINE, Block
from parallelkit._logger import logger
from parallelkit._lost import is_a
from parallelkit._public import public
from parallelkit._raised import is_of_signal

K = TypeVar("K")

Kind: TypeAlias = Literal[
    "started", "succeeded", "failed", "retrying", "waiting", "abandoned", "worker_started", "worker_died"
]


@public
@dataclass(frozen=True, slots=True)
class Event(Generic[K]):
    """One thing that happened in a run.

    ``kind`` is one of these:

    - "started": an attempt started.
    - "succeeded", "failed": a task has its outcome. When the run is stopped, a task that had started "failed"
      with ``TaskCancelled``. A task that never started, or whose outcome came from a checkpoint, has no event.
    - "retrying": an attempt failed with ``error``, and the task is tried again in ``delay`` seconds.
    - "waiting": the task was told to wait for ``delay`` seconds; the attempt does not count.
    - "worker_started" (it started its first attempt of the run), "worker_died" (its process ended or was killed
      during an attempt), "abandoned" (it was left running): only about a worker, so
      ``key``, ``index`` and ``attempt`` are None. Workers that end normally have no event.

    ``at``: seconds since the run began. ``duration``: seconds that the attempt ran.
    """

    kind: Kind
    at: float
    key: K | None = None
    index: int | None = None
    attempt: int | None = None
    worker: str | None = None
    duration: float | None = None
    delay: float | None = None
    error: BaseException | None = None


class Observer:
    """Passes events to the caller's function. If that raises, the error is logged and it is not called again."""

    LOOK = 0.004  # seconds from the last news until starts are looked for; doubled after each look

    def __init__(
        self,
        tell: Callable[[Event[Any]], object],
        key: Callable[[int], Any],
        began: float,
        fate: Kind | None = None,
    ) -> None:
        self._tell = tell
        self._fate = fate  # what a stop of the run does to the worker of a running attempt
        self._key = key
        self._began = began
        self._keys: dict[int, Any] = {}  # of open tasks: a stream forgets the key of what it has yielded
        self._begun: dict[int, float] = {}  # the instants of "started", as passed on, of running tasks
        self._tries: dict[int, int] = {}  # failed attempts of each open task, if any
        self._workers: set[str] = set()
        self._deaf = False
        self._pause = self.LOOK

    def look_at(self, now: float, until: float | None, stirred: bool) -> float | None:
        """When to wake up: at ``until``, or before it to look for starts, which no worker announces.

        A start may be long in coming, where the worker has to load the function first. ``stirred``: something
        has just happened. While nothing does, looks become rarer; once all open tasks run there are none.
        """
        if stirred:
            self._pause = self.LOOK
        if self._deaf or len(self._begun) >= len(self._keys):
            return until
        at = now + self._pause
        self._pause *= 2
        return at if until is None else min(until, at)

    def admitted(self, indices: Iterable[int]) -> None:
        """These tasks may start from now on."""
        self._keys.update((index, self._key(index)) for index in indices)

    def begun(self, running: Iterable[tuple[int, float, str]]) -> None:
        """These attempts run now."""
        for index, started, worker in running:
            if index not in self._begun:
                self._start(index, started, worker)

    def _start(self, index: int, started: float, worker: str) -> None:
        if worker not in self._workers:
            self._workers.add(worker)
            self._say("worker_started", started, worker=worker)
        self._begun[index] = started
        self._about("started", index, started, worker=worker)

    def ended(self, news: Iterable[News]) -> None:
        """These attempts have ended."""
        for one in news:
            if isinstance(one, Block):
                for index, start, end, worker in zip(
                    one.indices, one.started, one.ended, one.workers, strict=True
                ):
                    at = max(end, self._end(index, start, worker))
                    self._about("succeeded", index, at, worker=worker, duration=end - start)
                    self._forget(index)
            else:
                self._failed(one)

    def _end(self, index: int, started: float | None, worker: str | None) -> float:
        """Note the end of an attempt; return when it started, as was told: a pool may have been late to say that."""
        if started is not None and worker is not None and index not in self._begun:
            self._start(index, started, worker)
        return self._begun.pop(index, -inf)

    def _failed(self, one: Failed) -> None:
        lost, index = one.lost, one.index
        at = max(lost.ended, self._end(index, lost.started, lost.worker))
        self._about_worker(one)
        duration = None if lost.started is None else lost.ended - lost.started
        self._tries[index] = max(lost.number - one.counted, 0)  # also if the last attempt was told before
        kind: Kind = "failed" if one.delay is None else "retrying" if one.counted else "waiting"
        self._about(kind, index, at, worker=lost.worker, duration=duration, delay=one.delay, error=lost.error)
        if one.delay is None:
            self._forget(index)
        else:
            self._tries[index] = lost.number

    def _forget(self, index: int) -> None:
        del self._keys[index]
        self._tries.pop(index, None)

    def _about_worker(self, one: Failed) -> None:
        fate, worker = self._fate_of(one), one.lost.worker
        if fate is not None and worker is not None:
            self._say(fate, one.lost.ended, worker=worker, error=one.lost.error)
            self._workers.discard(worker)

    def _fate_of(self, one: Failed) -> Kind | None:
        """What became of the worker of a failed attempt; None if it lives on."""
        lost, error = one.lost, one.lost.error
        if one.cut_off:
            return None if lost.worker is not None and lost.worker.startswith(COROUTINE) else self._fate
        if lost.raised:  # by the task: a TaskTimeout or WorkerDied of a run within it is not about its worker
            return None
        if is_a(error, TaskTimeout) and error.abandoned:
            return "abandoned"
        killed = is_a(error, TaskTimeout) and error.killed
        return "worker_died" if killed or type(error).__name__ == "WorkerDied" else None

    def _about(self, kind: Kind, index: int, at: float, **more: Any) -> None:
        self._say(kind, at, key=self._keys[index], index=index, attempt=self._tries.get(index, 0) + 1, **more)

    def _say(self, kind: Kind, at: float, **more: Any) -> None:
        if self._deaf:
            return
        try:
            self._tell(Event(kind, at - self._began, **more))
        except Exception as error:
            if is_of_signal(error):
                raise
            self._deaf = True
            logger.warning("on_event failed and is not called again; the run goes on", exc_info=True)
