"""Aids for testing code that calls ``run_parallel``: ``inline_runs``, and the ``FakeClock`` of its runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Token, copy_context
from functools import partial, wraps
from heapq import heappop, heappush
from itertools import count
from math import inf
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from parallelkit._coroutine_functions import GENERATORS, flags_of, is_coroutine_function
from parallelkit._executors._contract import Job, Ticket, timed_out
from parallelkit._executors._inline import InlineEngine, InlinePort, ends_program
from parallelkit._limits import Limit, RateLimit
from parallelkit._options import Checked
from parallelkit._tasks import function_of
from parallelkit._world import World, the_world

__all__ = ["FakeClock", "inline_runs"]

P = ParamSpec("P")
R = TypeVar("R")


class FakeClock:
    """A substitute for ``time.monotonic`` that moves only when told to.

    Call it to get the current time in seconds. ``advance`` moves it by seconds, ``jump`` to an instant; on
    the way both make the calls scheduled by ``call_at``, each at its own time. It never goes back.

    >>> clock = FakeClock()
    >>> clock.call_at(2, lambda: print("it is", clock()))
    >>> clock.advance(5)
    it is 2.0
    >>> clock()
    5.0

    Not for use by several threads at once.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = float(now)
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()  # calls at the same instant are made in the order of ``call_at``

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self._now:g})"

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``; ValueError if negative or infinite."""
        if not 0 <= seconds < inf:
            raise ValueError(f"seconds must be at least 0 and finite, got {seconds!r}")
        self.jump(self._now + seconds)

    def jump(self, instant: float) -> None:
        """Move forward to ``instant``; ValueError if that is past or infinite."""
        if not self._now <= instant < inf:
            raise ValueError(f"instant must not be before {self._now:g}, nor infinite, got {instant!r}")
        while self._calls and self._calls[0][0] <= instant:
            at, _, call = heappop(self._calls)
            self._now = max(self._now, at)
            call()
        self._now = max(self._now, instant)  # a call may have moved the clock further

    def call_at(self, instant: float, call: Callable[[], object]) -> None:
        """Schedule a call for when the clock reaches ``instant``, or for its next move if that is past; ValueError for NaN."""
        if instant != instant:  # it would hold up all calls behind it
            raise ValueError(f"instant must be a number, got {instant!r}")
        heappush(self._calls, (float(instant), next(self._numbers), call))

    def next_call_at(self) -> float | None:
        """Return the instant of the next scheduled call, or None."""
        return self._calls[0][0] if self._calls else None


class inline_runs:  # noqa: N801  # used as a function
    """Make every run started in this ``with`` block inline and deterministic; ``as`` gives its clock.

    ``run_parallel``, ``iter_parallel``, ``map_reduce``, ``first_success`` and ``http.fetch`` then run their
    tasks one after another in the calling thread, in input order (or by ``priority``), whatever ``executor``
    and ``max_workers`` say. No thread or process is started, an executor that was given is not touched, and
    breakpoints and mocks work as in a plain loop.

    Time is that of ``clock`` (default: a new one at 0), and every wait moves the clock instead of waiting: a
    backoff, a Retry-After, a rate limit, a ``run_timeout`` or a coroutine's sleep. A backoff lasts its whole
    delay, without the random part. To simulate a slow function, let it call ``clock.advance(seconds)``; if
    that exceeds its ``timeout``, it fails with ``TaskTimeout``. A ``RateLimit`` has no memory from outside
    the block, and keeps none from it.

    >>> from parallelkit import Retry, run_parallel
    >>> def refuse(item):
    ...     raise ConnectionError("down")
    >>> with inline_runs() as clock:
    ...     results = run_parallel(refuse, ["a"], executor="processes", retries=Retry(2, delay=20))
    >>> results.outcomes[0].attempts, clock()
    (3, 50.0)

    It applies to the code that the block calls (through a context variable), but not to threads that this
    code starts itself, nor to ``submit`` and ``map`` of an executor. Tasks that wait for one another cannot
    run this way. As a decorator of a function or coroutine function it makes each call such a block.
    TypeError for a class, and for a generator function, whose body runs after the call has returned.
    """

    # Not a generator with contextlib, which sets attributes of an error that may not allow it.

    def __init__(self, clock: FakeClock | None = None) -> None:
        if clock is not None and not isinstance(clock, FakeClock):
            raise TypeError(f"clock must be a FakeClock, got {clock!r}; as a decorator write @inline_runs()")
        self._clock = clock
        self._before: list[Token[World]] = []  # one for each block: blocks may be nested

    def __enter__(self) -> FakeClock:
        clock = FakeClock() if self._clock is None else self._clock
        self._before.append(the_world.set(World(clock, partial(_staged, {}), lambda: _Engine(clock))))
        return clock

    def __exit__(self, *raised: object) -> None:
        the_world.reset(self._before.pop())

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return the function decorated: each call is such a block."""
        # A decorated class would be a function, which no test runner finds.
        if isinstance(fn, type) or not callable(fn):
            raise TypeError(
                f"inline_runs must decorate a function, got {fn!r}; in a class decorate its methods"
            )
        if flags_of(fn) & GENERATORS:
            raise TypeError(
                f"inline_runs must not decorate a generator function, got {fn!r}; write 'with inline_runs():' in its body"
            )
        if is_coroutine_function(fn):
            return self._awaited(fn)  # type: ignore[arg-type, return-value]  # as was just seen

        @wraps(fn)
        def inline(*args: P.args, **kwargs: P.kwargs) -> R:
            with inline_runs(self._clock):
                return fn(*args, **kwargs)

        return inline

    def _awaited(self, fn: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate a coroutine function, whose body runs when it is awaited, not when it is called."""

        @wraps(fn)
        async def inline(*args: P.args, **kwargs: P.kwargs) -> R:
            with inline_runs(self._clock):
                return await fn(*args, **kwargs)

        return inline


def _staged(fresh: dict[Limit, Limit], options: Checked) -> Checked:
    """The options of a run in the block: inline, with ``fresh`` rate limits, so that no start carries over into or out of it."""
    for limit in options.limits:
        if isinstance(limit, RateLimit) and limit not in fresh:
            fresh[limit] = RateLimit(limit.calls, limit.per, by=limit.by, smooth=limit.smooth)
    limits = tuple(fresh.get(limit, limit) for limit in options.limits)
    return options._replace(executor="inline", limits=limits)


class _Engine(InlineEngine):
    """Runs inline, by a ``FakeClock``."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def open(self, job: Job) -> _Port:
        return _Port(job, self._clock)


class _Port(InlinePort):
    """Judges timeouts after the attempt, and completes coroutines on an event loop without real time."""

    def __init__(self, job: Job, clock: FakeClock) -> None:
        super().__init__(job)
        self._clock = clock
        self._fn = job.fn
        self._label = job.label

    def now(self) -> float:
        return self._clock()

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def run(self, ticket: Ticket) -> Any:
        index, _, item, limit = ticket
        started = self._clock()
        overdue = timed_out(self._label(index), limit or 0)

        def check_time() -> None:
            if limit is not None and self._clock() > started + limit:  # a sum of floats, as in ``advance``
                raise overdue  # whatever the attempt returned or raised came too late

        try:
            value = super().run(ticket)
            if isinstance(value, CoroutineType) and is_coroutine_function(self._fn or function_of(item)):
                value = complete(value, self._clock, limit, overdue)
        except BaseException as error:
            if not ends_program(error):
                check_time()
            raise
        check_time()
        return value


def complete(
    coroutine: CoroutineType[Any, Any, Any], clock: FakeClock, limit: float | None, overdue: Exception
) -> Any:
    """Run a coroutine and return its value; raise ``overdue`` after ``limit`` seconds of the clock."""
    import asyncio

    async def bounded() -> Any:
        try:
            async with asyncio.timeout(limit) as bound:
                return await coroutine
        except TimeoutError:
            if bound.expired():
                raise overdue from None
            raise

    def run() -> Any:
        with asyncio.Runner(loop_factory=lambda: open_loop(clock)) as runner:
            return runner.run(bounded())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as another:  # no loop can run within the loop of this thread
        return another.submit(copy_context().run, run).result()


def open_loop(clock: FakeClock) -> Any:
    """Return an event loop that jumps to its next timer when there is nothing else to do.

    While it waits for a thread (``asyncio.to_thread``), a timer takes real time, or each timeout would strike
    at once.
    """
    import asyncio
    import selectors

    class Jumping(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            events = super().select(timeout if loop.threads else timeout and 0)
            if timeout and not events:
                clock.advance(timeout)
            return events

    class Loop(asyncio.SelectorEventLoop):
        threads = 0  # calls in other threads that it waits for

        def run_in_executor(self, *call: Any) -> Any:  # type: ignore[override]  # passed on as it is
            future = super().run_in_executor(*call)
            self.threads += 1
            future.add_done_callback(self.returned)
            return future

        def returned(self, future: object) -> None:
            self.threads -= 1

        async def shutdown_default_executor(self, *timeout: Any) -> None:
            self.threads += 1  # it waits for a thread, too; then the loop is closed
            await super().shutdown_default_executor(*timeout)

    loop = Loop(Jumping())
    loop.time = clock  # type: ignore[method-assign]  # calling the clock gives the instant
    return loop
