"""``ThreadExecutor`` and ``ProcessExecutor``: ``concurrent.futures.Executor`` on parallelkit's own workers.

One thread an executor, started with the first ``submit``, hands calls to the workers and settles the
futures; so a callback that blocks holds up other callbacks, but no worker and no timeout.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from parallelkit._errors import TaskExited
from parallelkit._executors import default_processes, default_threads
from parallelkit._executors._contract import Block, Call, Ended, Engine, Job, Port, Ticket
from parallelkit._executors._width import check_width, widen
from parallelkit._retry import check_number

logger = logging.getLogger("parallelkit")

P = ParamSpec("P")
R = TypeVar("R")

Request = tuple[Future[Any], Call, object]

_exiting = False
_desks: weakref.WeakSet[_Desk] = weakref.WeakSet()


class _Pool(Executor):
    """What both executors share; ``_make_engine`` is what sets them apart."""

    def __init__(self, engine: Engine, timeout: float | None) -> None:
        if timeout is not None:
            check_number("timeout", timeout, 0.0)
        self._pool = engine
        self._max_workers = engine.max_workers
        self._desk = _Desk(engine, timeout)
        weakref.finalize(self, self._desk.shut, False).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} max_workers={self._max_workers}>"

    def _engine(self) -> Engine:
        """The engine, for a run that was given this executor."""
        self._desk.check_open()
        return self._pool

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule ``fn(*args, **kwargs)`` and return its future.

        A call that runs longer than the executor's ``timeout`` ends in ``TaskTimeout``. Raises
        RuntimeError after ``shutdown``, and the executor's own error where it is broken.
        """
        future: Future[R] = Future()
        self._desk.take(future, self._bind((fn, args, kwargs)), fn)
        return future

    def _bind(self, call: Call) -> Call:
        """The call as the workers get it."""
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and free the workers once the submitted ones are done.

        ``wait`` for that (calls past their timeout are not waited for); ``cancel_futures`` that
        have not begun.
        """
        self._desk.shut(cancel_futures)
        if wait:
            self._desk.join()


class ThreadExecutor(_Pool):
    """A pool of threads that stands wherever ``ThreadPoolExecutor`` stands.

    Beyond the standard pool: ``timeout`` (seconds a call, from its start; an overdue call ends in
    ``TaskTimeout`` and its thread is abandoned), a hung call neither keeps its slot nor the
    interpreter, calls see the context variables of ``submit``'s caller, and ``run_parallel`` takes
    it as ``executor=`` to keep threads warm between runs.

    >>> from parallelkit import ThreadExecutor
    >>> with ThreadExecutor(4) as executor:
    ...     list(executor.map(pow, [2, 3], [5, 2]))
    [32, 9]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        timeout: float | None = None,
    ) -> None:
        from parallelkit._executors._threads import ThreadEngine

        width = check_width(max_workers, default_threads)
        check_initializer(initializer)
        prefix = thread_name_prefix or "parallelkit"
        super().__init__(ThreadEngine(width, prefix, initializer, initargs), timeout)

    def _bind(self, call: Call) -> Call:
        """The call in the context variables of this moment, which are those of ``submit``'s caller."""
        context = copy_context()
        context.run(widen, self._max_workers)
        return context.run, (call[0], *call[1]), call[2]


class ProcessExecutor(_Pool):
    """A pool of processes that stands wherever ``ProcessPoolExecutor`` stands.

    Beyond the standard pool: a worker that dies costs the one call that it ran (``WorkerDied``), the
    pool lives on; ``timeout`` (seconds a call, from its start) ends the process of an overdue call;
    lambdas, closures and functions of ``__main__`` work, and no main guard is needed.
    ``mp_context`` is accepted and unused: workers are fresh interpreters, never forks.

    >>> from parallelkit import ProcessExecutor
    >>> with ProcessExecutor(2) as executor:
    ...     executor.submit(pow, 2, 5).result()
    32
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        timeout: float | None = None,
    ) -> None:
        from parallelkit._executors._processes import ProcessEngine

        width = check_width(max_workers, default_processes)
        check_initializer(initializer)
        if max_tasks_per_child is not None:
            check_width(max_tasks_per_child, default_processes, "max_tasks_per_child")
        super().__init__(ProcessEngine(width, initializer, initargs, max_tasks_per_child), timeout)

    def map(
        self, fn: Callable[..., R], *iterables: Any, timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """As ``Executor.map``; ``chunksize`` is accepted and unused, batches size themselves."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        return super().map(fn, *iterables, timeout=timeout)


class _Desk:
    """Takes calls, hands them to the engine's port, and settles their futures, in a thread of its own."""

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


def check_initializer(initializer: Any) -> None:
    """Raise TypeError for an initializer that cannot be called."""
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be callable, got {initializer!r}")


def _finish_all() -> None:
    """At exit: wait for what was submitted, as the standard pools do."""
    global _exiting
    _exiting = True
    for desk in list(_desks):
        desk.shut(False)
        desk.join()


atexit.register(_finish_all)
