"""The desk of an executor: takes calls, hands them to the engine's port, and settles their futures.

It works in one thread, started with the first ``submit``; so a callback that blocks holds up other
callbacks, but no worker and no timeout.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from parallelkit._errors import TaskExited
from parallelkit._executors._contract import Block, Call, Ended, Engine, Job, Port, Ticket

logger = logging.getLogger("parallelkit")

Request = tuple[Future[Any], Call, object]

_exiting = False
_desks: weakref.WeakSet[Desk] = weakref.WeakSet()


class Desk:
    """What stands between ``submit`` and the engine."""

    def __init__(self, engine: Engine, timeout: float | None) -> None:
        self._engine = engine
        self._timeout = timeout
        self._lock = threading.Lock()
        self._inbox: deque[Request] = deque()
        self._flying: dict[int, tuple[Future[Any], str]] = {}  # with what messages call them
        self._next = 0
        self._shut = False
        self._cancel = False
        self._port: Port | None = None
        self._thread: threading.Thread | None = None
        _desks.add(self)

    def check_open(self) -> None:
        """Raise RuntimeError where no new call is taken."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def take(self, future: Future[Any], call: Call, fn: object) -> None:
        """From any thread: a new call, of ``fn``."""
        with self._lock:
            self.check_open()
            if self._port is None:
                self._open()
            assert self._port is not None, "opened above"
            if self._port.failure is not None:
                raise self._port.failure
            self._inbox.append((future, call, fn))
            self._port.wake()

    def _open(self) -> None:
        self._port = self._engine.open(Job(None, label=lambda index: self._flying[index][1], exact=True))
        self._thread = threading.Thread(target=self._work, name="parallelkit_futures", daemon=True)
        self._thread.start()

    def shut(self, cancel_futures: bool) -> None:
        """No more calls; the thread ends, and the engine with it, when those it has are done."""
        with self._lock:
            self._shut = True
            self._cancel = self._cancel or cancel_futures
            if self._port is not None:
                self._port.wake()
                return
        self._engine.close()

    def join(self) -> None:
        """Wait until all is done; not from the thread that does it (a callback that shuts down)."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        port = self._port
        assert port is not None, "the thread is started after the port"
        try:
            while True:
                self._hand_over(port)
                if self._shut and not self._inbox and not self._flying:
                    break
                self._settle(port.wait(None))
                if port.failure is not None:
                    self._break(port.failure)
        finally:
            port.close()
            if self._shut:
                self._engine.close()

    def _hand_over(self, port: Port) -> None:
        tickets: list[Ticket] = []
        room = port.room()
        while self._inbox and len(tickets) < room:
            future, call, fn = self._inbox.popleft()
            if future.set_running_or_notify_cancel():
                name = getattr(fn, "__qualname__", type(fn).__name__)
                self._flying[self._next] = (future, f"the call of {name}")
                tickets.append((self._next, 1, call, self._timeout))
                self._next += 1
        port.start(tickets)
        if self._cancel:  # after the free slots are filled: a standard pool would have begun these at submit
            while self._inbox:
                tell(cancel, self._inbox.popleft()[0])

    def _settle(self, events: list[Block | Ended]) -> None:
        """In a call of its own, so that nothing here refers to a result once its future has it."""
        for event in events:
            if isinstance(event, Block):
                for index, value in zip(event.indices, event.values, strict=True):
                    tell(self._flying.pop(index)[0].set_result, value)
            else:
                tell(self._flying.pop(event.index)[0].set_exception, as_raised(event.error))

    def _break(self, failure: Exception) -> None:
        """The engine is broken: all that was submitted fails with its error."""
        with self._lock:
            self._shut = True
        for future, _ in self._flying.values():
            tell(future.set_exception, failure)
        self._flying.clear()
        while self._inbox:
            future = self._inbox.popleft()[0]
            if future.set_running_or_notify_cancel():
                tell(future.set_exception, failure)


def tell(settle: Callable[[Any], object], ending: Any) -> None:
    """Settle a future. A callback of its that exits, which no ``except Exception`` holds, ends no other call."""
    try:
        settle(ending)
    except BaseException:
        logger.exception("a callback of a future ended in what is no Exception; the executor goes on")


def as_raised(error: BaseException) -> BaseException:
    """What the call raised, ``SystemExit`` included: a future hands it to whoever asks for it, as it was."""
    return error.__cause__ or error if isinstance(error, TaskExited) else error


def cancel(future: Future[Any]) -> None:
    """Cancel a future that has not begun, and tell those that wait for it."""
    if future.cancel():
        future.set_running_or_notify_cancel()


def _finish_all() -> None:
    """At exit: wait for what was submitted, as the standard pools do."""
    global _exiting
    _exiting = True
    for desk in list(_desks):
        desk.shut(False)
        desk.join()


atexit.register(_finish_all)
