"""The dispatcher of an executor: takes calls, hands them to the engine's port, and settles their futures.

It works in one thread, started by the first ``submit``. A callback that blocks this thread delays other
callbacks, later calls and the timeouts of threads, but no call that was already handed to the engine.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from parallelkit._collector import do_freely
from parallelkit._executors._contract import Block, Call, Ended, Job, PoolEngine, Port, Ticket
from parallelkit._executors._submit._exit import finish_at_exit, is_exiting
from parallelkit._executors._submit._future import UNMADE, Flight, Making, PoolFuture, Request
from parallelkit._executors._submit._opening import Opening
from parallelkit._executors._submit._refusals import check_wait, copy_of, is_of_parent, must_not_wait, stopped
from parallelkit._executors._submit._settling import cancel_waiting, fail, labels, log_break, tell, turn_away
from parallelkit._executors._thread._lending import Lender, is_thread_of
from parallelkit._locks import careful


class Dispatcher:
    """What stands between ``submit`` and the engine. ``ahead``: hand over calls before there is a thread for them."""

    def __init__(self, engine: PoolEngine, timeout: float | None, ahead: bool) -> None:
        self._engine, self._timeout, self._slots, self._next = engine, timeout, engine.max_workers, 0
        self._ahead = ahead  # then a future is set to running by the thread that makes the call, else as it is handed over
        self._lock = careful(threading.RLock)  # reentrant: the collector may finalize the executor meanwhile
        self._lender = engine if isinstance(engine, Lender) else None
        self._inbox: deque[Request] = deque()  # submitted, not yet handed over
        self._urgent: deque[PoolFuture[Any]] = deque()  # tasks of this executor wait for these
        self._flying: dict[int, Flight] = {}  # handed over, by the index of their ticket
        self._shut = self._cancel = self._stopped = self._ended = False
        self._failure: BaseException | None = None  # why nothing will ever run again
        self._last_loss: tuple[object, BaseException] | None = None  # that has failed calls, and their error
        self._opening: Opening | None = None
        self._port: Port | None = None
        self._pid = 0 if ahead else os.getpid()  # 0: nobody has used it, and nothing is open
        finish_at_exit(self)

    def check_open(self, shut: str = "cannot schedule new futures after shutdown") -> None:
        """Raise if no new call is taken: RuntimeError, or the error that broke the executor."""
        if self._is_fork():
            raise is_of_parent(self._pid)
        if self._failure is not None:
            raise copy_of(self._failure)
        if self._shut or self._ended:
            raise RuntimeError(shut)
        if is_exiting():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def check_run(self) -> None:
        """As ``check_open``, for a run; also RuntimeError if the run would wait for ever."""
        self.check_open(shut="executor must not have been shut down; make a new one for this run")
        if self._is_held_up():
            raise must_not_wait()

    def _is_fork(self) -> bool:
        """Whether this is the copy in a forked child, where none of its threads runs and its lock may be held for ever."""
        self._pid = self._pid or os.getpid()
        return os.getpid() != self._pid

    def lend(self, future: PoolFuture[Any], timeout: float | None) -> list[float] | None:
        """Before a caller waits: if it is a task, lend its slot and return its claim (see ``Lender``). Raises RuntimeError if the wait would never end."""
        if future.done() or (timeout is not None and timeout <= 0):  # one that only looks keeps its slot
            return None
        if self._is_fork():
            check_wait(self._pid, timeout)
            return None
        if timeout is None and self._needs_this_thread():
            raise must_not_wait()
        lent = None if self._lender is None else self._lender.lend(future)
        if not lent:
            return lent
        try:
            self._urgent.append(future)
            if self._port is not None:
                self._port.wake()
        except BaseException:  # a signal handler raised
            self.repay(future, lent)
            raise
        return lent

    def repay(self, future: PoolFuture[Any], lent: list[float] | None = None) -> None:
        """Give back what ``lend`` lent: the caller, or without ``lent`` everybody, no longer waits for the future."""
        if self._lender is not None:
            self._lender.repay(future, lent)

    def take(self, future: PoolFuture[Any], call: Call, fn: object) -> None:
        """Accept a new call, from any thread. ``fn``: the function as messages name it."""
        self.check_open()  # before taking the lock, which may be held for ever in a forked child
        while not self._put((future, call, fn)):
            self._open()

    def _put(self, request: Request) -> bool:
        """Put a call in the inbox and wake the dispatcher's thread; False if the thread has not been started."""
        with self._lock:
            self.check_open()
            self._check_loss()
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
        except BaseException as error:  # the system has no thread left, or Ctrl-C
            if self._opening is opening and opening.give_up():
                self._close(opening, error)
            raise

    def _check_loss(self) -> None:
        """Raise the last port's error while its loss lasts: a callback that resubmits what fails would never stop."""
        loss = self._engine.loss
        if loss is not None and self._last_loss is not None and loss is self._last_loss[0]:
            raise copy_of(self._last_loss[1])

    def _close(self, opening: Opening, error: BaseException) -> None:
        """The port could not be opened: fail the calls submitted meanwhile; the next call tries to open it again."""
        with self._lock:
            inbox, self._inbox, self._opening = self._inbox, deque(), None
        turn_away(inbox, error, self._ended)
        opening.end(error)
        if self._shut:
            self._engine.close()

    def _open_port(self) -> Port:
        return self._engine.open(Job(None, label=labels(self._flying), exact=not self._ahead, shared=True))

    def shut(self, cancel_futures: bool, stop: bool = False, end: Callable[[], None] | None = None) -> None:
        """Take no more calls. The dispatcher's thread ends, and closes the engine, once those it has are done.

        ``stop``: it fails them at once, and kills their processes; threads go on. ``end``: ends workers and engine.
        """
        if self._is_fork():
            return
        if end is not None:
            with self._lock:  # what was taken before is seen below, and nothing is taken after
                self._ended = True
            cancel_waiting(self._flying, self._inbox, self._slots)
            end()
        with self._lock:
            self._shut, self._cancel = True, self._cancel or cancel_futures
            self._stopped = self._stopped or (stop and not self._ahead)
            if self._port is not None:
                self._port.wake()
            is_served = self._opening is not None
        if cancel_futures:  # here, so that they are cancelled on return; the thread does so, too, for what it is just handing over
            cancel_waiting(self._flying, self._inbox, self._slots)
        if not is_served and end is None:
            do_freely(self._engine.close)

    def join(self) -> None:
        """Wait until all calls are done; return at once in a thread that they need (a call, callback or finalizer shuts down)."""
        needed = self._is_fork() or self._needs_this_thread() or is_thread_of(self._engine)
        if self._opening is not None and not needed:
            self._opening.join()

    def _needs_this_thread(self) -> bool:
        opening = self._opening
        return (opening is not None and opening.is_own_thread()) or self._is_held_up()

    def _is_held_up(self) -> bool:
        """Whether no call can proceed until this thread goes on, as in a finalizer that interrupts the executor's own work."""
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
            while not self._stopped:
                self._hand_over(port)
                if self._shut and not self._inbox and not self._flying:
                    break
                self._settle(port.wait(None))
                if port.failure is not None and self._engine.broken:
                    self._break(port, port.failure)
                elif port.failure is not None:
                    port = self._replace(port, port.failure)
            if self._stopped:  # by Ctrl-C
                self._cut_off(port, self._inbox, stopped())
        except BaseException as error:  # leave no future unsettled
            is_news = self._refuse(error)
            fail(self._flying, self._inbox, error)
            log_break(error, is_news)
        finally:
            self._engine.close()  # and with it the port

    def _hand_over(self, port: Port) -> None:
        urgent = [self._urgent.popleft() for _ in range(len(self._urgent))]  # in the inbox, or past it
        tickets: list[Ticket] = []
        room = port.room()
        while self._inbox and len(tickets) < room:
            if (ticket := self._begin(self._inbox.popleft())) is not None:
                tickets.append(ticket)
        port.start(tickets)
        for future in urgent:
            self._hurry(port, future)
        if self._cancel:
            self._cancel = False
            cancel_waiting(self._flying, self._inbox, self._slots, partial(tell, PoolFuture.cancel))
            self._inbox = deque(request for request in self._inbox if not request[0].cancelled())

    def _begin(self, request: Request) -> Ticket | None:
        """Note a call as flying and return its ticket; None if it was cancelled."""
        future, call, fn = request
        if self._ahead:
            call = Making(future), call, {}
        elif not future._begin():
            return None
        index, self._next = self._next, self._next + 1
        future._index = index
        self._flying[index] = future, fn
        return index, 1, call, self._timeout

    def _hurry(self, port: Port, future: PoolFuture[Any]) -> None:
        """A task waits for this call: have it run next, in that task's slot."""
        if future._index in self._flying:
            try:
                port.hurry(future._index)
            except RuntimeError as error:  # the system has no thread left
                if future._begin():
                    tell(future.set_exception, error)

    def _settle(self, events: list[Block | Ended]) -> None:
        """Settle futures; a method of its own, so that no local refers to a result once its future has it."""
        for event in events:
            if isinstance(event, Block):
                for index, value in zip(event.indices, event.values, strict=True):
                    future = self._landed(index)
                    if value is not UNMADE:
                        tell(future.set_result, value)
            else:
                tell(self._landed(event.index).set_exception, event.error)

    def _landed(self, index: int) -> PoolFuture[Any]:
        """Remove a call that has ended, and return its future. A task that waits for it has its slot back before it wakes."""
        future = self._flying.pop(index)[0]
        self.repay(future)
        return future

    def _cut_off(self, port: Port, inbox: deque[Request], failure: BaseException) -> None:
        """Close the port, and fail all calls but those that were done, which keep their values."""
        port.close()
        self._settle(port.wait(0.0))
        fail(self._flying, inbox, failure)

    def _refuse(self, failure: BaseException) -> bool:
        """Refuse new calls with this error. Whether to log it, once the calls have it: a handler of the log may wait for one."""
        with self._lock:
            known, self._shut = self._failure, True
            self._failure = failure if known is None else known
        return known is None and not self._ended

    def _break(self, port: Port, failure: Exception) -> None:
        """The engine is broken: fail the submitted calls with this error. Threads finish those that they have begun."""
        is_news = self._refuse(failure)
        if self._ahead and failure is self._failure:
            port.failure = None  # it would keep ``wait`` from waiting for them
            waiting = {index: self._flying.pop(index) for index, *_ in port.give_back()}
            fail(waiting, self._inbox, failure)
        else:
            self._cut_off(port, self._inbox, failure)
        log_break(failure, is_news)

    def _replace(self, port: Port, failure: Exception) -> Port:
        """Every slot is lost, or no worker can be started: fail every submitted call, and open a new port for later ones."""
        fresh = self._open_port()  # without the lock, as the first port was
        with self._lock:
            self._last_loss = self._engine.loss, failure
            inbox, self._inbox, self._port = self._inbox, deque(), fresh
        self._cut_off(port, inbox, failure)
        return fresh
