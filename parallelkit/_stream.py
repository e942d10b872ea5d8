"""Outcomes one by one: the outbox of a stream, and the generator that empties it.

A thread of the run's own drives the loop, so that timeouts and retries go on while the caller is
busy elsewhere. The input is read in the caller's thread all the same, whenever it asks for the next
outcome: database cursors and generators are bound to their thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

from parallelkit._errors import TaskCancelled
from parallelkit._executors._gate import Gate
from parallelkit._intake import Intake, Portion
from parallelkit._ledger import Ledger, numbered
from parallelkit._loop import Loop, Window
from parallelkit._lost import Lost, cancelled, failure
from parallelkit._outcomes import Outcome, Success

T = TypeVar("T")

SLOW = 0.001  # an input that takes longer than this for an item is not read while an outcome is ready


class Outbox:
    """A book whose outcomes leave as soon as their turn comes; it holds none that has been yielded."""

    def __init__(self, clock: Callable[[], float], in_order: bool) -> None:
        self.ready: deque[Outcome[Any, Any]] = deque()
        self.gate = Gate()
        self.stopped: str | None = None
        self._clock = clock
        self.began = clock()
        self._in_order = in_order
        self._next = 0
        self._early: dict[int, Outcome[Any, Any]] = {}
        self._keys: dict[int, tuple[Any, float]] = {}
        self._numbers: dict[int, int] = {}
        self._admitted = 0
        self._parents: dict[int, Any] = {}
        self._settled: list[Outcome[Any, Any]] | None = None

    def admit(self, keys: Sequence[Any] | None, count: int, now: float) -> None:
        """New tasks, with their keys."""
        first = self._admitted
        self._admitted += count
        indices = range(first, first + count)
        for index, key in zip(indices, indices if keys is None else numbered(keys, first), strict=True):
            self._keys[index] = (key, now)

    def enter(self, portion: Portion) -> None:
        """New tasks, just read, or made by ``then``."""
        if portion.parent is not None:
            indices = range(self._admitted, self._admitted + len(portion.items))
            self._parents.update(dict.fromkeys(indices, portion.parent))
        self.admit(portion.keys, len(portion.items), self._clock())

    def keep_settled(self) -> None:
        """From now on, have what is settled at hand for ``then``."""
        self._settled = []

    def take_settled(self) -> list[Outcome[Any, Any]]:
        """The outcomes settled since the last call."""
        settled, self._settled = self._settled or [], []
        return settled

    def unsettled(self) -> list[int]:
        """The tasks that have no outcome yet."""
        return list(self._keys)

    def key(self, index: int) -> Any:
        """The key of a task that is not settled."""
        return self._keys[index][0] if index in self._keys else index

    def succeed(
        self,
        indices: Sequence[int],
        values: Sequence[Any],
        started: Sequence[float],
        ended: Sequence[float],
        workers: Sequence[str],
    ) -> None:
        began, numbers = self.began, self._numbers
        for index, value, start, end, worker in zip(indices, values, started, ended, workers, strict=True):
            key, queued = self._keys.pop(index)
            number = numbers.pop(index, 1) if numbers else 1
            parent = self._parents.pop(index, None) if self._parents else None
            self._put(
                Success(key, index, value, number, queued - began, start - began, end - start, worker, parent)
            )
        self.gate.open()

    def succeed_again(self, index: int, number: int) -> None:
        self._numbers[index] = number

    def fail(self, index: int, lost: Lost) -> None:
        key, queued = self._keys.pop(index)
        self._put(failure(key, index, lost, queued, self.began, self._parents.pop(index, None)))
        self.gate.open()

    def try_again(self, index: int, lost: Lost) -> None:
        """A stream keeps no log of attempts."""

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        for index in indices:
            self.fail(index, cancelled(self.stopped, last.get(index)))

    def _put(self, outcome: Outcome[Any, Any]) -> None:
        if self._settled is not None:
            self._settled.append(outcome)
        if not self._in_order:
            self.ready.append(outcome)
            return
        self._early[outcome.index] = outcome
        while self._next in self._early:
            self.ready.append(self._early.pop(self._next))
            self._next += 1


class HandedSource:
    """Portions that the caller's thread has read, on their way to the thread of the loop."""

    def __init__(self, outbox: Outbox) -> None:
        self.ended = False
        self._outbox = outbox
        self._portions: deque[Portion] = deque()

    @property
    def exhausted(self) -> bool:
        return self.ended and not self._portions

    def hand(self, portion: Portion) -> None:
        """From the caller's thread."""
        self._portions.append(portion)

    def next(self, done: int) -> Portion | None:
        if not self._portions:
            return None
        portion = self._portions.popleft()
        self._outbox.enter(portion)
        return portion


class Stream:
    """Joins the caller's thread, which reads and yields, with the thread that drives the loop."""

    def __init__(
        self, loop: Loop, source: HandedSource, outbox: Outbox, intake: Intake, window: Window
    ) -> None:
        self._loop = loop
        self._source = source
        self._outbox = outbox
        self._intake = intake
        self._window = window
        self._yielded = 0
        self._slow = False
        self._over = False
        self._crash: BaseException | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._drive, name="parallelkit_stream", daemon=True)

    def _drive(self) -> None:
        try:
            self._loop.drive()
        except BaseException as error:
            self._crash = error  # a fault of ours: the caller's thread raises it
        finally:
            self._over = True
            self._outbox.gate.open()

    def outcomes(self) -> Iterator[Outcome[Any, Any]]:
        """Every outcome; starts the thread."""
        self._thread.start()
        ready = self._outbox.ready
        while True:
            if self.is_fork:
                raise RuntimeError("this stream belongs to the process that began it, not to a fork of that")
            self._read()
            if ready:
                self._yielded += 1
                self._intake.forget(ready[0].key)
                yield ready.popleft()  # and keep no reference to it while the caller has it
            elif self._over:
                if not (ready or self._cancel_handed()):
                    break
            elif self._source.ended or not self._room():
                self._outbox.gate.wait(lambda: ready or self._over)
        if self._crash is not None:
            raise self._crash

    def _cancel_handed(self) -> bool:
        """Cancel what was read and came too late for the loop, which has ended; whether there was anything."""
        if self._crash is None:
            while self._source.next(0) is not None:  # so that each has its place in the outbox
                pass
            self._outbox.cancel(self._outbox.unsettled(), {})
        return bool(self._outbox.ready)

    @property
    def is_fork(self) -> bool:
        """Whether this is a copy in a forked process, which has none of the threads and must not touch the workers."""
        return os.getpid() != self._pid

    def _room(self) -> int:
        return self._window.room(self._intake.read_so_far - self._yielded, self._yielded)

    def _read(self) -> None:
        """Read a portion, if it is time to: when a quarter of the window is free, or nothing else is to be done."""
        if self._source.ended or self._over:
            return
        room = self._room()
        if room <= 0 or (self._outbox.ready and (self._slow or room < self._yielded_share())):
            return
        began, before = time.monotonic(), self._intake.read_so_far
        portion = self._intake.read(room)
        count = self._intake.read_so_far - before
        self._slow = time.monotonic() - began > SLOW * max(1, count)
        if portion is not None:
            self._source.hand(portion)
        self._source.ended = self._intake.exhausted
        self._loop.port.wake()

    def _yielded_share(self) -> int:
        ahead = self._intake.read_so_far - self._yielded
        return max(1, (ahead + self._room()) // 4)

    def close(self, reason: str) -> None:
        """Stop the run and wait for its thread, which waits for no task."""
        if self._thread.is_alive():
            self._loop.asked = reason
            self._loop.port.wake()
        if self._thread.ident is not None and not sys.is_finalizing():  # daemon threads are frozen by then
            self._thread.join()

    def rest(self) -> list[Outcome[Any, Any]]:
        """The outcomes that were not yielded, once the stream is closed."""
        rest = list(self._outbox.ready)
        self._outbox.ready.clear()
        return rest


_open: WeakSet[Generator[Any, None, None]] = WeakSet()


def closed_at_exit(stream: Generator[T, None, None]) -> Generator[T, None, None]:
    """The stream itself, which, if it is left behind, is closed while the threads that this takes can still run."""
    _open.add(stream)
    return stream


def _close_all() -> None:
    for stream in list(_open):
        with suppress(ValueError):  # it is being advanced at this moment, by a daemon thread
            stream.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_open.clear)


def stepwise(loop: Loop, outbox: Outbox) -> Iterator[Outcome[Any, Any]]:
    """Every outcome, with the loop driven in the caller's own thread (inline runs)."""
    going = True
    while going or outbox.ready:
        while outbox.ready:
            yield outbox.ready.popleft()
        going = going and loop.step()


def ledger_of(
    outcomes: Sequence[Outcome[Any, Any]], ended_at: float = 0.0, stopped: str | None = None
) -> Ledger:
    """A ledger of outcomes that were never yielded, for the error that ends a stream; it begins at instant 0."""
    ledger = Ledger(stopped=stopped)
    ledger.facts.ended_at = ended_at
    ledger.admit([outcome.key for outcome in outcomes], len(outcomes), 0.0)
    for index, one in enumerate(outcomes):
        ledger.queued[index] = one.queued_at
        if isinstance(one, Success):
            span = (one.started_at,), (one.started_at + one.duration,)
            ledger.succeed((index,), (one.value,), *span, (one.worker,))
            continue
        start = one.started_at
        end = (start or 0.0) + one.duration
        lost = Lost(one.error, one.attempts, start, end, one.worker, one.traceback, one.stack)
        if isinstance(one.error, TaskCancelled):
            lost.error = one.error.__cause__
            ledger.cancel((index,), {index: lost} if one.attempts else {})
        else:
            ledger.fail(index, lost)
    return ledger
