"""``ThreadExecutor`` and ``ProcessExecutor``: ``concurrent.futures.Executor`` on parallelkit's own workers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from itertools import count
from typing import Any, NoReturn, ParamSpec, TypeVar

from parallelkit._collector import watch
from parallelkit._coroutine_functions import check_called
from parallelkit._executors._choice import default_processes, default_threads
from parallelkit._executors._contexts import Variables
from parallelkit._executors._contract import Call, Engine, OwnExecutor, PoolEngine
from parallelkit._executors._submit._dispatcher import Dispatcher
from parallelkit._executors._submit._future import PoolFuture
from parallelkit._keywords import WORKERS, suggests
from parallelkit._numbers import check_count, check_timeout
from parallelkit._public import public
from parallelkit._tasks import check_args

P = ParamSpec("P")
R = TypeVar("R")

_unnamed = count()  # numbers the thread executors that were given no ``thread_name_prefix``


class _Pool(OwnExecutor, Executor):
    """What both executors share; a subclass brings the engine."""

    def __init__(self, engine: PoolEngine, timeout: float | None, ahead: bool) -> None:
        self._pool = engine
        self._max_workers = engine.max_workers
        self._timeout = check_timeout("timeout", timeout)
        self._dispatcher = Dispatcher(engine, self._timeout, ahead)
        watch()
        # Two, in case a signal handler raises in the first, which Python ignores there.
        self._finalizers = [weakref.finalize(self, self._dispatcher.shut, False) for _ in range(2)]
        for finalizer in self._finalizers:
            finalizer.atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} max_workers={self._max_workers}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be sent to another process: its workers belong to this one; "
            "open one where it is needed"
        )

    def _engine(self) -> Engine:
        """The engine, for a run that was given this executor; raises where the executor takes no more work."""
        self._dispatcher.check_run()
        return self._pool

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule ``fn(*args, **kwargs)`` and return its future.

        A call that runs longer than the executor's ``timeout`` fails with ``TaskTimeout``. Raises
        RuntimeError after ``shutdown``, and the executor's own error if it is broken.
        """
        future: PoolFuture[R] = PoolFuture(self._dispatcher)
        self._dispatcher.take(future, self._bind((fn, args, kwargs)), fn)
        return future

    def _bind(self, call: Call) -> Call:
        """Return the call in the form in which workers receive it."""
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new calls, and end the workers once the submitted calls are done; runs in progress are then stopped.

        ``wait``: block until then. Calls past their timeout, and initializers, are not waited for. In a call of
        this executor, or a callback, it returns at once. ``cancel_futures``: cancel calls that have not started.
        """
        self._dispatcher.shut(cancel_futures)
        for finalizer in self._finalizers:
            finalizer.detach()  # the collector would start a thread to close it again, even where there is none left
        if wait:
            self._dispatcher.join()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._dispatcher.shut(False, stop=True)
        self.shutdown()


@public
@suggests(**WORKERS)
class ThreadExecutor(_Pool):
    """A pool of threads: a drop-in replacement for ``concurrent.futures.ThreadPoolExecutor``.

    ``max_workers``: default ``min(32, cpus + 4)``. ``initializer(*initargs)`` is called once in each thread; if
    it raises, or takes over five minutes, the executor is broken. Without an initializer, a thread ends after
    5 s without work. Raises TypeError or ValueError for bad arguments. A submitted call costs about 30 µs, a
    task of a run on this executor about 2 µs.

    Beyond the standard pool:

    - ``timeout``: seconds per call, from its start. An overdue call fails with ``TaskTimeout``, and its thread
      is abandoned: it neither occupies a slot nor keeps the interpreter from exiting. The timeout is also the
      default for runs on this executor.
    - Calls see the context variables of ``submit``'s caller.
    - Pass it to ``run_parallel`` as ``executor=`` to keep threads warm between runs.
    - A call may submit others to the same executor and wait for them by ``result``, ``exception`` or
      ``map``: it lends them its slot meanwhile. ``wait`` and ``as_completed`` lend nothing: used within a
      call, on futures of the same executor, they wait forever once such calls hold every slot.

    As with a standard pool, a signal handler must not use the executor that it interrupts: it would wait
    for a lock that its own thread holds. Let it raise, or set a flag. Once a process has used the executor,
    a forked child must create its own.

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

        width = default_threads() if max_workers is None else check_count("max_workers", max_workers)
        initargs = check_initializer(initializer, initargs)
        prefix = thread_name_prefix or f"ThreadExecutor-{next(_unnamed)}"
        super().__init__(ThreadEngine(width, prefix, initializer, initargs), timeout, ahead=True)

    def _bind(self, call: Call) -> Call:
        """Bind the call to the current context variables, which are those of ``submit``'s caller."""
        return Variables(self._pool, initialized=True).call, (call[0], *call[1]), call[2]


@public
@suggests(**WORKERS)
class ProcessExecutor(_Pool):
    """A pool of processes: a drop-in replacement for ``concurrent.futures.ProcessPoolExecutor``.

    ``max_workers``: default the usable cpus. ``initializer(*initargs)`` is called once in each worker; if it
    raises, or takes over five minutes, the executor is broken. ``max_tasks_per_child``: a worker is replaced
    after this many calls (default: never). ``mp_context`` is accepted but unused: workers are fresh
    interpreters, never forks. Raises TypeError or ValueError for bad arguments, NotImplementedError without
    Linux 5.4 or newer. A submitted call costs about 0.1 ms, a task of a run on this executor about a microsecond.

    Beyond the standard pool:

    - If a worker dies, only the call that it ran fails, with ``WorkerDied``; the executor goes on.
    - ``timeout``: seconds per call, from its start. The process of an overdue call is killed. The timeout is
      also the default for runs on this executor.
    - Lambdas, closures and functions of ``__main__`` work, and no main guard is needed.
    - Pass it to ``run_parallel`` as ``executor=`` to keep workers warm between runs.
    - One Ctrl-C ends the ``with`` block, or the program: calls that are not done raise ``TaskCancelled``, and
      their workers are killed.

    As with a standard pool, a signal handler must not use the executor that it interrupts: it would wait
    for a lock that its own thread holds. Let it raise, or set a flag. A forked child must create its own
    executor.

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
        from parallelkit._executors._process._reloads import Reloads
        from parallelkit._executors._processes import ProcessEngine

        width = default_processes() if max_workers is None else check_count("max_workers", max_workers)
        initargs = check_initializer(initializer, initargs)
        if max_tasks_per_child is not None:
            max_tasks_per_child = check_count("max_tasks_per_child", max_tasks_per_child)
        engine = ProcessEngine(width, initializer, initargs, max_tasks_per_child)
        engine.reloads = Reloads()
        super().__init__(engine, timeout, ahead=False)
        self._ender = engine.end_workers

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """As ``Executor.map``, from Python 3.14 on with its ``buffersize``. ``chunksize`` calls are sent to a worker as one chunk, and share its fate.

        If a call raises, those before it keep their values, and those after it in its chunk are not made. If
        the executor has a ``timeout``, which applies to a single call, each call is sent separately.
        ``run_parallel(fn, items, executor=…)`` makes batches in which each call keeps its own outcome.
        """
        size = check_count("chunksize", chunksize)
        ahead: Any = {} if buffersize is None else {"buffersize": buffersize}  # older Pythons refuse it
        if size == 1 or self._timeout is not None:
            return super().map(fn, *iterables, timeout=timeout, **ahead)
        from parallelkit._executors._submit._chunks import cut, unite
        from parallelkit._worker._chunk import Chunk

        done: Any = super().map(Chunk(fn), cut(iterables, size), timeout=timeout, **ahead)
        return unite(done)

    def terminate_workers(self) -> None:
        """Send SIGTERM to the workers, and shut the executor down; return at once.

        As in ``ProcessPoolExecutor`` from Python 3.14 on, on all Pythons: calls that run fail with ``WorkerDied``, a
        ``BrokenProcessPool``; so do, with ``BrokenProcessPool``, those already promised to a worker (together with
        the running ones at most ``max_workers + 1``); all others are cancelled. A run in progress is stopped, with
        the same failures. A call that handles SIGTERM may still return its value, but after five seconds its worker
        is killed; so are all processes that calls have started. ``shutdown`` waits for the end of all that.

        >>> from concurrent.futures import BrokenExecutor
        >>> import time
        >>> with ProcessExecutor(1) as executor:
        ...     future = executor.submit(time.sleep, 60)
        ...     executor.terminate_workers()
        >>> isinstance(future.exception(), BrokenExecutor)
        True
        """
        self._end_workers("SIGTERM")

    def kill_workers(self) -> None:
        """As ``terminate_workers``, but with SIGKILL, which nothing can handle.

        >>> with ProcessExecutor(1) as executor:
        ...     executor.kill_workers()
        >>> executor.submit(pow, 2, 5)
        Traceback (most recent call last):
            ...
        RuntimeError: cannot schedule new futures after shutdown
        """
        self._end_workers("SIGKILL")

    def _end_workers(self, signal: str) -> None:
        import _signal  # type: ignore[import-not-found]  # ``signal`` may be a module of the program

        self._dispatcher.shut(True, end=partial(self._ender, getattr(_signal, signal)))


def check_initializer(initializer: Any, initargs: Any) -> tuple[Any, ...]:
    """Return the initializer's arguments, none without an initializer; TypeError if it cannot be called with them."""
    if initializer is None:
        return ()
    if not callable(initializer):
        raise TypeError(f"initializer must be callable, got {initializer!r}")
    check_called("initializer", initializer)
    return check_args("initargs", initargs)
