"""The futures of an executor: whoever waits for one may lend its slot, and one is settled whatever its callbacks do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING
from typing import Any, Protocol, TypeVar

from parallelkit._executors._contract import Call
from parallelkit._logger import logger

R = TypeVar("R")


class Awaited(Protocol):
    """The desk, as its futures see it."""

    def lend(self, future: DeskFuture[Any], timeout: float | None) -> bool:
        """The caller is about to wait for a future; whether it has lent its slot."""

    def repay(self, future: DeskFuture[Any]) -> None:
        """The caller waits no more."""


class DeskFuture(Future[R]):
    """A future that looks at who waits for it: a task of the same executor lends its slot meanwhile."""

    def __init__(self, desk: Awaited) -> None:
        super().__init__()
        self._desk = desk
        self.index = -1  # once it was handed over, the number of its attempt

    def begin(self) -> bool:
        """Whether its call is to be made: once at most, and not where it was cancelled, which whoever waits is told."""
        with self._condition:
            return self._state in (PENDING, CANCELLED) and self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> R:
        """As ``Future.result``, which would take an error that is false, or has no truth, for none (CPython 132063)."""
        error = self.exception(timeout)
        try:
            if error is None:
                return super().result(0)
            raise error
        finally:
            del self, error  # the frame, which the error's traceback knows, must not know the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``Future.exception``."""
        lent = self._desk.lend(self, timeout)
        try:
            return super().exception(timeout)
        finally:
            if lent:
                self._desk.repay(self)


def must_not_wait() -> RuntimeError:
    """What is said where a wait would have no end."""
    return RuntimeError(
        "this thread must not wait for a call to this executor, for nobody would do it meanwhile: it runs callbacks of futures, "
        "or a finalizer (__del__) in the midst of the executor's own work; submit from here, and wait elsewhere"
    )


Request = tuple[DeskFuture[Any], Call, object]
"""A call on its way to the workers, and its function."""

Flight = tuple[DeskFuture[Any], object]
"""A call that was handed over: the same."""

UNMADE = object()
"""The value of a call that was cancelled before a thread came to make it."""


class Making:
    """The call of a future, in a thread of the executor, which has it begin.

    It knows the future until then and no longer: the frames of a call that raises live in its error, and that in the future.
    """

    def __init__(self, future: DeskFuture[Any]) -> None:
        self._future: DeskFuture[Any] | None = future

    def __call__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        future, self._future = self._future, None
        assert future is not None, "a call was made twice"
        begun = future.begin()
        del future
        return fn(*args, **kwargs) if begun else UNMADE


def tell(settle: Callable[[Any], object], ending: Any) -> None:
    """Settle a future. A callback of its that exits, which no ``except Exception`` holds, ends no other call."""
    try:
        settle(ending)
    except BaseException:
        logger.exception("a callback of a future ended in what is no Exception; the executor goes on")


def label(future: DeskFuture[Any], fn: object) -> str:
    """How messages call it."""
    return f"the call of {getattr(fn, '__qualname__', type(fn).__name__)}"


def cancel_waiting(flying: dict[int, Flight], inbox: deque[Request], slots: int) -> None:
    """Cancel what has not begun, and would not have in a standard pool, where free slots are filled by ``submit``."""
    futures = [future for future, _ in flying.values()]
    free = slots - sum(future.running() for future in futures)
    waiting = [future for future in futures if not (future.running() or future.done())]
    kept = set(waiting[: max(0, free)])
    while inbox:
        futures.append(inbox.popleft()[0])
    for future in futures:
        if future not in kept:
            tell(cancel, future)


def cancel(future: DeskFuture[Any]) -> None:
    """Cancel a future, if it has not begun, and tell those that wait for it."""
    if future.cancel():
        future.begin()


def fail(flying: dict[int, Flight], inbox: deque[Request], failure: BaseException) -> None:
    """Fail all calls, those that were handed over and those that were not."""
    futures = [*(future for future, _ in flying.values()), *(future for future, _, _ in inbox)]
    flying.clear()
    inbox.clear()
    for future in futures:
        if future.begin() or future.running():
            tell(future.set_exception, failure)
