"""The futures of an executor: whoever waits for one may lend its slot, and one is settled whatever its callbacks do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from parallelkit._executors._contract import Call
from parallelkit._logger import logger

R = TypeVar("R")

Request = tuple[Future[Any], Call, object]
"""A call on its way to the workers, and its function."""

Flight = tuple[Future[Any], str]
"""A call that was handed over: what messages call it."""


class Awaited(Protocol):
    """The desk, as its futures see it."""

    def lend(self, future: Future[Any], timeout: float | None) -> bool:
        """The caller is about to wait for a future; whether it has lent its slot."""

    def repay(self, future: Future[Any]) -> None:
        """The caller waits no more."""


class DeskFuture(Future[R]):
    """A future that looks at who waits for it: a task of the same executor lends its slot meanwhile."""

    def __init__(self, desk: Awaited) -> None:
        super().__init__()
        self._desk = desk

    def result(self, timeout: float | None = None) -> R:
        """As ``Future.result``."""
        lent = self._desk.lend(self, timeout)
        try:
            return super().result(timeout)
        finally:
            if lent:
                self._desk.repay(self)

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


def tell(settle: Callable[[Any], object], ending: Any) -> None:
    """Settle a future. A callback of its that exits, which no ``except Exception`` holds, ends no other call."""
    try:
        settle(ending)
    except BaseException:
        logger.exception("a callback of a future ended in what is no Exception; the executor goes on")


def cancel(future: Future[Any]) -> None:
    """Cancel a future that has not begun, and tell those that wait for it."""
    if future.cancel():
        future.set_running_or_notify_cancel()


def fail(flying: dict[int, Flight], inbox: deque[Request], failure: BaseException) -> None:
    """Fail all calls, those that were handed over and those that were not."""
    for future, _ in flying.values():
        tell(future.set_exception, failure)
    flying.clear()
    while inbox:
        future = inbox.popleft()[0]
        if future.set_running_or_notify_cancel():
            tell(future.set_exception, failure)
