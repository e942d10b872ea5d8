"""The futures of an executor: a task that waits for one lends its slot, and callbacks cannot keep one from being settled."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from copy import copy
from typing import Any, Protocol, TypeVar

from parallelkit._cancelled import TaskCancelled
from parallelkit._executors._contract import Call
from parallelkit._logger import logger
from parallelkit._system import monotonic

R = TypeVar("R")


class Awaited(Protocol):
    """The dispatcher, as its futures see it."""

    def lend(self, future: PoolFuture[Any], timeout: float | None) -> list[float] | None:
        """The caller is about to wait for a future; if it is a task that lent its slot, return its claim."""

    def repay(self, future: PoolFuture[Any], lent: list[float] | None = None) -> None:
        """The caller no longer waits: give its slot back."""


class PoolFuture(Future[R]):
    """A future for which a task of the same executor can wait: it lends its slot meanwhile."""

    def __init__(self, dispatcher: Awaited) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self.index = -1  # that of its ticket, once it was handed over

    def begin(self) -> bool:
        """Set it to running and return True, at most once; if it was cancelled, notify those who wait and return False."""
        with self._condition:
            return self._state in (PENDING, CANCELLED) and self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """As ``Future.cancel``, but those who wait are told at once, not when a worker comes to it (CPython issue 92001)."""
        cancelled = super().cancel()
        if cancelled:
            self.begin()
        return cancelled

    def result(self, timeout: float | None = None) -> R:
        """As ``Future.result``, which overlooks an error whose truth value is false, or raises (CPython issue 132063)."""
        error = self.exception(timeout)
        try:
            if error is None:
                return super().result(0)
            raise error
        finally:
            self = error = None  # type: ignore[assignment]  # noqa: PLW0642  # no cycle through the traceback; IPython reads self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``Future.exception``."""
        end_at = None if timeout is None else monotonic() + timeout
        lent = self._dispatcher.lend(self, timeout)
        try:
            while True:
                with self._condition:
                    if lent is not None and not lent and not self.done():
                        raise TaskCancelled("the task that waits for this call was abandoned")
                    try:
                        return super().exception(timeout)
                    except TimeoutError:  # or ``cut_off`` has woken all that wait
                        timeout = None if end_at is None else end_at - monotonic()
                        if timeout is not None and timeout <= 0:
                            raise
        finally:
            if lent is not None:
                self._dispatcher.repay(self, lent)

    def cut_off(self) -> None:
        """Wake those that wait: a task among them was abandoned."""
        with self._condition:
            self._condition.notify_all()


def must_not_wait() -> RuntimeError:
    """The error of a wait that would never end."""
    return RuntimeError(
        "this thread must not wait for a call to this executor, which could not be made meanwhile: the thread is in a callback "
        "of a future, or in a finalizer (__del__) that interrupted the executor's own work; wait in another thread"
    )


def stopped() -> TaskCancelled:
    """The error of a call that a stop has cut off."""
    return TaskCancelled("Ctrl-C stopped the executor before this call was done")


def copy_of(failure: BaseException) -> BaseException:
    """A copy to raise. The original is kept, and would keep the frames of all who catch it, the executor among their variables."""
    raised = copy(failure)
    raised.__cause__ = failure.__cause__
    return raised.with_traceback(failure.__traceback__)


def is_of_parent(pid: int) -> RuntimeError:
    """The error of a use in a forked child: the executor is that of process ``pid``."""
    return RuntimeError(
        f"this executor belongs to process {pid}, and cannot be used in a forked child (process {os.getpid()}); "
        "make a new executor in the child"
    )


Request = tuple[PoolFuture[Any], Call, object]
"""A submitted call: its future, the call as workers receive it, and the function by which messages name it."""

Flight = tuple[PoolFuture[Any], object]
"""A call that was handed over: its future and its function."""

UNMADE = object()
"""The value of a call that was cancelled before a thread could make it."""


class Making:
    """Makes the call of a future in a thread of the executor, and sets the future to running just before.

    It drops the future then: a call that raises would leave a cycle of the future, its error and the error's frames.
    """

    def __init__(self, future: PoolFuture[Any]) -> None:
        self._future: PoolFuture[Any] | None = future

    def __call__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        future, self._future = self._future, None
        assert future is not None, "a call was made twice"
        begun = future.begin()
        del future
        return fn(*args, **kwargs) if begun else UNMADE


def tell(settle: Callable[[Any], object], ending: Any) -> None:
    """Settle a future. Log an error of a callback that is no ``Exception``, such as SystemExit: it would end the dispatcher's thread."""
    try:
        settle(ending)
    except BaseException:
        logger.exception("a callback of a future raised an error that is no Exception; the executor goes on")


def label(fn: object) -> str:
    """How messages name a call."""
    return f"the call of {getattr(fn, '__qualname__', type(fn).__name__)}"


def to_cancel(flying: dict[int, Flight], inbox: deque[Request], slots: int) -> Iterator[PoolFuture[Any]]:
    """The calls that have not begun, but for as many as there are free slots: a standard pool would have begun those."""
    futures = [
        future for future, _ in list(flying.values())
    ]  # lists, for another thread may change the two meanwhile
    futures += [future for future, _, _ in list(inbox)]
    # Without taking each one's lock, and then from the back: the threads make short calls about as fast.
    states = [future._state for future in futures]
    waiting = [future for future, state in zip(futures, states, strict=True) if state == PENDING]
    kept = set(waiting[: max(0, slots - states.count(RUNNING))])
    return (future for future in reversed(futures) if future not in kept)


def fail(flying: dict[int, Flight], inbox: deque[Request], failure: BaseException) -> None:
    """Fail all calls, whether handed over or not, each with a copy: raised again and again, one would collect all the tracebacks."""
    futures = [*(future for future, _ in flying.values()), *(future for future, _, _ in inbox)]
    flying.clear()
    inbox.clear()
    for future in futures:
        if future.begin() or future.running():
            tell(future.set_exception, copy_of(failure))
