"""Coroutine functions are tasks like any others of the thread engine: on one event loop, under the same rules."""

import asyncio
import contextvars
import errno
import functools
import gc
import inspect
import math
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import Counter, deque
from concurrent.futures import Executor
from contextlib import closing, suppress
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest
from leaks import leaks, look
from patience import given_time, wait_until

from parallelkit import (
    ConcurrencyLimit,
    InputError,
    RateLimit,
    Retry,
    Task,
    TaskCancelled,
    TaskExited,
    TaskFailures,
    TaskTimeout,
    ThreadExecutor,
    first_success,
    iter_parallel,
    run_parallel,
)
from parallelkit._coroutine_functions import is_coroutine_function
from parallelkit._executors._contract import Job
from parallelkit._executors._coroutine import _event_loop, _overdue
from parallelkit._executors._coroutine import _port as _coroutine_port
from parallelkit._executors._coroutine._event_loop import EventLoop, Flight
from parallelkit._executors._coroutine._overdue import Deadlines, overran
from parallelkit._executors._coroutines import CoroutineEngine
from parallelkit._executors._thread._lending import take_claim
from parallelkit._executors._thread._loss import Loss
from parallelkit._facts import Facts
from parallelkit.testing import FakeClock

LONG = 3600  # seconds: what takes so long is cancelled
PATIENCE = 20.0  # seconds after which a test that waits for others fails


@pytest.fixture
def unhurried(monkeypatch):
    """Give cancelled coroutines much time to end, so that a busy machine fails no test."""
    for module in (_coroutine_port, _event_loop):
        monkeypatch.setattr(module, "GRACE", PATIENCE)
    monkeypatch.setattr(_coroutine_port, "JOIN", 3 * PATIENCE)


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


async def hang(*_):
    await asyncio.sleep(LONG)


class Meter:
    """Counts who is inside, and the most at a time; the first ones wait until ``wanted`` are there."""

    def __init__(self, wanted=1):
        self.inside = self.most = 0
        self.lock, self.full, self._wanted = threading.Lock(), threading.Event(), wanted

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == self._wanted:
                self.full.set()

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1

    async def meet(self):
        """Wait in a coroutine, and then a little longer, so that one too many would be seen."""
        until = time.monotonic() + PATIENCE
        while not self.full.is_set() and time.monotonic() < until:  # noqa: ASYNC110  # threads set it, too
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)

    def block(self):
        """Wait in a thread, in the same way."""
        self.full.wait(PATIENCE)
        time.sleep(0.001)


# What is a coroutine function


class Fetcher:
    async def fetch(self, item):
        return item

    async def __call__(self, item):
        return ("called", item)


class Plain:
    def __call__(self, item):
        return item


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (double, True),
        (functools.partial(double), True),
        (functools.partial(functools.partial(double), 1), True),
        (Fetcher().fetch, True),
        (Fetcher(), True),
        (AsyncMock(), True),
        (lambda x: double(x), False),  # noqa: PLW0108  it is the case in question
        (Plain(), False),
        (Mock(), False),
        (Fetcher, False),
        (len, False),
        (None, False),
    ],
)
def test_coroutine_functions_are_recognised(fn, expected):
    """Coroutine functions are recognised as functions, methods, partials and callable objects, and nothing else is."""
    assert expected == is_coroutine_function(fn)


class Later:
    """An awaitable that is no coroutine of Python's own, as compiled code may return."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in Python 3.12")
def test_a_function_marked_as_a_coroutine_function_is_one():
    """It runs on the event loop, whatever awaitable it returns."""
    later = inspect.markcoroutinefunction(lambda item: Later(item))  # noqa: PLW0108  a mark would stay on the class
    assert [1, 2] == run_parallel(later, [1, 2], timeout=LONG).values()
    assert [3] == run_parallel([Task(functools.partial(later, 3))]).values()


def generate(item):
    yield item


async def generate_later(item):
    yield item


class Generates:
    def __call__(self, item):
        yield item

    def method(self, item):
        yield item


@pytest.mark.parametrize("executor", ["threads", "processes", "inline", Executor()])
@pytest.mark.parametrize(
    ("fn", "way"),
    [
        (generate, r"a function that returns list\(\.\.\.\)"),
        (functools.partial(generate, 1), r"list\(\.\.\.\)"),
        (Generates(), r"list\(\.\.\.\)"),
        (Generates().method, r"list\(\.\.\.\)"),
        (generate_later, "a coroutine function that returns .item async for"),
    ],
    ids=["function", "partial", "object", "method", "async"],
)
def test_a_generator_function_is_refused(fn, way, executor):
    """A generator function is refused: calling it would run nothing, and succeed."""
    said = f"must not be a generator function, whose call does not run its body, .*; pass .*{way}"
    for arguments in ((fn, [1]), ([fn],), ({"a": Task(fn, 1)},)):
        with pytest.raises(TypeError, match=said):
            run_parallel(*arguments, executor=executor)


def test_a_generator_function_is_refused_as_it_is_read():
    """A generator function in lazy input or from ``then`` is refused when it is read."""
    with pytest.raises(InputError, match="must not be a generator function"):
        run_parallel(iter([Task(generate, 1)]))
    with pytest.raises(InputError, match="must not be a generator function"):
        run_parallel(abs, [-1], then=lambda outcome: [Task(generate, 1)])


# Results


def test_values_come_by_key():
    """A coroutine function over items has the same results as a plain one."""
    assert {"A": 2, "B": 4} == run_parallel(double, {"A": 1, "B": 2}).to_dict()
    assert [0, 2, 4] == run_parallel(double, range(3), timeout=LONG).values()


def test_arguments_are_passed_as_to_any_function():
    """Coroutine functions get arguments as plain ones do: unpacked items, ``args``, keywords, partials, methods, objects."""

    async def power(base, exponent, *, offset=0):
        return base**exponent + offset

    assert [8, 9] == run_parallel(power, [(2, 3), (3, 2)], star=True).values()
    assert [5, 10] == run_parallel(power, [2, 3], args=(2,), kwargs={"offset": 1}).values()
    assert [8, 16] == run_parallel(functools.partial(power, 2), [3, 4]).values()
    assert ["x"] == run_parallel(Fetcher().fetch, ["x"]).values()
    assert [("called", "x")] == run_parallel(Fetcher(), ["x"]).values()


def test_its_own_error_comes_back_untouched():
    """The same exception object comes back, with a traceback that begins in the user's code."""
    error = ValueError("no")

    async def fail(_):
        raise error

    results = run_parallel(fail, [1])
    assert results.failures[0].error is error
    assert "fail" == error.__traceback__.tb_frame.f_code.co_name
    assert "raise error" in results.failures[0].traceback


def test_a_traceback_has_no_frames_of_ours():
    """The error of an asyncio task that a coroutine awaits has the frames of both, and none of ours between them."""

    async def fail():
        raise ValueError

    async def wait(_):
        await asyncio.create_task(fail())

    frames = traceback.extract_tb(run_parallel(wait, [1]).failures[0].error.__traceback__)
    assert ["wait", "fail"] == [frame.name for frame in frames]


def test_what_a_stopped_coroutine_refers_to_is_freed_with_its_results():
    """Its error, with the frames and variables to which that refers, needs no garbage collection."""

    class Load:
        pass

    load = Load()
    seen = weakref.ref(load)
    gc.disable()
    try:
        results = run_parallel(hang, [load], run_timeout=0.02)
        del load
        assert [0] == list(results.failures)
        del results
        wait_until(lambda: seen() is None)  # the loop may still be ending
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_no_coroutine_ends_the_program_or_the_loop(kind):
    """A BaseException is a TaskExited with the original as its cause; the other coroutines go on."""

    async def leave(item):
        await asyncio.sleep(0)
        if item == 1:
            raise kind("bye")
        return item

    results = run_parallel(leave, range(3), max_workers=1)
    assert isinstance(results.failures[1].error, TaskExited)
    assert isinstance(results.failures[1].error.__cause__, kind)
    assert {0: 0, 2: 2} == results.successes


def test_what_it_leaves_running_cannot_end_the_loop(caplog):
    """A background task that raises SystemExit is logged, and the loop goes on for the others."""

    async def quit_in_background():
        raise SystemExit(3)

    async def start(item):
        if item == 0:
            start.left = asyncio.ensure_future(quit_in_background())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return item

    assert [0, 1] == run_parallel(start, range(2), max_workers=1).values()
    assert isinstance(start.left.exception(), SystemExit)
    assert "the loop goes on" in caplog.text


def test_a_loop_that_breaks_ends_the_run():
    """The run says why, and what had not begun has that as its cause."""
    broken = MemoryError("broken")

    async def break_loop(_):
        asyncio.current_task()._log_destroy_pending = False
        asyncio.get_running_loop()._run_once = Mock(side_effect=broken)
        await asyncio.sleep(0)

    results = run_parallel(break_loop, range(2), max_workers=1)
    assert "the event loop broke (MemoryError: broken)" == results.stopped
    assert results.failures[1].error.__cause__ is broken


def test_each_attempt_has_its_own_copy_of_the_callers_context():
    """A coroutine sees the caller's context variables; what it sets, no other sees."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("caller")

    async def note(item):
        before = variable.get()
        variable.set(item)
        await asyncio.sleep(0)
        return before, variable.get()

    assert [("caller", n) for n in range(3)] == run_parallel(note, range(3), max_workers=1).values()
    assert "caller" == variable.get()


def test_the_caller_may_be_inside_a_running_loop():
    """Coroutines run on a loop in a thread of its own, so the caller may be inside a running loop."""

    async def caller():
        return run_parallel(double, range(3)).values()

    assert [0, 2, 4] == asyncio.run(caller())


def test_a_stream_takes_coroutine_functions_too():
    """A stream yields outcomes of coroutine functions, in completion or input order."""
    assert {0, 2, 4} == {outcome.unwrap() for outcome in iter_parallel(double, range(3))}
    assert [0, 2, 4] == [outcome.unwrap() for outcome in iter_parallel(double, range(3), order="input")]


def test_all_coroutines_of_a_run_are_on_one_loop():
    """Also those that are handed over later, so that they can share what belongs to a loop, such as a client."""

    async def look(_):
        return asyncio.get_running_loop()

    assert 1 == len(set(run_parallel(look, range(3), limits=ConcurrencyLimit(1)).values()))


# Slots


def test_no_more_than_max_workers_run_at_a_time():
    """At most ``max_workers`` coroutines run at a time, under as many names, each of which is a row in the pictures."""
    meter = Meter(7)

    async def meet(_):
        with meter:
            await meter.meet()

    results = run_parallel(meet, range(50), max_workers=7)
    assert 7 == meter.most
    names = {outcome.worker for outcome in results.outcomes.values()}
    assert {f"coroutine_{number}" for number in range(1, 8)} == names


def test_ten_thousand_coroutines_wait_at_the_same_time():
    """Ten thousand coroutines can wait for each other; an idle machine takes 20 µs for each, so 3 s are enough on any."""
    waiting, all_there = 0, asyncio.Event()

    async def meet(item):
        nonlocal waiting
        waiting += 1
        if waiting == 10_000:
            all_there.set()
        await all_there.wait()
        return item

    spent = time.process_time()
    results = run_parallel(meet, range(10_000), max_workers=10_000, run_timeout=60)
    assert list(range(10_000)) == results.values()
    assert time.process_time() - spent < 3


def test_plain_and_coroutine_functions_share_the_slots():
    """In a run of plain and coroutine functions, at most ``max_workers`` run at a time in total."""
    meter = Meter(4)

    async def wait(item):
        with meter:
            await meter.meet()
        return item

    def block(item):
        with meter:
            meter.block()
        return -item

    tasks = {n: Task(wait if n % 3 else block, n) for n in range(1, 61)}
    results = run_parallel(tasks, max_workers=4)
    assert {n: n if n % 3 else -n for n in range(1, 61)} == results.to_dict()
    assert 4 == meter.most


@pytest.mark.parametrize("coroutines_first", [True, False])
def test_a_kind_that_comes_late_waits_for_slots(coroutines_first):
    """After many functions of one kind, one of the other kind gets its turn, and the limit holds."""
    meter = Meter(3)

    async def wait():
        with meter:
            await meter.meet()

    def block():
        with meter:
            meter.block()

    many, one = (wait, block) if coroutines_first else (block, wait)
    assert 41 == len(run_parallel([*[many] * 40, one], max_workers=3).values())
    assert 3 == meter.most


def test_limits_and_priorities_hold_for_both_kinds():
    """A concurrency limit and priorities hold across plain and coroutine functions."""
    meter, order = Meter(), []

    async def wait(item):
        with meter:
            order.append(item)
            await asyncio.sleep(0)

    def block(item):
        with meter:
            order.append(item)

    tasks = [Task(wait if n % 2 else block, n, priority=n) for n in range(10)]
    run_parallel(tasks, limits=ConcurrencyLimit(1), max_workers=4)
    assert 1 == meter.most
    assert list(range(9, -1, -1)) == order


def test_a_rate_holds_for_coroutines():
    """There are never more than two starts of coroutines in any window of 50 ms."""
    results = run_parallel(double, range(8), limits=RateLimit(2, per=0.05))
    starts = sorted(outcome.started_at for outcome in results.outcomes.values())
    assert min(later - first for first, later in zip(starts, starts[2:], strict=False)) >= 0.05


def test_then_may_make_coroutine_tasks():
    """``then`` may add tasks of either kind to the run."""

    def grow(outcome):
        return [Task(double, outcome.value, key="child")] if outcome.key == 0 else ()

    assert {0: 3, "child": 6} == run_parallel(abs, [-3], then=grow).to_dict()
    assert {0: 6, "child": 12} == run_parallel(double, [3], then=grow).to_dict()


# Timeouts, retries, stops


@pytest.mark.usefixtures("unhurried")
def test_a_coroutine_past_its_timeout_is_cancelled():
    """An overdue coroutine is cancelled: its clean-up runs, its outcome is TaskTimeout, and the cause shows where it was."""
    cleaned = []

    async def slow(item):
        try:
            await asyncio.sleep(LONG)
        finally:
            cleaned.append(item)

    results = run_parallel(slow, ["a"], timeout=0.01)
    failure = results.failures[0]
    assert isinstance(failure.error, TaskTimeout)
    assert "ran longer than its timeout of 0.01 s; it was cancelled" in str(failure.error)
    assert not failure.error.abandoned
    assert isinstance(failure.error.__cause__, asyncio.CancelledError)
    assert "slow" == failure.error.__cause__.__traceback__.tb_frame.f_code.co_name
    assert "await asyncio.sleep(LONG)" in failure.traceback
    assert ["a"] == cleaned
    assert failure.stack is None


@pytest.mark.usefixtures("unhurried")
def test_a_timeout_frees_the_slot():
    """With one worker, the tasks after a cancelled coroutine run."""

    async def maybe(item):
        await asyncio.sleep(LONG if item == 0 else 0)
        return item

    tasks = [Task(maybe, item, timeout=LONG if item else 0.01) for item in range(3)]
    results = run_parallel(tasks, max_workers=1)
    assert {1: 1, 2: 2} == results.successes


@pytest.mark.all
def test_the_timeout_counts_from_the_start_not_from_the_queue():
    """Twenty coroutines of 30 ms, one at a time, all end within a timeout of 500 ms each."""

    async def nap(_):
        await asyncio.sleep(0.03)

    assert not run_parallel(nap, range(20), max_workers=1, timeout=0.5).failures


@pytest.mark.usefixtures("unhurried")
def test_own_timeouts_hold_beside_those_of_the_run():
    """Each coroutine has its own timeout: the shorter one ends first, although its coroutine began last."""
    tasks = {"long": Task(hang, timeout=0.15), "short": Task(hang, timeout=0.01)}
    failures = run_parallel(tasks, order="completion").failures
    assert ["short", "long"] == list(failures)


@pytest.mark.usefixtures("unhurried")
def test_what_an_error_in_the_clean_up_says_is_the_cause():
    """A coroutine that raises in its clean-up after a timeout is a TaskTimeout with that error as its cause."""

    async def trip(_):
        try:
            await asyncio.sleep(LONG)
        finally:
            raise ValueError("in the clean-up")

    error = run_parallel(trip, [1], timeout=0.01).failures[0].error
    assert isinstance(error, TaskTimeout)
    assert "in the clean-up" == str(error.__cause__)


def test_a_value_that_comes_after_the_timeout_is_dropped():
    """A coroutine that returns in place of being cancelled has overrun its timeout all the same, as in a thread."""

    async def late(_):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        return "late"

    error = run_parallel(late, [1], timeout=0.01).failures[0].error
    assert (TaskTimeout, None) == (type(error), error.__cause__)


@pytest.mark.usefixtures("unhurried")
def test_retries_are_those_of_any_task():
    """A coroutine that fails, or is cancelled at its timeout, is retried."""
    tries = Counter()

    async def third_time(item):
        tries[item] += 1
        if tries[item] == 1:
            raise ConnectionError
        if tries[item] == 2:
            await asyncio.sleep(LONG)
        return item

    results = run_parallel(third_time, ["a", "b"], timeout=0.2, retries=Retry(2, delay=0))
    assert {0: "a", 1: "b"} == results.successes
    assert [3, 3] == [outcome.attempts for outcome in results.outcomes.values()]


def test_a_coroutine_that_swallows_its_cancellation_is_abandoned(caplog):
    """A coroutine that swallows its cancellation is abandoned: its failure says so and has its stack, and its slot is refilled, on the same loop."""
    loops = set()

    async def stubborn(item):
        loops.add(asyncio.get_running_loop())
        while item == 0:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                pass
        return item

    tasks = [Task(stubborn, item, timeout=LONG if item else 0.01) for item in range(3)]
    results = run_parallel(tasks, max_workers=1)
    failure = results.failures[0]
    assert "did not end within 0.1 s of that, and was abandoned" in str(failure.error)
    assert "await asyncio.sleep(LONG)" in failure.stack
    assert failure.error.__notes__[0].startswith("it stood at\n")
    assert {1: 1, 2: 2} == results.successes
    assert 1 == len(loops)
    assert "did not end when it was cancelled" in caplog.text
    assert "stubborn" in caplog.text
    gc.collect()
    assert "Task was destroyed" not in caplog.text, "asyncio said the same again"


def test_a_coroutine_that_ends_while_it_is_given_up_has_one_outcome(monkeypatch):
    """It is not counted as abandoned then: it costs no slot."""
    monkeypatch.setattr(_coroutine_port, "GRACE", 0.01)
    release = threading.Event()

    def end_first(flight, *args, **kwargs):
        if kwargs:  # it is to be abandoned
            release.set()
            wait_until(lambda: not flight.claim)
        return overran(flight, *args, **kwargs)

    async def late(_):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        await asyncio.to_thread(release.wait, 30)

    monkeypatch.setattr(_coroutine_port, "overran", end_first)
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(late))
        port.start([(0, 1, None, 0.01)])
        (ended,) = port.wait(time.monotonic() + PATIENCE)
        assert (False, 0, set()) == (ended.error.abandoned, port._given(), engine._threads.abandoned)
        assert release.is_set()


def test_a_coroutine_that_cancels_all_others_costs_those_that_had_begun():
    """A coroutine that cancels all asyncio tasks costs only those that had begun; the others run."""

    async def end_all(item):
        if item == 1:
            for task in asyncio.all_tasks():
                task.cancel()
        await asyncio.sleep(0.001)
        return item

    results = run_parallel(end_all, range(5), run_timeout=30)
    assert (None, {2: 2, 3: 3, 4: 4}) == (results.stopped, results.successes)
    assert [TaskExited] * 2 == [type(one.error) for one in results.failures.values()]


@pytest.mark.parametrize("options", [{}, pytest.param({"max_failures": 9}, marks=pytest.mark.all)])
def test_a_run_of_which_every_slot_is_lost_ends_and_says_why(options):
    """If every slot is held by a coroutine that swallows its cancellation, the run ends and cancels the rest."""

    async def stubborn(_):
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                pass

    results = run_parallel(stubborn, range(5), timeout=0.01, max_workers=1, **options)
    assert "every slot is lost: 2 attempts overran their timeout" in results.stopped
    assert [TaskTimeout] * 2 + [TaskCancelled] * 3 == [type(one.error) for one in results.failures.values()]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_lost_slots_end_no_run_while_nothing_waits_for_one(kind):
    """While all tasks that are left wait for their retries, abandoned attempts may yet end: a run is failed only if none has by then."""
    release = threading.Event()

    def plain(_):
        release.wait(PATIENCE)

    async def coroutine(_):
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    engine = CoroutineEngine(1)
    port = engine.open(Job({"plain": plain, "coroutine": coroutine}[kind]))
    port.start([(index, 1, None, 0.01) for index in range(2)])
    ended = []
    while len(ended) < 2:
        ended += port.wait(time.monotonic() + PATIENCE)
    assert [] == port.wait(time.monotonic() + 0.03)  # longer than one timeout
    assert port.failure is None
    port.start([(2, 1, None, 0.01)])
    assert [] == port.wait(time.monotonic() + PATIENCE)
    assert "every slot is lost" in str(port.failure)
    release.set()
    port.close()
    engine.close()


@pytest.mark.all
@pytest.mark.parametrize("options", [{}, {"max_failures": 9}])
@pytest.mark.parametrize("hangs", ["plain", "coroutine"])
def test_a_run_goes_on_when_a_lost_slot_comes_back(hangs, options):
    """Whichever kind the abandoned attempts are, and whatever else is to run: it waited for ever for a slot that was free."""
    release, late = threading.Event(), []

    def plain():
        release.wait(30)

    async def coroutine():
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    async def quick():
        return "done"

    def give_up(error):
        late.append(error)
        if len(late) == 2:  # no slot is left
            release.set()
        return False

    hung = {"plain": plain, "coroutine": coroutine}[hangs]
    options = options | {"timeout": 0.2, "retries": Retry(1, on=give_up), "run_timeout": 10}
    results = run_parallel([hung, hung, quick, lambda: "done"], max_workers=1, **options)
    assert (None, {2: "done", 3: "done"}) == (results.stopped, results.successes)


def test_a_slot_that_a_thread_gives_back_goes_to_a_coroutine(gate):
    """The coroutine waits on its loop, which does not hear of threads by itself."""
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(None))
        port.start([(index, 1, (gate, (index,), {}), 0.01) for index in range(2)])
        ended = []
        while len(ended) < 2:
            ended += port.wait(time.monotonic() + PATIENCE)
        engine._threads.loss = Loss(math.inf, 0.0)  # as if there were time
        port.start([(2, 1, (double, (4,), {}), None)])
        wait_until(lambda: not port._loop._asked)  # it has looked, and there was no slot
        gate.opened.set()
        (block,) = port.wait(time.monotonic() + PATIENCE)
    assert [8] == block.values


def test_a_run_that_uses_all_the_room_it_has_is_told_of_more():
    """A slot that comes back from an abandoned attempt is used at once, and not only when another attempt ends."""
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(hang, exact=True))
        port.start([(0, 1, None, None)])
        assert 0 == port.room()
        port.hear_of_room()
        last = time.monotonic() + PATIENCE
        assert [] == port.wait(last)
        assert time.monotonic() < last


def test_a_slot_that_comes_free_as_room_is_counted_is_heard_of(monkeypatch):
    """The count may not have seen it, and nobody would tell the run of it again."""

    def count():
        port.hear_of_room()
        return 1

    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(None, exact=True))
        monkeypatch.setattr(engine._threads, "capacity", count)
        port.room()
        assert port._woken


def test_a_thread_that_a_coroutine_started_is_not_waited_for(caplog, monkeypatch):
    """A run does not wait for a thread that ``asyncio.to_thread`` has started, and logs that it still runs."""
    monkeypatch.setattr(_coroutine_port, "GRACE", PATIENCE)
    release, began = threading.Event(), time.monotonic()

    async def elsewhere(_):
        await asyncio.to_thread(release.wait, 30)

    try:
        failure = run_parallel(elsewhere, [1], timeout=0.05).failures[0]
    finally:
        release.set()
    assert "it was cancelled" in str(failure.error)
    assert time.monotonic() - began < 10
    assert "asyncio.to_thread still runs, and was not waited for" in caplog.text


@given_time
def test_a_coroutine_that_blocks_its_loop_is_named_and_left_behind(caplog, scale):
    """If a coroutine blocks the loop, those that wait on it fail with its name; those that had not begun run on a new loop."""
    release, names = threading.Event(), {}
    begun, blocked, together = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def maybe(item):
        names[item] = threading.current_thread().name
        if item == "wait":
            begun.set()
            await blocked.wait()
        elif item == "block":
            await begun.wait()
            blocked.set()  # which the other hears of at the loop's next turn
            release.wait(30)
        else:
            if len(names) == 4:
                together.set()
            await together.wait()
        return item

    items = ["block", "wait", "late", "later"]
    try:
        results = run_parallel(maybe, items, key=str, timeout=0.3 * scale, max_workers=2)
    finally:
        release.set()
    assert {"late": "late", "later": "later"} == results.successes
    assert ["_loop_2"] * 2 == [names[item][-7:] for item in ("late", "later")]
    assert "it blocked the event loop, so it could not be cancelled" in str(results.failures["block"].error)
    assert "task 'block' blocked the event loop" in str(results.failures["wait"].error)
    assert "release.wait(30)" in results.failures["block"].stack
    assert "a coroutine blocks its event loop, whose thread was abandoned, at" in caplog.text
    assert "release.wait(30)" in caplog.text


def test_a_blocked_loop_cannot_keep_the_interpreter_from_exiting():
    """Its thread is a daemon, as those are that run plain functions."""

    async def look():
        return threading.current_thread().daemon

    assert [True] == run_parallel([look]).values()


def test_a_loop_that_was_left_behind_takes_nothing_more():
    """Once it is free, it would run what is queued for the new loop."""
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(double))
        port._queue.append((0, 1, 1, None))
        assert port.take(Mock()) is None
        assert 1 == len(port._queue)


def test_what_a_blocked_loop_has_not_begun_moves_to_the_new_one():
    """It begins there once, in the same order, and has as many slots as before."""
    release, together, begun = threading.Event(), asyncio.Event(), []

    async def maybe(item):
        begun.append(item)
        if item == 0:
            release.wait(30)
            return
        if len(begun) == 4:
            together.set()
        await together.wait()

    tasks = [Task(maybe, item, timeout=PATIENCE if item else 0.05) for item in range(4)]
    try:
        results = run_parallel(tasks, max_workers=3)
    finally:
        release.set()
    assert [1, 2, 3] == list(results.successes)
    assert [0, 1, 2, 3] == begun


def test_what_a_blocked_loop_has_not_begun_when_the_run_stops_never_begins():
    """Such a task is reported as never started, and is not started after the run either, when the loop is free."""
    release, blocked, begun, loops = threading.Event(), threading.Event(), [], []

    async def block(item):
        begun.append(item)
        loops.append(threading.current_thread())
        blocked.set()
        release.wait(30)

    def fail():
        assert blocked.wait(30)
        raise OSError

    tasks = [*(Task(block, item) for item in range(3)), fail]
    try:
        results = run_parallel(tasks, max_workers=4, max_failures=1)
    finally:
        release.set()
    assert [1, 0, 0, 1] == [failure.attempts for failure in results.failures.values()]
    loops[0].join(30)
    assert [0] == begun


def test_what_a_loop_takes_at_the_moment_of_the_close_never_begins():
    """An attempt that its loop has just taken, so that it is no longer queued, is withdrawn like all that are."""
    begun = []

    class ClosesMeanwhile(deque):
        def popleft(self):
            ticket = super().popleft()
            port.close()
            return ticket

    async def begin(item):
        begun.append(item)

    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(begin))
        port._queue = ClosesMeanwhile()
        port.start([(0, 1, 0, None)])
        port._loops[0].thread.join(30)
    assert ([], set()) == (begun, port._flights)


def test_what_has_begun_at_the_moment_of_the_close_is_known_to_have_begun(monkeypatch):
    """An attempt that its loop is just beginning, so that it cannot be withdrawn any more, is among those that were cut off."""
    begun = []

    def take_and_close(claim):
        taken = take_claim(claim)
        port.close()
        return taken

    async def begin(item):
        begun.append(item)

    monkeypatch.setattr(_event_loop, "take_claim", take_and_close)
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(begin))
        port.start([(0, 1, "item", None)])
        port._loops[0].thread.join(30)
    assert ([0], ["item"]) == ([index for index, *_ in port.late], begun)


def test_what_never_begins_is_freed_with_the_port():
    """What was withdrawn from a loop, and all that it refers to, needs no garbage collection."""
    release, blocked = threading.Event(), threading.Event()

    class Load:
        pass

    async def block(load):
        blocked.set()
        release.wait(30)

    loads = [Load(), Load()]
    seen = [weakref.ref(load) for load in loads]
    gc.disable()
    try:
        with closing(CoroutineEngine(2)) as engine:
            port = engine.open(Job(block))
            port.start([(index, 1, load, None) for index, load in enumerate(loads)])
            assert blocked.wait(30)
            (loop,) = port._loops
            port.close()
            release.set()
            loop.thread.join(30)
            del loads, loop
            port.join()
            del port
            assert [None, None] == [ref() for ref in seen]
    finally:
        gc.enable()


def test_what_a_blocked_loop_could_not_cancel_is_cancelled_once_it_is_free():
    """An attempt that was abandoned because another blocked its loop does not go on for ever: it ends when the loop can end it, as does the loop."""
    release, waiting, cleaned, blocked = threading.Event(), asyncio.Event(), threading.Event(), []

    async def wait():
        try:
            waiting.set()
            await asyncio.sleep(LONG)
        finally:
            cleaned.set()

    async def block():
        blocked.append(threading.current_thread())
        await waiting.wait()
        release.wait(30)

    async def look():
        release.set()
        await asyncio.to_thread(cleaned.wait, 30)
        await asyncio.to_thread(blocked[0].join, 30)
        return cleaned.is_set() and not blocked[0].is_alive()

    tasks = {"wait": Task(wait, timeout=0.1), "block": block, "look": look}
    try:
        results = run_parallel(tasks, max_workers=2)
    finally:
        release.set()
    assert ["wait"] == list(results.failures)
    assert results["look"]


def test_what_has_begun_on_a_loop_that_was_left_behind_goes_on_there(monkeypatch):
    """An attempt that could wait out the block has its value, however many steps it takes."""
    monkeypatch.setattr(_coroutine_port, "GRACE", 0.01)
    release, waiting = threading.Event(), asyncio.Event()

    async def go_on():
        waiting.set()
        await asyncio.to_thread(release.wait, 30)
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    async def block():
        await waiting.wait()
        release.wait(30)

    async def free():
        release.set()

    try:
        results = run_parallel([go_on, Task(block, timeout=0.01), free], max_workers=2)
    finally:
        release.set()
    assert {0: "done", 2: None} == results.successes


def test_a_background_task_that_blocks_the_loop_costs_what_waits_there(monkeypatch):
    """No attempt executes then, so none is named as what blocks the loop."""
    monkeypatch.setattr(_coroutine_port, "GRACE", 0.01)
    release = threading.Event()

    async def block():
        release.wait(30)

    async def start():
        start.left = asyncio.ensure_future(block())
        await start.left

    async def free():
        release.set()

    try:
        failure = run_parallel([Task(start, timeout=0.01), free], max_workers=1).failures[0]
    finally:
        release.set()
    assert "; its event loop was blocked, and it was abandoned" in str(failure.error)


def test_a_coroutine_may_close_the_stream_that_it_belongs_to():
    """Its loop is not waited for then, which could not end before."""
    yielded, closed = threading.Event(), threading.Event()

    async def close(item):
        if item:
            await asyncio.to_thread(yielded.wait, 30)
            stream.close()
            closed.set()
        return item

    stream = iter_parallel(close, range(2))
    assert 0 == next(stream).unwrap()
    yielded.set()
    assert closed.wait(PATIENCE)
    assert [] == list(stream)


@pytest.mark.all
def test_blocked_loops_are_waited_for_together(monkeypatch):
    """However many loops were blocked, the end of the run waits for all of them until the same instant."""
    release, instants, join = threading.Event(), [], _event_loop.EventLoop.join

    def note(loop, until):
        instants.append(until)
        join(loop, until)

    async def block(_):
        release.wait(30)

    monkeypatch.setattr(_event_loop.EventLoop, "join", note)
    try:
        results = run_parallel(block, range(3), timeout=0.01, max_workers=3)
    finally:
        release.set()
    assert 3 == len(results.failures) == len(instants)
    assert 1 == len(set(instants))


@pytest.mark.usefixtures("unhurried")
@given_time
def test_a_run_timeout_cancels_what_runs(scale, caplog):
    """At ``run_timeout``, coroutines are cancelled, and their clean-up runs before the call returns, of which nothing is logged."""
    cleaned = []

    async def slow(item):
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0)
            cleaned.append(item)

    results = run_parallel(slow, range(3), max_workers=2, run_timeout=0.5 * scale)
    assert [TaskCancelled] * 3 == [type(one.error) for one in results.failures.values()]
    assert [0, 1] == sorted(cleaned)
    assert "" == caplog.text


@pytest.mark.usefixtures("unhurried")
def test_the_first_success_cancels_the_others():
    """The first success of a race cancels all other coroutines."""
    begun, ended, all_there = [], [], asyncio.Event()

    async def lose():
        begun.append(True)
        if len(begun) == 2:
            all_there.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def win():
        await all_there.wait()
        return "won"

    assert "won" == first_success([lose, win, lose]).value
    assert ["cancelled"] * 2 == ended


def test_closing_a_stream_cancels_what_runs():
    """Closing a stream cancels its coroutines, waits for nothing, and leaves no loop."""

    async def maybe(item):
        await asyncio.sleep(LONG if item else 0)
        return item

    stream = iter_parallel(maybe, range(3))
    assert 0 == next(stream).unwrap()
    stream.close()


# Misuse


@pytest.mark.parametrize("executor", ["processes", "inline"])
def test_another_executor_refuses_coroutine_functions(executor):
    """Other executors refuse a coroutine function at the call, with its name and what to pass instead."""
    with pytest.raises(
        TypeError, match=rf"under executor='{executor}', got <function double .*executor='threads'"
    ):
        run_parallel(double, [1], executor=executor)
    with pytest.raises(TypeError, match="tasks must not be a coroutine function"):
        run_parallel({"a": Task(double, 1)}, executor=executor)
    with pytest.raises(TypeError, match="tasks must not be a coroutine function"):
        run_parallel([abs, double], executor=executor)


def test_an_executor_object_refuses_coroutine_functions():
    """A foreign executor object refuses coroutine functions, because it has no event loop; the message names its type."""
    with ThreadExecutor(1) as executor, pytest.raises(TypeError, match="under executor=ThreadExecutor"):
        run_parallel(double, [1], executor=executor)


def test_another_executor_refuses_coroutine_functions_as_they_are_read():
    """A coroutine function in lazy input or from ``then`` is refused when it is read; earlier tasks are run."""
    with pytest.raises(InputError, match="must not be a coroutine function") as caught:
        run_parallel((task for task in [Task(abs, -1), double]), executor="inline")
    assert {0: 1} == caught.value.results.successes
    with pytest.raises(InputError, match="must not be a coroutine function"):
        run_parallel(abs, [-1], executor="inline", then=lambda outcome: [Task(double, 1)])


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_plain_function_that_returns_a_coroutine_has_failed(executor):
    """A plain function that returns a coroutine fails with advice, is not retried, and causes no Python warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = run_parallel(lambda n: double(n) if n else n, range(3), executor=executor, retries=3)
    assert {0: 0} == results.successes
    failure = results.failures[1]
    assert "returned a coroutine (double) that nobody awaits; pass the coroutine function" in str(
        failure.error
    )
    assert 1 == failure.attempts
    assert [] == caught


def test_a_coroutine_function_that_returns_a_coroutine_has_failed_too():
    """A coroutine function whose result is another coroutine fails: that is no value."""

    async def nested(number):
        return double(number)

    with pytest.raises(TaskFailures):
        run_parallel(nested, [1]).values()


def test_a_submitted_call_may_return_a_coroutine():
    """``submit`` follows concurrent.futures, where a coroutine is a value like any other."""
    with ThreadExecutor(1) as executor:
        made = executor.submit(double, 2).result()
    assert 4 == asyncio.run(made)


# What is left, and what is noted


@pytest.mark.usefixtures("unhurried")
def test_async_generators_and_background_tasks_end_with_the_run():
    """Async generators and background tasks end with the run, as ``asyncio.run`` would end them."""
    ended = []

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    async def tick():
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append("background")

    async def start(_):
        start.kept = numbers(), asyncio.ensure_future(tick())
        await asyncio.sleep(0)
        return await anext(start.kept[0])

    assert [1] == run_parallel(start, [0]).values()
    assert ["background", "generator"] == sorted(ended)
    del start.kept


def test_a_background_task_that_does_not_end_is_left_behind(caplog, monkeypatch):
    """The run ends all the same, and a warning is logged that shows where the task stands."""
    monkeypatch.setattr(_event_loop, "GRACE", 0.01)

    async def stay():
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(LONG)

    async def start(_):
        start.kept = asyncio.ensure_future(stay())
        await asyncio.sleep(0)

    assert [None] == run_parallel(start, [0]).values()
    assert "a coroutine did not end when it was cancelled" in caplog.text
    assert "await asyncio.sleep(LONG)" in caplog.text
    del start.kept


def test_an_async_generator_that_does_not_close_is_left_behind(caplog):
    """Its clean-up is cancelled, the run ends all the same, and a warning is logged."""

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(LONG)

    async def start(_):
        start.kept = numbers()
        return await anext(start.kept)

    assert [1] == run_parallel(start, [0]).values()
    assert "an async generator did not end when it was closed" in caplog.text
    assert "blocks its event loop" not in caplog.text
    del start.kept


def test_threads_that_coroutines_start_end_with_the_run(caplog):
    """``asyncio.to_thread`` works, and its threads end with the run, of which nothing is logged."""

    async def elsewhere(item):
        return await asyncio.to_thread(abs, item)

    assert [1, 2] == run_parallel(elsewhere, [-1, -2]).values()
    assert "" == caplog.text


def test_the_report_is_told_who_blocked_the_loop(monkeypatch):
    """The run records, for the report, which task blocked the event loop for longest, unless its steps are short."""
    clock = FakeClock()
    monkeypatch.setattr(_event_loop, "monotonic", clock)

    async def maybe(item):
        clock.advance(0.01)
        await asyncio.sleep(0)
        clock.advance([0.0, 0.06, 0.08, 0.07][item])

    facts = run_parallel(maybe, range(4))._ledger.facts
    assert 2 == facts.longest_step_of
    assert [0.08, 0.21] == pytest.approx([facts.longest_step, facts.blocked_seconds])
    assert -1 == run_parallel(double, range(4))._ledger.facts.longest_step_of


def test_what_blocks_the_loop_now_is_told_apart_from_what_waits_there(monkeypatch):
    """Each has its own stack, which shows the plain function that blocks, and the block counts although it goes on."""
    clock, release, blocked = FakeClock(), threading.Event(), threading.Event()
    clock.advance(1.0)
    monkeypatch.setattr(_event_loop, "monotonic", clock)

    def hold():
        blocked.set()
        release.wait(30)

    async def block():
        hold()

    with closing(CoroutineEngine(2)) as engine:
        port = engine.open(Job(None))
        port.start([(0, 1, (hang, (), {}), None), (1, 1, (block, (), {}), None)])
        assert blocked.wait(30)
        stacks = port.stacks()
        before = port._loop.blocked()
        clock.advance(0.0625)
        after = port._loop.blocked()
        release.set()
    assert [(True, False), (False, True)] == [
        ("in hang" in stacks[index], "in hold" in stacks[index]) for index in range(2)
    ]
    assert ((0.0, 0.0, -1), (0.0625, 0.0625, 1)) == (before, after)


def test_the_report_is_told_of_each_loop():
    """A run that had to leave a blocked loop behind counts the blocks of all its loops, and names the longest."""
    engine = CoroutineEngine(1)
    with closing(engine):
        port = engine.open(Job(None))
        port._loops = [
            Mock(**{"blocked.return_value": blocked}) for blocked in ((3.0, 2.0, 7), (1.0, 1.0, 4))
        ]
        facts = Facts()
        port.measure(facts)
        assert (4.0, 2.0, 7) == (facts.blocked_seconds, facts.longest_step, facts.longest_step_of)
        port._loops = []


def begin(deadlines, number, at, limit):
    """An attempt that begins at an instant with a timeout; whether the run must be woken for it."""
    flight = Flight((number, 1, None, limit), None, "")
    flight.started = at
    flight.claim.append(at)
    return flight, deadlines.begun(flight, limit)


def test_an_attempt_that_begins_while_the_run_looks_wakes_it():
    """When the run has looked at the deadlines and not yet settled when to look next, it would miss that of a new one."""
    deadlines = Deadlines()
    assert begin(deadlines, 0, 0.0, 5.0)[1]
    deadlines.overdue(0.0, 1)
    assert 5.0 == deadlines.settle_at(math.inf)
    assert [True, False] == [begin(deadlines, 1, 1.0, limit)[1] for limit in (3.0, 9.0)]
    deadlines.overdue(3.0, 3)
    assert 4.0 == deadlines.settle_at(math.inf)
    deadlines.overdue(5.0, 3)
    assert begin(deadlines, 2, 5.0, 60.0)[1]
    assert 7.0 == deadlines.settle_at(7.0)


def test_deadlines_of_attempts_that_have_ended_take_no_memory():
    """However far off they are: a long run with a long timeout would keep all its items. The order of the others stays."""
    deadlines = Deadlines()
    for number in range(1000):
        flight, _ = begin(deadlines, number, 0.0, 3600.0 + number * 13 % 1000)
        if number % 100:
            flight.claim.clear()
        deadlines.overdue(1.0, 10)
    assert len(deadlines._due) < 100
    assert [0, 700, 400] == [flight.ticket[0] for flight in deadlines.overdue(3800.0, 10)]


def test_deadlines_of_attempts_that_run_are_not_gone_through(monkeypatch):
    """The run looks at the deadlines whenever an attempt ends: if it went through all, ten thousand would cost too much each time."""
    monkeypatch.setattr(_overdue, "heapify", None)
    deadlines = Deadlines()
    for number in range(1000):
        begin(deadlines, number, 0.0, 5.0)
    assert [] == deadlines.overdue(1.0, 1000)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_a_coroutine_may_have_its_loop_make_eager_tasks():
    """The attempts themselves begin one after another all the same: begun eagerly, each would start the next within it."""

    async def eager(item):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return item

    assert list(range(2000)) == run_parallel(eager, range(2000), run_timeout=30).values()


FORKS = """
import asyncio, os
from parallelkit import run_parallel
async def fork(how):
    os.write(2, b"#")
    await asyncio.sleep(0)
    if how == "wait" or os.fork():
        return how == "wait" or os.waitstatus_to_exitcode(os.wait()[1])
    if how == "awaits":
        await asyncio.sleep(0)
    return 1 / 0 if how == "raises" else "the child came back"
print(run_parallel(fork, ["returns", "raises", "awaits", "wait"], max_workers=1).values())
"""


def test_a_forked_child_that_comes_back_from_its_coroutine_ends():
    """As one does that a task has forked in a thread: it must not go on with the event loop and the tasks of its parent."""
    quiet = "-Wignore:This process:DeprecationWarning"  # of Python 3.12 on, that a process with threads forks
    command = [sys.executable, quiet, "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("[0, 1, 1, True]\n", 0) == (done.stdout, done.returncode)
    assert 4 == done.stderr.count("#")
    assert [1, 1] == [done.stderr.count(text) for text in ("\nZeroDivisionError", "\nRuntimeError")]


def test_an_engine_that_saw_no_coroutine_has_no_loop():
    """With plain functions only, no loop is started, and asyncio is not imported."""
    code = (
        "import sys; from parallelkit import run_parallel; run_parallel(abs, [1]); run_parallel([dict]);"
        "print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()


def test_a_run_waits_without_looking_again_and_again(monkeypatch):
    """Not even after it was woken once."""
    looks = []
    with closing(CoroutineEngine(1)) as engine:
        port = engine.open(Job(hang))
        wait = port._threads.wait
        monkeypatch.setattr(port._threads, "wait", lambda until: looks.append(until) or wait(until))
        port.start([(0, 1, None, LONG)])
        port.wake()
        assert [] == port.wait(time.monotonic() + PATIENCE)
        until = time.monotonic() + 0.02
        assert [] == port.wait(until)
        assert time.monotonic() >= until
    assert len(looks) <= 5  # it is also woken as the attempt begins


def test_a_port_is_closed_twice_without_harm():
    """``close`` is idempotent, even if nothing has begun."""
    engine = CoroutineEngine(2)
    port = engine.open(Job(hang))
    port.start([(0, 1, 5, None)])
    port.close()
    port.close()
    engine.close()
    engine.close()
    assert [] == port.wait(0.0)


def test_a_loop_that_gets_no_thread_leaves_nothing_open(monkeypatch):
    """If the system starts no thread for the loop, the run fails, and the loop's descriptors are closed at once."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    run_parallel(double, [], executor="threads")  # what is imported late is imported
    before = look()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_parallel(double, [1])
    assert [] == leaks(before, look(), 0)


@pytest.mark.parametrize("kind", [SystemExit, RuntimeError])
def test_a_signal_handler_that_raises_as_the_loop_starts_leaves_no_thread(kind, monkeypatch):
    """If a signal handler raises during the start of the loop's thread, that thread ends.

    So it does if the handler raises a RuntimeError, as ``start`` does if the system has no more threads.
    """
    start = threading.Thread.start

    def start_and_signal(thread):
        start(thread)
        if "_loop_" in thread.name:
            signal.raise_signal(signal.SIGUSR1)

    def give_up(number, frame):
        raise kind("told to end")

    monkeypatch.setattr(threading.Thread, "start", start_and_signal)
    former = signal.signal(signal.SIGUSR1, give_up)
    before = look()
    try:
        with pytest.raises(kind, match="told to end"):
            run_parallel([dict, Task(double, 1)], limits=ConcurrencyLimit(1))
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert [] == leaks(before, look(), 0)


def test_a_signal_handler_that_raises_as_the_loop_is_made_leaves_no_descriptor(monkeypatch):
    """The loop is made in its own thread, where no handler can raise amid that."""
    make = asyncio.new_event_loop

    def make_and_signal():
        loop = make()
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(0.05)  # let the handler raise in the main thread, if it can, before anybody knows the loop
        return loop

    def give_up(number, frame):
        raise LookupError("told to end")

    monkeypatch.setattr(asyncio, "new_event_loop", make_and_signal)
    former = signal.signal(signal.SIGUSR1, give_up)
    before = look()
    try:
        with pytest.raises(LookupError, match="told to end"):
            run_parallel(double, [1])
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert [] == leaks(before, look(), 0)


def test_a_loop_that_cannot_be_made_fails_the_run_with_the_reason(monkeypatch):
    """As if there are no descriptors for it."""

    def refuse():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    before = look()
    with pytest.raises(OSError, match="Too many open files"):
        run_parallel(double, [1])
    assert [] == leaks(before, look(), 0)


def test_a_coroutine_that_the_collector_ends_before_its_steps_is_not_awaited_again():
    """Of what is garbage together, any part may be finalized first; a complaint would be printed at a moment that nobody chose."""

    async def pause():
        await asyncio.sleep(0)

    coroutine = pause()
    flight, loop = SimpleNamespace(coroutine=coroutine), SimpleNamespace(_forks=len(_event_loop._forks))
    steps = EventLoop._steps(loop, flight)
    next(steps)
    coroutine.close()
    steps.close()
    assert inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED
