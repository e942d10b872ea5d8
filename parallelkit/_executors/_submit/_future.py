"""The futures of an executor: a task that waits for one lends its slot, and callbacks cannot keep one from being settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING
from typing import Any, Protocol, TypeVar

from parallelkit._cancelled import TaskCancelled
from parallelkit._conditions import Condition
from parallelkit._executors._contract import Call
from parallelkit._system import monotonic

R = TypeVar("R")


class Awaited(Protocol):
    """The dispatcher, as its futures see it."""

    def lend(self, future: PoolFuture[Any], timeout: float | None) -> list[float] | None:
        """The caller is about to wait for a future; if it is a task that lent its slot, return its claim."""

    def repay(self, future: PoolFuture[Any], lent: list[float] | None = None) -> None:
        """The caller no longer waits: give its slot back."""


class PoolFuture(Future[R]):
    """A future for which a task of the same executor can wait: it lends its slot meanwhile.

    It adds no public names: users note things on futures, and the names must be free (``future.index = 7``).
    """

    def __init__(self, dispatcher: Awaited) -> None:
        super().__init__()
        self._condition = Condition()  # else the thread that hands over calls may wait for ever
        self._dispatcher = dispatcher
        self._index = -1  # that of its ticket, once it was handed over

    def _begin(self) -> bool:
        """Set it to running and return True, at most once; if it was cancelled, notify those who wait and return False."""
        with self._condition:
            return self._state in (PENDING, CANCELLED) and self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """As ``Future.cancel``, but those who wait are told at once, not when a worker comes to it (CPython issue 92001)."""
        cancelled = super().cancel()
        if cancelled:
            self._begin()
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
                    except TimeoutError:  # or ``_cut_off`` has woken all that wait
                        timeout = None if end_at is None else end_at - monotonic()
                        if timeout is not None and timeout <= 0:
                            raise
        finally:
            if lent is not None:
                self._dispatcher.repay(self, lent)

    def _cut_off(self) -> None:
        """Wake those that wait: a task among them was abandoned."""
        with self._condition:
            self._condition.notify_all()


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
        begun = future._begin()
        del future
        return fn(*args, **kwargs) if begun else UNMADE
