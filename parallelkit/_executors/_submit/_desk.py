"""The desk of an executor: takes calls, hands them to the engine's port, and settles their futures.

It works in one thread, started with the first ``submit``; so a callback that blocks holds up other
callbacks, later calls and the timeouts of threads, but nothing that was handed over.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from types import TracebackType
from typing import Any

from parallelkit._collector import do_freely
from parallelkit._executors._contract import Block, Call, DeskEngine, Ended, Job, Port, Ticket
from parallelkit._executors._submit._future import (
    UNMADE,
    DeskFuture,
    Flight,
    Making,
    Request,
    cancel_waiting,
    fail,
    label,
    must_not_wait,
    tell,
)
from parallelkit._executors._submit._leaving import is_leaving, stay_for
from parallelkit._executors._submit._opening import Opening
from parallelkit._executors._thread._lending import Lender, LendingPort
from parallelkit._raised import give_traceback, traceback_of

Failure = tuple[BaseException, TracebackType | None]


class Desk:
    """What stands between ``submit`` and the engine."""

    def __init__(self, engine: DeskEngine, timeout: float | None, ahead: bool) -> None:
        self._engine = engine
        self._timeout = timeout
        self._ahead = ahead  # calls are handed over before there is a thread for them, in which they begin
        self._lock = threading.RLock()  # garbage that is collected while it is held may be the executor
        self._lender = engine if isinstance(engine, Lender) else None
        self._inbox: deque[Request] = deque()
        self._urgent: deque[DeskFuture[Any]] = deque()  # tasks of this executor wait for them
        self._flying: dict[int, Flight] = {}
        self._next = 0
        self._shut = self._cancel = False
        self._failure: Failure | None = None  # why nothing can run any more
        self._refusal: tuple[object, Failure] | None = None  # why nothing can run while this loss lasts
        self._opening: Opening | None = None
        self._port: Port | None = None
        self._pid = os.getpid()
        stay_for(self)

    def check_open(self) -> None:
        """Raise RuntimeError where no new call is taken; where the executor is broken, by what."""
        if self._is_fork():
            raise RuntimeError(
                "this executor belongs to the process that made it, and its workers and locks are of no use in a fork "
                f"of that (process {self._pid} made it, this is {os.getpid()}); make a new executor in the child"
            )
        if self._failure is not None:
            raise give_traceback(*self._failure)  # else each raise would add to the last one's
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if is_leaving():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def check_run(self) -> None:
        """The same for a run; RuntimeError where it would wait for ever."""
        self.check_open()
        if self._is_held_up():
            raise must_not_wait()

    def _is_fork(self) -> bool:
        """Whether this is a copy in a forked process, where no thread of it runs and a lock may be held for ever."""
        return os.getpid() != self._pid

    def new_future(self) -> DeskFuture[Any]:
        """A future for a call."""
        return DeskFuture(self)

    def lend(self, future: DeskFuture[Any], timeout: float | None) -> bool:
        """The caller waits for a future: lend its slot, if it is a task of this executor; whether it is.

        Raises RuntimeError where that would be for ever.
        """
        if future.done():
            return False
        if timeout is None and self._needs_this_thread():
            raise must_not_wait()
        if self._lender is None or not self._lender.lend(future):
            return False
        try:
            self._urgent.append(future)
            if self._port is not None:
                self._port.wake()
        except BaseException:  # out of a signal handler
            self.repay(future)
            raise
        return True

    def repay(self, future: DeskFuture[Any]) -> None:
        """The caller waits no more."""
        if self._lender is not None:
            self._lender.repay(future)

    def take(self, future: DeskFuture[Any], call: Call, fn: object) -> None:
        """From any thread: a new call, of ``fn``."""
        if self._is_fork():
            self.check_open()
        while not self._put((future, call, fn)):
            self._open()

    def _put(self, request: Request) -> bool:
        """Lay it down for the thread; False where there is none yet."""
        with self._lock:
            self.check_open()
            self._check_loss()
            if self._engine.broken and self._port is not None and (failure := self._port.failure):
                self._failure = failure, traceback_of(failure)  # as the thread is about to find
                self.check_open()
            if self._opening is None:
                return False
            self._inbox.append(request)
            if self._port is not None:
                self._port.wake()
            return True

    def _open(self) -> None:
        opening = Opening(self._work)
        try:
            with self._lock:
                if self._opening is not None:
                    return
                self._opening = opening
            opening.start()
        except BaseException as error:  # no thread is to be had now, or Ctrl-C
            if self._opening is opening and opening.give_up():
                self._close(opening, error)
            raise

    def _check_loss(self) -> None:
        """Raise what the last port failed by, while that lasts: a callback that submits anew would do so for ever."""
        loss = self._engine.loss
        if loss is not None and self._refusal is not None and loss is self._refusal[0]:
            raise give_traceback(*self._refusal[1])

    def _close(self, opening: Opening, error: BaseException) -> None:
        """There is no port: those that have called meanwhile fail, and the next call may have better luck."""
        with self._lock:
            self._opening = None
            inbox, self._inbox = self._inbox, deque()
        fail({}, inbox, error)
        opening.end(error)
        if self._shut:
            self._engine.close()

    def _open_port(self) -> Port:
        job = Job(None, label=lambda index: label(*self._flying[index]), exact=not self._ahead, shared=True)
        return self._engine.open(job)

    def shut(self, cancel_futures: bool) -> None:
        """No more calls; the thread ends, and the engine with it, when those it has are done."""
        if self._is_fork():
            return
        with self._lock:
            self._shut = True
            self._cancel = self._cancel or cancel_futures
            if self._port is not None:
                self._port.wake()
            if self._opening is not None:
                return
        do_freely(self._engine.close)

    def join(self) -> None:
        """Wait until all is done; not from a thread that does it (a callback, or a finalizer, that shuts down)."""
        if self._opening is not None and not self._needs_this_thread() and not self._is_fork():
            self._opening.join()

    def _needs_this_thread(self) -> bool:
        opening = self._opening
        own = opening is not None and opening.thread.ident == threading.get_ident()
        return own or self._is_held_up()

    def _is_held_up(self) -> bool:
        """Whether calls are held up until this thread goes on: a finalizer may run in it, in the midst of anything."""
        return self._engine.is_served_here() or self._lock._is_owned()  # type: ignore[attr-defined]  # as Condition asks it

    def _work(self, opening: Opening) -> None:
        if not opening.begin():
            return
        port: Port | None = None
        try:
            port = self._open_port()
            self._engine.supply(1)
        except BaseException as error:
            if port is not None:
                port.close()
            self._close(opening, error)
            return
        self._port = port
        opening.end()
        self._serve(port)

    def _serve(self, port: Port) -> None:
        try:
            while True:
                self._hand_over(port)
                if self._shut and not self._inbox and not self._flying:
                    break
                self._settle(port.wait(None))
                if port.failure is not None and self._engine.broken:
                    self._break(port.failure)
                elif port.failure is not None:
                    port = self._replace(port, port.failure)
        except BaseException as error:  # no worker can be started, say: nobody shall wait for ever
            self._break(error)
        finally:
            port.close()
            if self._shut:
                self._engine.close()

    def _hand_over(self, port: Port) -> None:
        urgent = [self._urgent.popleft() for _ in range(len(self._urgent))]  # they are in the inbox, or were
        tickets: list[Ticket] = []
        room = port.room()
        while self._inbox and len(tickets) < room:
            ticket = self._begin(self._inbox.popleft())
            if ticket is not None:
                tickets.append(ticket)
        port.start(tickets)
        for future in urgent:
            self._hurry(port, future)
        if self._cancel:
            self._cancel = False
            cancel_waiting(self._flying, self._inbox, self._engine.max_workers)

    def _begin(self, request: Request) -> Ticket | None:
        """The ticket of a call; None where it has been cancelled."""
        future, call, fn = request
        if self._ahead:
            call = Making(future), call, {}
        elif not future.begin():
            return None
        index, self._next = self._next, self._next + 1
        future.index = index
        self._flying[index] = future, fn
        return index, 1, call, self._timeout

    def _hurry(self, port: Port, future: DeskFuture[Any]) -> None:
        """A task waits for this call: it goes first, in that task's slot."""
        assert isinstance(port, LendingPort), "only an engine that lends makes futures that are urgent"
        if future.index in self._flying:
            try:
                port.hurry(future.index)
            except RuntimeError as error:  # the system has no thread for it
                if future.begin():
                    tell(future.set_exception, error)

    def _settle(self, events: list[Block | Ended]) -> None:
        """In a call of its own, so that nothing here refers to a result once its future has it."""
        for event in events:
            if isinstance(event, Block):
                for index, value in zip(event.indices, event.values, strict=True):
                    future = self._landed(index)
                    if value is not UNMADE:
                        tell(future.set_result, value)
            else:
                tell(self._landed(event.index).set_exception, event.error)

    def _landed(self, index: int) -> DeskFuture[Any]:
        """The future of a call that has ended; whoever waits for it takes its slot back before it wakes."""
        future = self._flying.pop(index)[0]
        if self._lender is not None:
            self._lender.repay(future)
        return future

    def _break(self, failure: BaseException) -> None:
        """Nothing can run any more: all that was submitted fails with this error, and so does what would be."""
        with self._lock:
            self._failure = self._failure or (failure, traceback_of(failure))  # a call may have raised it
            self._shut = True
        fail(self._flying, self._inbox, failure)

    def _replace(self, port: Port, failure: Exception) -> Port:
        """Every slot is lost, or no worker can be started: all that was submitted fails; what comes later has a new port."""
        fresh = self._open_port()  # without the lock, as the first
        with self._lock:
            self._refusal = self._engine.loss, (failure, traceback_of(failure))
            flying, self._flying = self._flying, {}
            inbox, self._inbox = self._inbox, deque()
            self._port = fresh
        port.close()
        fail(flying, inbox, failure)
        return fresh
