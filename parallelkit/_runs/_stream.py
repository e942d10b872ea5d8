"""The two threads of a stream: one drives the loop, the caller's reads the input and yields outcomes.

The loop has a thread of its own so that timeouts and retries go on while the caller is busy elsewhere. The
input is read in the caller's thread, whenever it asks for the next outcome, because database cursors and
generators are bound to their thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from parallelkit._collector import living, wait_apart
from parallelkit._conditions import Thread
from parallelkit._executors._thread._lending import mark_context
from parallelkit._input._intake import PORTION, Intake
from parallelkit._input._portion import Portion
from parallelkit._input._source import WIDEST, DirectSource, Window
from parallelkit._loop import Loop
from parallelkit._marks import UNSET
from parallelkit._runs._queues import OutcomeQueue, QueuedSource
from parallelkit._system import monotonic

if TYPE_CHECKING:
    from parallelkit._interrupt import Interrupt
    from parallelkit._outcomes import Outcome

T = TypeVar("T")

SLOW = 0.001  # seconds per item: a slower input is not read while an outcome is ready


class Stream:
    """Connects the caller's thread, which reads and yields, with the thread that drives the loop."""

    def __init__(
        self, loop: Loop, source: QueuedSource, queue: OutcomeQueue, intake: Intake, window: Window
    ) -> None:
        self._loop = loop
        self._source = source
        self._queue = queue
        self._intake = intake
        self._window = window
        self._slow = False
        self._over = False
        self._crash: BaseException | None = None
        self._pid = os.getpid()
        self._driver: dict[str, threading.Thread | None] = {}
        intake.ended_early = queue.gate.open
        self._thread: threading.Thread | None = None  # inline, there is none

    def _driven_by(self, claimant: threading.Thread | None) -> threading.Thread | None:
        """The thread that drives the loop: the first call decides, atomically. None: no thread ever will.

        Ctrl-C may interrupt ``Thread.start``; whether the thread exists shows only when it gets here.
        """
        return self._driver.setdefault("driver", claimant)

    def _drive(self) -> None:
        if self._driven_by(self._thread) is None:
            return
        try:
            self._loop.drive()
        except BaseException as error:
            self._crash = error  # a bug of ours: the caller's thread raises it
        finally:
            self._over = True
            self._queue.gate.open()

    def outcomes(self) -> Iterator[Outcome[Any, Any]]:
        """Start the thread, and yield every outcome."""
        context = copy_context()
        context.run(mark_context)  # code called there may wait for the executor that runs the task we are in
        drive = partial(context.run, self._drive)  # because it calls the user's code
        self._thread = Thread(target=drive, name="parallelkit_stream", daemon=True)
        self._thread.start()
        if self._intake.prefetch is not None:
            self._intake.prefetch.wake = self._queue.gate.open
        ready = self._queue.ready
        while True:
            self._check_process()
            self._read()
            if ready:
                for _ in range(self._before_reading()):
                    self._intake.naming.forget(ready[0].key)
                    yield self._queue.take()  # without keeping a reference to it here
                    self._check_process()
                    if not ready:
                        break
            elif self._over:
                if not (ready or self._cancel_handed()):
                    break
            else:
                self._queue.gate.wait(lambda: ready or self._over or self._must_end() or self._may_read())
        if self._crash is not None:
            raise self._crash

    def _must_end(self) -> bool:
        """Whether the loop has ended the input, and waits for this thread to confirm it."""
        return self._intake.exhausted and not self._source.ended

    def _cancel_handed(self) -> bool:
        """Cancel what was handed over too late for the loop, which has ended; return whether an outcome is ready."""
        if self._crash is None:
            while self._source.next(0) is not None:  # admits each to the queue
                pass
            self._queue.cancel_rest()
        return bool(self._queue.ready)

    def _check_process(self) -> None:
        """Raise RuntimeError in a forked process, which has none of the threads and must leave the workers alone."""
        if os.getpid() != self._pid:
            raise RuntimeError("this stream belongs to the process that began it, not to a forked child")

    def _room(self) -> int:
        yielded = self._queue.input_yielded
        return self._window.room(self._intake.read_so_far - yielded, yielded)

    def _may_read(self) -> bool:
        """Whether reading is possible, and, as far as the input can tell, without waiting."""
        return not self._intake.exhausted and self._room() > 0 and self._intake.ready

    def _read(self) -> None:
        """Read a portion if a quarter of the window is free, or if no outcome is ready."""
        if self._source.ended or self._over:
            return
        if not self._intake.exhausted:  # an error in ``then`` exhausts it, too
            can_wait = self._queue.ready and (self._slow or self._room() < self._yielded_share())
            if can_wait or not self._may_read():
                return
            self._hand_over(self._room())
        self._source.ended = self._intake.exhausted
        self._loop.port.wake()

    def _hand_over(self, room: int) -> None:
        began, before = monotonic(), self._intake.read_so_far
        if not self._intake.may_block:
            self._hand(self._intake.read(room))
        elif self._intake.flows:
            for key, item in self._intake.flow(room):
                self._source.hand_item(key, item)
                self._loop.port.wake()  # the input may wait for the task of its last item
        else:
            while self._hand(self._intake.read(1)) and self._intake.read_so_far - before < room:
                self._loop.port.wake()
                if monotonic() - began >= PORTION:
                    break
        count = self._intake.read_so_far - before
        self._slow = monotonic() - began > SLOW * max(1, count)

    def _hand(self, portion: Portion | None) -> bool:
        if portion is None:
            return False
        self._source.hand(portion)
        return True

    def _before_reading(self) -> int:
        """How many outcomes can be yielded before ``_read`` need be called again."""
        if self._source.ended:
            return len(self._queue.ready)
        return max(1, self._yielded_share() - self._room())

    def _yielded_share(self) -> int:
        ahead = self._intake.read_so_far - self._queue.input_yielded
        return max(1, (ahead + self._room()) // 4)

    def close(self, reason: str, unseen: bool = False) -> None:
        """Stop the run and wait for its thread. Inline, there is no thread. ``unseen``: nobody will ask for the ``rest``.

        The thread waits for no task, only for user code that it is in (``then``, ``on_event``, ``retries``,
        pickling): returning while that still runs would be worse.
        """
        if self._driven_by(None) is None and self._loop.scheduler.open:
            self._loop.stop(reason)
        thread = self._thread
        if thread is None or not thread.is_alive():  # one that has yet to begin ends without driving the loop
            return
        self._loop.unseen = unseen
        self._loop.ask_to_stop(reason)
        # The garbage collector may close a stream in any thread, also in the run's own.
        if thread.ident != threading.get_ident() and not sys.is_finalizing():  # else it is frozen
            thread.join()

    def rest(self) -> list[Outcome[Any, Any]]:
        """The outcomes that have not been yielded; call it after ``close``."""
        self._cancel_handed()
        return list(self._queue.ready)


class HeldSource(DirectSource):
    """The source of an inline stream; tasks that are done and not yet yielded still count as read ahead."""

    def __init__(
        self,
        intake: Intake,
        window: Window,
        interrupt: Interrupt,
        admit: Callable[[Portion], None],
        queue: OutcomeQueue,
    ) -> None:
        super().__init__(intake, window, interrupt, admit)
        self.queue = queue

    def _room(self, ahead: int) -> int:
        return DirectSource._room(self, self.intake.read_so_far - self.queue.input_yielded)


_open: WeakValueDictionary[int, Generator[Any, None, None]] = WeakValueDictionary()  # by their ``id``


def closed_at_exit(stream: Generator[T, None, None]) -> Generator[T, None, None]:
    """Return the stream; at exit, close it if it is still open, while the threads that this needs still run."""
    _open[id(stream)] = stream
    return stream


def _close_all() -> None:
    with ExitStack() as rest:  # closes the others even if one raises, as its input may
        rest.callback(wait_apart)  # for streams that the garbage collector is closing
        for stream in living(_open):
            rest.callback(_close_idle, stream)


def _close_idle(stream: Generator[Any, None, None]) -> None:
    with suppress(ValueError):  # a daemon thread is in its ``next()`` at this moment
        stream.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_open.clear)


def stepwise(loop: Loop, queue: OutcomeQueue, intake: Intake) -> Iterator[Outcome[Any, Any]]:
    """Yield every outcome, driving the loop in the caller's thread (inline runs)."""
    going = True
    while going or queue.ready:
        yield from emptied(queue, intake)
        going = going and loop.step()


def unread(
    intake: Intake, queue: OutcomeQueue, enter: Callable[[Portion], None]
) -> Iterator[Outcome[Any, Any]]:
    """After a stop: yield the rest of a sized input as cancelled. It is read only if keys are made of its items."""
    keyed = intake.keys is None and (intake.keyed or intake.shape.tasks)
    for portion in iter(partial(intake.read, WIDEST), None) if keyed else unread_places(intake):
        enter(portion)
        queue.cancel_rest()
        yield from emptied(queue, intake)


def unread_places(intake: Intake) -> Iterator[Portion]:
    """The unread tasks of a sized input, in portions, without their items, which may take long to read."""
    left = intake.count_unread()
    while left:
        count = min(left, WIDEST)
        keys = intake.unread_keys(count)
        yield Portion([UNSET] * count, None if keys is None else list(keys))
        intake.read_so_far += count
        left -= count
    intake.exhausted = True


def emptied(queue: OutcomeQueue, intake: Intake) -> Iterator[Outcome[Any, Any]]:
    """Yield what is ready, keeping no reference to what has been yielded."""
    while queue.ready:
        intake.naming.forget(queue.ready[0].key)
        yield queue.take()
