"""``parallelkit.testing``, as it is promised to users' tests."""

import asyncio
import signal
import threading
import time
import warnings
from bdb import BdbQuit
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import ContextVar

import pytest
from refusing import KINDS, fail_at_one

from parallelkit import (
    ConcurrencyLimit,
    RateLimit,
    Retry,
    RunInterrupted,
    Task,
    TaskFailures,
    TaskTimeout,
    ThreadExecutor,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit.testing import FakeClock, inline_runs


def where(item):
    return threading.get_ident()


HERE = threading.get_ident()


# Inline


@pytest.mark.parametrize(
    "options", [{}, {"executor": "threads"}, {"executor": "processes"}, {"max_workers": 9}]
)
def test_every_run_is_in_the_calling_thread(options):
    """Whatever executor and width are given, tasks run in the calling thread, and the results say so."""
    with inline_runs():
        results = run_parallel(where, range(3), **options)
    assert [HERE] * 3 == results.values()
    assert {"inline"} == {outcome.worker for outcome in results.outcomes.values()}


def test_no_thread_and_no_process_is_started(monkeypatch):
    """No thread or process is started, not even for a stream."""
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail(f"{thread} was started"))
    with inline_runs():
        assert [HERE] == [outcome.unwrap() for outcome in iter_parallel(where, [1], executor="processes")]


@pytest.mark.parametrize("make", [ThreadExecutor, ThreadPoolExecutor])
def test_an_executor_that_is_given_is_not_touched(make):
    """A given executor is not used: even one that is shut down will do."""
    executor = make(2)
    executor.shutdown()
    with inline_runs():
        assert [HERE] == run_parallel(where, [1], executor=executor).values()


def test_every_form_of_a_run_is_inline():
    """Streams, folds, races and nested runs are inline, too."""

    def nested(item):
        return run_parallel(where, [item], executor="processes").values()

    with inline_runs():
        assert [HERE] == [outcome.value for outcome in iter_parallel(where, [1])]
        assert {HERE} == map_reduce(where, [1, 2], lambda seen, ident: seen | {ident}, initial=set())
        assert HERE == first_success({"a": threading.get_ident, "b": threading.get_ident}).value
        assert [[HERE]] == run_parallel(nested, [1]).values()


def test_the_race_is_won_by_the_first_in_input_order():
    """A race is won by the first success in input order, and later tasks never start."""
    calls = []

    def racer(name, works):
        calls.append(name)
        return name if works else 1 / 0

    with inline_runs():
        won = first_success([lambda: racer("a", False), lambda: racer("b", True), lambda: racer("c", True)])
    assert ("b", ["a", "b"]) == (won.value, calls)


def test_tasks_run_in_input_order_or_by_priority():
    """Tasks run in a fixed order: input order, or priority."""
    calls = []
    with inline_runs():
        run_parallel(calls.append, range(100))
        assert list(range(100)) == calls
        calls.clear()
        run_parallel(calls.append, [1, 3, 2], priority=lambda item: item, limits=ConcurrencyLimit(2))
        assert [3, 2, 1] == calls


def test_the_block_ends_also_by_an_exception():
    """After the block, even if it ends with an exception, runs are ordinary again."""
    with pytest.raises(ZeroDivisionError), inline_runs():
        1 / 0
    assert HERE not in run_parallel(where, [1]).values()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_refuses_attributes_leaves_the_block_as_itself(kind):
    """An error that refuses attributes leaves the block, or a decorated function, unchanged."""
    with pytest.raises(BaseException) as caught, inline_runs():  # the very one, see below
        fail_at_one(1, kind)
    assert kind == type(caught.value).__name__
    with pytest.raises(BaseException) as caught:
        inline_runs()(fail_at_one)(1, kind)
    assert kind == type(caught.value).__name__
    assert HERE not in run_parallel(where, [1]).values()


def test_one_object_serves_several_blocks():
    """One object serves several blocks, in turn or nested, each with a clock of its own."""
    block = inline_runs()
    with block as outer:
        with block as inner:
            assert [HERE] == run_parallel(where, [1]).values()
        assert [HERE] == run_parallel(where, [1]).values()
    assert HERE not in run_parallel(where, [1]).values()
    assert outer is not inner


def test_it_decorates_a_function():
    """As a decorator, it makes each call a block of its own."""

    @inline_runs()
    def work():
        return run_parallel(where, [1]).values()

    assert [HERE] == work()
    assert [HERE] == work()
    assert HERE not in run_parallel(where, [1]).values()


def test_it_decorates_a_coroutine_function():
    """For a decorated coroutine function, the body runs in the block, not only the call."""

    @inline_runs()
    async def work():
        return run_parallel(where, [1]).values()

    assert [HERE] == asyncio.run(work())
    assert HERE not in run_parallel(where, [1]).values()


def test_a_decorated_function_runs_by_the_clock_that_was_given():
    """A clock given to the decorator is that of each call, also of a coroutine function."""
    clock = FakeClock()

    @inline_runs(clock)
    def work():
        run_parallel(asyncio.sleep, [5])

    @inline_runs(clock)
    async def work_too():
        run_parallel(asyncio.sleep, [5])

    work()
    assert 5.0 == clock()
    asyncio.run(work_too())
    assert 10.0 == clock()


def test_what_it_cannot_decorate_is_refused():
    """A generator function, which would run after the block, is refused; so are ``@inline_runs`` without parentheses and a class."""

    def fixture():
        yield run_parallel(where, [1])

    with pytest.raises(TypeError, match=r"must not decorate a generator function, got .*fixture.*write"):
        inline_runs()(fixture)
    with pytest.raises(TypeError, match=r"clock must be a FakeClock, got .*where.*write @inline_runs\(\)"):
        inline_runs(where)
    for wrong in (FakeClock, property(where)):
        with pytest.raises(TypeError, match=r"must decorate a function, got <.*decorate its methods"):
            inline_runs()(wrong)


def test_a_stream_of_the_block_stays_inline_after_it():
    """A stream that was made in the block stays inline after it."""
    with inline_runs():
        stream = iter_parallel(where, range(3))
    assert [HERE] * 3 == [outcome.value for outcome in stream]


def test_other_threads_do_not_notice():
    """Runs in other threads, even in those started in the block, are ordinary."""
    with inline_runs(), ThreadPoolExecutor(1) as other:
        ident = other.submit(threading.get_ident).result()
        assert ident not in other.submit(lambda: run_parallel(where, [1]).values()).result()


# Deterministic


def failing(*_):
    raise ConnectionError("down")


def test_a_backoff_lasts_its_whole_delay_and_no_time():
    """Delays of 1 + 2 + 4 hours pass on the clock, without jitter, and take no time."""
    with inline_runs() as clock:
        results = run_parallel(failing, ["a"], retries=Retry(3, delay=3600, max_delay=10**6))
    assert 7 * 3600.0 == clock()
    assert [0.0, 3600.0, 3 * 3600.0, 7 * 3600.0] == [attempt.started_at for attempt in results.attempts]


def test_the_instants_of_the_results_are_those_of_the_clock():
    """The times of results are those of the clock, which a task may advance."""
    clock = FakeClock(100)
    with inline_runs(clock) as same:
        results = run_parallel(clock.advance, [1, 2])
    assert clock is same
    assert [(0.0, 1.0), (1.0, 2.0)] == [(one.started_at, one.duration) for one in results.outcomes.values()]
    assert 3.0 == results.summary.wall


@pytest.mark.parametrize(("seconds", "error"), [(5, None), (5.001, TaskTimeout)])
def test_the_clock_judges_timeouts(seconds, error):
    """A task that advances the clock beyond its timeout is overdue, and the report does not say that timeouts are not enforced."""
    with inline_runs() as clock:
        results = run_parallel(clock.advance, [seconds], timeout=5)
    outcome = results.outcomes[0]
    assert (error is None) == outcome.ok
    assert "not enforced" not in results.report()
    assert error is None or isinstance(outcome.error, error)


def test_exactly_the_timeout_is_in_time_whenever_it_starts():
    """Not only where the start, with a fraction, is a number that a float holds."""
    with inline_runs() as clock:
        for start in range(1, 100):
            clock.jump(start * 1.1)
            assert run_parallel(clock.advance, [1], timeout=1)[0] is None


def test_what_raises_too_late_is_a_timeout():
    """A task that raises after its timeout is overdue: in a real run it would not have got that far."""

    def late(item):
        clock.advance(9)
        raise ValueError(item)

    with inline_runs() as clock:
        results = run_parallel(late, ["a"], timeout=5, retries=1)
    assert [TaskTimeout, TaskTimeout] == [type(attempt.error) for attempt in results.attempts]


def exit_by_signal(number, frame):
    raise SystemExit(number)


@pytest.mark.parametrize(
    ("handler", "error"), [(signal.default_int_handler, RunInterrupted), (exit_by_signal, SystemExit)]
)
def test_ctrl_c_past_the_timeout_is_no_timeout(handler, error):
    """An exception of a signal handler that ends the program ends the run, even past the task's timeout."""

    def late(item):
        clock.advance(9)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with inline_runs() as clock, pytest.raises(error):
            run_parallel(late, ["a", "b"], timeout=5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 9.0 == clock()


@pytest.mark.parametrize("error", [BdbQuit, pytest.exit.Exception])
@pytest.mark.parametrize("surroundings", [inline_runs, nullcontext])
def test_quit_in_a_debugger_ends_the_run(error, surroundings):
    """Whoever types ``quit`` at a breakpoint, also under pytest, is not led to that of the next task."""
    begun = []

    def debugged(item):
        begun.append(item)
        raise error

    with surroundings(), pytest.raises(error):
        run_parallel(debugged, ["a", "b"], executor="inline", retries=1)
    assert ["a"] == begun


def test_the_run_timeout_strikes_by_the_clock():
    """At ``run_timeout`` on the clock, what is done is returned, and the rest is cancelled."""
    with inline_runs() as clock:
        results = run_parallel(clock.advance, [4, 4, 4, 4], run_timeout=10)
    assert [True, True, True, False] == [outcome.ok for outcome in results.outcomes.values()]
    assert "run_timeout of 10 s" == results.stopped


def test_something_may_happen_while_a_run_waits():
    """A call scheduled on the clock happens while a run waits: a service that returns after an hour is found by the next attempt."""
    down = True

    def ask(item):
        return failing() if down else item

    def come_back():
        nonlocal down
        down = False

    with inline_runs() as clock:
        clock.call_at(3600, come_back)
        results = run_parallel(ask, ["a"], retries=Retry(9, delay=1000, factor=1, max_delay=1000))
    assert (4000.0, 5) == (clock(), results.outcomes[0].attempts)


def test_a_rate_limit_is_kept_by_the_clock():
    """A rate limit holds on the clock: at ten a minute, twenty-five tasks end in the third minute."""
    starts = []
    with inline_runs() as clock:
        run_parallel(lambda item: starts.append(clock()), range(25), limits=RateLimit(10, per=60))
    assert [10, 10, 5] == [sum(start // 60 == minute for start in starts) for minute in range(3)]


@pytest.mark.parametrize(
    ("limit", "starts"),
    [
        (RateLimit(1, per=60, by={"a": "group"}.get), [0, 60, 0, 0]),
        (RateLimit(2, per=60, smooth=True), [0, 30, 60, 90]),
    ],
    ids=["by", "smooth"],
)
def test_a_rate_limit_is_kept_in_all_its_parts(limit, starts):
    """A limit of the program holds in the block as it does outside: by group, or not at all; smoothly."""
    with inline_runs() as clock:
        values = run_parallel(lambda item: clock(), list("aabb"), limits=limit).values()
    assert starts == pytest.approx(values, abs=1)


def test_a_rate_limit_of_the_program_has_no_memory_of_the_block():
    """A limit is shared by the runs of a block, but not between blocks, nor with real runs."""
    limit = RateLimit(1, per=3600)
    run_parallel(where, [1], limits=limit)
    for _ in range(2):
        with inline_runs() as clock:
            run_parallel(where, [1], limits=limit)
            assert 0.0 == clock()
            run_parallel(where, [1], limits=limit)
            assert 3600 <= clock() < 3700
    fresh = RateLimit(1, per=3600)
    with inline_runs():
        run_parallel(where, [1], limits=fresh)
    assert run_parallel(where, [1], limits=fresh, run_timeout=30).stopped is None


def test_every_block_has_its_own_clock():
    """A nested block does not move the outer block's clock."""
    with inline_runs() as outer:
        outer.advance(5)
        with inline_runs() as inner:
            inner.advance(1)
            assert 1.0 == run_parallel(lambda item: inner(), [1])[0]
        assert (5.0, 1.0) == (outer(), inner())
        assert 2.0 == run_parallel(outer.advance, [2]).outcomes[0].duration


def test_errors_are_what_they_are_elsewhere():
    """Errors are as in real runs: a fold with failures raises, and a failed task is a Failure with its note."""
    with inline_runs():
        assert isinstance(run_parallel(failing, ["a"]).failures[0].error, ConnectionError)
        with pytest.raises(TaskFailures):
            map_reduce(failing, [1], max, initial=0)


# Coroutines


async def nap(seconds):
    await asyncio.sleep(seconds)
    return seconds


def test_coroutines_sleep_by_the_clock():
    """Coroutines run one after another, and their sleeps pass on the clock, in no time."""
    with inline_runs() as clock:
        results = run_parallel(nap, [3600, 60])
        assert ([3600, 60], 3660.0) == (results.values(), clock())
        assert [0.0, 3600.0] == [outcome.started_at for outcome in results.outcomes.values()]
        assert [5] == run_parallel(nap, [(5,)], star=True, then=lambda outcome: ()).values()
        assert {"a": 1} == run_parallel({"a": Task(nap, 1)}).to_dict()


def test_a_coroutine_is_cancelled_at_its_timeout():
    """An overdue coroutine is cancelled, and the clock is where it would be in a real run."""
    with inline_runs() as clock:
        results = run_parallel(nap, [3600], timeout=5, retries=Retry(1, delay=1))
    assert [TaskTimeout, TaskTimeout] == [type(attempt.error) for attempt in results.attempts]
    assert 11.0 == clock()


def test_a_timeout_of_the_coroutine_itself_is_its_own_error():
    """A coroutine's own TimeoutError is its own error; only the run's timeout is a TaskTimeout."""

    async def impatient(item):
        async with asyncio.timeout(1):
            await asyncio.sleep(9)

    with inline_runs() as clock:
        results = run_parallel(impatient, [1], timeout=5)
    assert (TimeoutError, 1.0) == (type(results.failures[0].error), clock())


def test_a_coroutine_may_wait_for_a_thread():
    """A thread that a coroutine waits for takes no time of the clock, and so runs into no timeout, nor does its end."""

    async def aside(item):
        return await asyncio.to_thread(threading.Event().wait, item)

    with inline_runs() as clock, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [False, False] == run_parallel(aside, [0.05, 0.05], timeout=5).values()
        assert 0.0 == clock()
        assert isinstance(run_parallel(aside, [0.2], timeout=0.1).failures[0].error, TaskTimeout)
        assert 0.1 <= clock() < 0.11


def test_a_coroutine_that_has_waited_for_a_thread_sleeps_by_the_clock_again():
    """Only while it waits for the thread does time pass as it does outside."""

    async def aside(item):
        await asyncio.to_thread(int)
        await asyncio.sleep(item)

    began = time.monotonic()
    with inline_runs() as clock:
        run_parallel(aside, [20]).raise_failures()
    assert 20.0 == clock()
    assert time.monotonic() - began < 20


def test_coroutines_complete_within_a_running_loop():
    """Coroutine tasks complete even if the test is a coroutine itself, with its context variables."""
    seen = ContextVar("seen", default="nothing")

    async def see(item):
        await asyncio.sleep(item)
        return seen.get()

    async def test():
        seen.set("the test's")
        with inline_runs():
            return run_parallel(see, [1]).values()

    assert ["the test's"] == asyncio.run(test())


def test_a_coroutine_that_nobody_awaits_is_a_failure_as_elsewhere():
    """A plain function that returns a coroutine fails here, too."""

    def careless(item):
        return nap(item)

    with inline_runs():
        results = run_parallel(careless, [1])
    assert "that nobody awaits" in str(results.failures[0].error)


# The clock


def test_the_clock_never_goes_back():
    """The clock refuses an instant in the past, and a negative advance; and those from which it could not go on."""
    clock = FakeClock(3)
    with pytest.raises(ValueError, match=r"instant must not be before 3, nor infinite, got 2"):
        clock.jump(2)
    for seconds in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"seconds must be at least 0 and finite, got {seconds}"):
            clock.advance(seconds)
    with pytest.raises(ValueError, match=r"instant must not be before 3, nor infinite, got nan"):
        clock.jump(float("nan"))
    with pytest.raises(ValueError, match=r"instant must be a number, got nan"):
        clock.call_at(float("nan"), clock)
    assert 3.0 == clock()
    instants = []
    clock.call_at(1, lambda: instants.append(clock()))  # for which it is late
    clock.call_at(4, lambda: clock.advance(5))  # further than it was to move
    clock.advance(2)
    assert ([3.0], 9.0) == (instants, clock())


def test_calls_come_at_their_instants_in_order():
    """Scheduled calls come at their instants, in order, also those scheduled on the way; those at one instant come in the order of scheduling."""
    clock, calls = FakeClock(), []

    def note(name):
        return lambda: calls.append((name, clock()))

    clock.call_at(2, note("late"))
    clock.call_at(1, lambda: clock.call_at(1.5, note("asked on the way")))
    clock.call_at(2, note("later"))
    assert 1.0 == clock.next_call_at()
    clock.advance(2)  # to an instant itself, not past it
    assert [("asked on the way", 1.5), ("late", 2.0), ("later", 2.0)] == calls
    assert (2.0, None) == (clock(), clock.next_call_at())
    assert "FakeClock(2)" == repr(clock)
