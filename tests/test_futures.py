"""``ThreadExecutor`` and ``ProcessExecutor`` beyond the contract of ``concurrent.futures``, which tests/cpython tests."""

import errno
import gc
import itertools
import math
import multiprocessing.util
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.thread import BrokenThreadPool
from contextlib import closing, nullcontext, suppress
from functools import partial

import pytest
import remote_tasks as far
from late_threads import LateThreads
from patience import PATIENCE, given_time, wait_until
from port_driver import fifo

from parallelkit import (
    ParallelKitError,
    ProcessExecutor,
    RunInterrupted,
    Task,
    TaskCancelled,
    TaskExited,
    TaskTimeout,
    ThreadExecutor,
    WorkerDied,
    iter_parallel,
    run_parallel,
)
from parallelkit._executors._choice import default_processes, default_threads
from parallelkit._executors._process import _starter
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Broken
from parallelkit._executors._submit import _exit, _future, _opening
from parallelkit._executors._submit._future import PoolFuture
from parallelkit._executors._submit._opening import Opening
from parallelkit._executors._submit._settling import fail, to_cancel
from parallelkit._executors._thread import _starts
from parallelkit._executors._thread._loss import Loss
from parallelkit._executors._thread._worker import ThreadWorker
from parallelkit._worker._chunk import Chunk
from parallelkit.testing import inline_runs

both = pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])

ADVICE = "make a new executor in the child"


@both
@pytest.mark.parametrize("used", [False, True])
def test_a_shutdown_stops_the_runs_on_the_executor(make, used):
    """A shutdown stops runs on the executor, which would otherwise wait forever for its workers."""
    executor = make(1)
    if used:
        assert 1 == executor.submit(abs, -1).result()

    def items():
        yield -1
        executor.shutdown(wait=True)
        yield from range(-100, 0)

    results = run_parallel(abs, items(), executor=executor)
    assert "the executor was shut down" == results.stopped
    assert results.failures


@both
def test_a_shutdown_ends_the_streams_on_the_executor(make):
    """A stream ends as well, and its last outcomes say why."""
    executor = make(1)
    with closing(iter_parallel(abs, range(-1000, 0), executor=executor)) as stream:
        next(stream)
        executor.shutdown(wait=True)
        *_, last = stream
    assert isinstance(last.error, TaskCancelled)
    assert "the executor was shut down" in str(last.error)


@both
@given_time
@pytest.mark.all
def test_the_timeout_of_an_executor_is_the_default_of_its_runs(make, scale):
    """An executor's timeout is the default of its runs; a run's own, and then a task's own, take precedence."""
    limit, within, beyond = 0.1 * scale, 0.15 * scale, 0.4 * scale
    with make(2, timeout=limit) as executor:
        results = run_parallel(time.sleep, [0, beyond], executor=executor)
        assert [None, "late"] == results.values(default="late")
        assert f"task 1 ran longer than its timeout of {limit:g} s" in str(results.failures[1].error)
        assert [True] == [
            one.ok for one in iter_parallel(time.sleep, [within], executor=executor, timeout=60)
        ]
        assert [None] == run_parallel(time.sleep, [within], executor=executor, timeout=math.inf).values()
        tasks = [Task(time.sleep, within, timeout=60), Task(time.sleep, beyond)]
        assert [None, "late"] == run_parallel(tasks, executor=executor).values(default="late")
    time.sleep(beyond - limit)  # by now the threads that overslept have come back


def test_a_staged_run_has_the_timeout_of_its_executor():
    """In ``inline_runs``, the fake clock meets the executor's timeout, too."""
    with ThreadExecutor(1, timeout=2) as executor, inline_runs() as clock:
        results = run_parallel(clock.advance, [1, 3], executor=executor)
    assert [True, False] == [outcome.ok for outcome in results.outcomes.values()]


class Unbound:
    """A callable as a proxy without an object: reading an attribute that its class lacks raises no AttributeError."""

    def __init__(self):
        self.go = threading.Event()

    def __call__(self):
        self.thread = threading.current_thread()
        self.go.wait(PATIENCE)

    def __getattr__(self, name):
        raise RuntimeError(f"no context: {name}")


def test_a_call_whose_name_cannot_be_read_is_named_by_its_class(caplog):
    """The error of reading it broke the executor, where a message was to name the call."""
    unbound = Unbound()
    with ThreadExecutor(1, timeout=0.01) as executor:
        with pytest.raises(TaskTimeout, match="the call of Unbound ran longer"):
            executor.submit(unbound).result()
        executor.submit(abs, -3)  # is taken, for nothing is broken
        unbound.go.set()
    unbound.thread.join()
    assert "" == caplog.text
    assert "Unbound (a chunk of calls)" == Chunk(unbound).__qualname__


def test_what_another_pool_calls_timeout_is_not_that_of_a_task():
    """An attribute ``_timeout`` of a foreign pool, such as loky's idle time, is not taken for a timeout of tasks."""

    class Idling(ThreadPoolExecutor):
        _timeout = 0.01

    with Idling(1) as pool:
        assert [None] == run_parallel(time.sleep, [0.1], executor=pool).values()


@both
@pytest.mark.parametrize("used", [False, True])
def test_a_stream_that_begins_after_the_shutdown_of_its_executor_is_refused(make, used):
    """A stream whose executor was shut down between the call and the first ``next`` is refused."""
    executor = make(1)
    if used:
        assert 1 == executor.submit(abs, -1).result()
    stream = iter_parallel(abs, [-1], executor=executor)
    executor.shutdown(wait=True)
    with pytest.raises(RuntimeError, match="this executor is closed: it was shut down before the run began"):
        next(stream)


@both
def test_what_a_call_raises_is_what_its_future_has(make):
    """A future has exactly what its call raised: SystemExit, as in standard pools, or the error of a run within the call."""
    with make(1) as executor:
        assert isinstance(executor.submit(sys.exit, 3).exception(), SystemExit)
        nested = executor.submit(lambda: run_parallel(sys.exit, [3], executor="inline")[0]).exception()
    assert (TaskExited, "the task raised SystemExit: 3") == (type(nested), str(nested))
    assert isinstance(nested.__cause__, SystemExit)


@both
@pytest.mark.parametrize("call", [run_parallel, iter_parallel])
def test_an_initializer_that_raises_is_named_in_a_line_and_its_error_is_the_cause(make, call):
    """The reason and every outcome name an initializer's error in one line; its traceback comes once, with the cause, even after pickling."""
    with make(2, initializer=far.without_model, initargs=("here",)) as executor:
        outcomes = call(abs, [-1, -2], executor=executor)
        if call is run_parallel:
            outcomes = list(pickle.loads(pickle.dumps(outcomes)).outcomes.values())
        for outcome in outcomes:
            said = str(outcome.error).partition(" of a worker ")[2].partition(" ")[2]
            assert "raised LookupError: no model at here" == said
            assert (LookupError, ("no model at here",)) == (
                type(outcome.error.__cause__),
                outcome.error.__cause__.args,
            )
            assert 1 == outcome.traceback.count(", in without_model\n")
            assert "parallelkit/_" not in outcome.traceback
        with pytest.raises(BrokenExecutor, match=r"raised LookupError: no model at here$") as broken:
            executor.submit(abs, -1).result()
        assert isinstance(broken.value.__cause__, LookupError)
        with pytest.raises(BrokenExecutor, match="no model at here"):
            call(abs, [-1], executor=executor)


@both
def test_an_initializer_that_raises_is_logged_once(make, caplog):
    """As by the standard pools, with its traceback: perhaps nobody asks the calls for their errors."""
    with make(2, initializer=far.without_model, initargs=("here",)) as executor:
        for _ in range(3):
            with suppress(BrokenExecutor):
                executor.submit(abs, -1)
    assert ["an executor is broken, and makes no more calls"] == caplog.messages
    assert "LookupError: no model at here" in caplog.text


def test_an_executor_that_breaks_again_is_not_logged_again(caplog):
    """As an initializer may fail in each thread that starts, while a call goes on that another has begun."""
    numbers, begun, submitted, going_on = itertools.count(), *(threading.Event() for _ in range(3))

    def go_on():
        begun.set()
        return going_on.wait()

    def begin():
        number = next(numbers)
        if number == 1:
            submitted.wait()
        if number == 2:
            wait_until(lambda: caplog.messages)
        if number > 0:
            raise LookupError(number)

    with ThreadExecutor(3, initializer=begin) as executor:
        try:
            first, *_ = [executor.submit(go_on) for _ in range(3)]
            begun.wait()
            submitted.set()
            wait_until(lambda: len(executor._pool._starts._breaks) == 2)
        finally:
            going_on.set()
    assert first.result()
    assert ["an executor is broken, and makes no more calls"] == caplog.messages


@both
def test_a_call_that_fails_with_its_executor_does_so_before_that_is_logged(make, caplog):
    """Else a handler of the log that waits for it, as it sends the records away, would do so for ever."""
    with make(1, initializer=far.without_model, initargs=("here",)) as executor:
        caplog.handler.acquire()
        try:
            with pytest.raises(BrokenExecutor):
                executor.submit(abs, -1).result(timeout=PATIENCE)
        finally:
            caplog.handler.release()
    assert 1 == len(caplog.messages)


@both
def test_a_broken_executor_that_nobody_has_is_freed(make):
    """What broke it does not keep the frames of those who caught the error, among whose variables the executor is."""

    def use(later_too):
        executor = make(1, initializer=far.without_model, initargs=("here",))
        for _ in range(1 + later_too):  # its future has the error, and then ``submit`` raises it
            with pytest.raises(BrokenExecutor):
                executor.submit(abs, -1).result()
        return weakref.ref(executor)

    seen = [use(False), use(True)]
    gc.collect()
    assert [None, None] == [each() for each in seen]


@both
def test_a_broken_executor_ends_its_threads(make):
    """Without a ``shutdown``: else its own thread would look for more calls again and again, and use a processor."""
    executor = make(1, initializer=far.without_model, initargs=("here",))
    with pytest.raises(BrokenExecutor):
        executor.submit(abs, -1).result(30)
    own = executor._dispatcher._opening.thread
    own.join(30)
    assert not own.is_alive()


@pytest.fixture
def breaking():
    """An executor of four threads, of whose initializers two have raised; two calls in the other threads, each with what ends it, and others."""
    started, both, begun = iter([None, None]), threading.Barrier(2), threading.Semaphore(0)
    ends = [threading.Event(), threading.Event()]

    def begin():
        if next(started, both):
            both.wait(30)
            raise LookupError("no model")

    with ThreadExecutor(4, initializer=begin) as executor:
        calls = [executor.submit(lambda end: begun.release() or end.wait(30), end) for end in ends]
        assert [True, True] == [begun.acquire(timeout=30) for _ in calls]
        others = [executor.submit(abs, -1) for _ in range(3)]
        assert not wait(others, 30).not_done
        # Of the second, too; and the dispatcher has seen it: else it would look again and again.
        wait_until(lambda: len(executor._pool.workers) == 2 and executor._dispatcher._port.failure is None)
        yield executor, [*zip(calls, ends, strict=True)], others
        for end in ends:
            end.set()


def test_an_initializer_that_raises_ends_no_call_that_has_begun(breaking):
    """As in a standard pool: it has its value, and the shutdown waits for it; those that have not begun fail."""
    executor, [(first, end_first), (second, end_second)], others = breaking
    for other in others:
        with pytest.raises(BrokenThreadPool, match="no model"):
            other.result(0)
    with pytest.raises(BrokenThreadPool, match="no model"):
        executor.submit(abs, -1)
    assert first.running()
    end_first.set()
    assert first.result(30)
    assert second.running()
    end_second.set()
    executor.shutdown()
    assert second.result(0)


def test_an_initializer_that_hangs_breaks_an_executor_once(monkeypatch):
    """Else the executor's own thread would look again and again while it waits for a call that has begun, and use a processor."""
    monkeypatch.setattr(_starts, "START_LIMIT", 0.02)
    started, begun, go = iter([None]), threading.Event(), threading.Event()
    with ThreadExecutor(2, initializer=lambda: next(started, go) and go.wait(30)) as executor:
        first = executor.submit(lambda: begun.set() or go.wait(30))
        assert begun.wait(30)
        with pytest.raises(BrokenThreadPool, match=r"did not end within 0\.02 s"):
            executor.submit(abs, -1).result(30)
        looked_at = executor._pool.check_starts(math.inf)
        assert first.running()
        go.set()
        assert first.result(30)
    assert looked_at is None


def test_a_broken_executor_that_has_lost_every_slot_waits_for_no_call(breaking):
    """The calls that have begun before it broke hang; none would ever end."""
    executor, calls, _ = breaking
    executor._dispatcher._port.fail(ParallelKitError("every slot is lost"))
    for call, _ in calls:
        with pytest.raises(ParallelKitError, match="every slot is lost"):
            call.result(30)
    with pytest.raises(BrokenThreadPool):
        executor.submit(abs, -1)


def test_a_call_that_waits_for_one_for_which_no_thread_can_be_initialized_is_told_so():
    """The call that it waits for has been moved forward, and fails all the same."""
    started = iter([None])

    def begin():
        next(started)

    with ThreadExecutor(1, initializer=begin) as executor:
        nested = executor.submit(lambda: repr(executor.submit(abs, -1).exception()))
        assert nested.result(30).startswith("BrokenThreadPool(")


@pytest.mark.parametrize("fate", ["broken", "lost"])
def test_what_is_done_as_an_executor_breaks_keeps_its_value(fate, monkeypatch, tmp_path):
    """Also if it ends when the dispatcher has looked for what has ended, and has yet to look at the engine."""
    begun, go = (fifo(tmp_path / name) for name in ("begun", "go"))
    with ProcessExecutor(1) as executor:
        call = executor.submit(far.tell_and_hear, (begun, go))
        far.hear(begun)
        port, supervisor = executor._dispatcher._port, executor._pool._supervisor
        wait, broken, waits = port.wait, Broken("worker processes hang"), threading.Event()

        def end_meanwhile(until):
            waits.set()
            events = wait(until)
            if port.failure is not None and not port._lane.closed:
                far.tell(go, "on")
                wait_until(lambda: port._lane.events)
            return events

        monkeypatch.setattr(port, "wait", end_meanwhile)
        port.wake()
        assert waits.wait(30)
        if fate == "broken":
            monkeypatch.setattr(supervisor, "broken", broken)
        port._lane.fail(broken)
        assert "on" == call.result(30)


def test_a_call_that_has_failed_may_still_be_in_line():
    """A call that a task waits for may fail before it is handed over; the dispatcher passes over it."""
    with ThreadExecutor(1) as executor:
        assert 1 == executor.submit(abs, -1).result(30)
        executor._dispatcher._urgent.append(PoolFuture(executor._dispatcher))
        assert 2 == executor.submit(abs, -2).result(30)


@both
def test_an_error_in_the_executors_own_thread_fails_every_call(make, monkeypatch):
    """None is left unsettled, not even one that runs, and later ones are refused with the same error."""

    def fail_to_start(tickets):
        raise MemoryError("no room")

    executor = make(1)
    assert 1 == executor.submit(abs, -1).result(30)
    monkeypatch.setattr(executor._dispatcher._port, "start", fail_to_start)
    call = executor.submit(abs, -2)
    for ask in (lambda: call.result(30), lambda: executor.submit(abs, -3)):
        with pytest.raises(MemoryError, match="no room"):
            ask()
    executor.shutdown()


class Nobody:
    """A dispatcher none of whose tasks waits."""

    def lend(self, future, timeout):
        return None


@pytest.mark.parametrize(
    ("timeout", "times", "waited"),
    [(None, [], [None, None]), (10, [100.0, 103.0], [10, 7.0]), (10, [100.0, 110.0], [10])],
)
def test_a_wait_that_is_woken_for_another_goes_on(timeout, times, waited, monkeypatch):
    """For what is left of its timeout, if it has one: an abandoned task that waits for the same call has been told to end."""
    future, waits = PoolFuture(Nobody()), []

    def wake(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            future.set_result(7)

    monkeypatch.setattr(_future, "monotonic", partial(next, iter(times)))
    monkeypatch.setattr(future._condition, "wait", wake)
    with pytest.raises(TimeoutError) if len(waited) == 1 else nullcontext():
        assert 7 == future.result(timeout)
    assert waited == waits


def test_all_that_fail_are_forgotten(caplog):
    """Those that were handed over, and those that were not: nobody looks for them again. Those that are settled stay so."""
    *futures, cancelled = [PoolFuture(None) for _ in range(3)]
    assert futures[0]._begin()
    assert cancelled.cancel()
    flying, inbox = {0: (futures[0], abs), 1: (cancelled, abs)}, deque([(futures[1], None, abs)])
    fail(flying, inbox, LookupError("gone"))
    assert ({}, deque()) == (flying, inbox)
    assert ["gone", "gone"] == [str(future._exception) for future in futures]
    assert cancelled.cancelled()
    assert "" == caplog.text


class Sole(Exception):
    """An error that cannot be copied."""

    def __copy__(self):
        raise TypeError("there is but one")


def test_all_fail_with_an_error_that_cannot_be_copied():
    """They have the error itself; nothing settled them, and who waited for one waited for ever."""
    error = Sole()
    futures = [PoolFuture(None) for _ in range(2)]
    fail({}, deque((future, None, abs) for future in futures), error)
    assert [error, error] == [future._exception for future in futures]


def test_a_shutdown_waits_for_a_thread_that_begins_late(monkeypatch):
    """The executor's own, which another thread is just starting; if that does not come about, it waits no longer than its patience."""
    monkeypatch.setattr(_opening, "PATIENCE", 0.01)
    Opening(Opening.begin).join()
    late = Opening(Opening.begin)
    monkeypatch.setattr(late._done, "wait", lambda timeout: late.thread.start())
    late.join()
    assert not late.thread.is_alive()
    assert not late.give_up(), "it has begun"


class Load:
    """An argument to which a weak reference can be made."""


def raise_with(load):
    raise LookupError("not this one")


@both
def test_a_call_that_raises_lets_go_of_its_argument_with_its_future(make):
    """When the future of a failed call is dropped, the call's argument is freed without garbage collection."""
    gc.collect()
    gc.disable()
    try:
        with make(1) as executor:
            load = Load()
            gone = weakref.ref(load)
            future = executor.submit(raise_with, load)
            with suppress(LookupError):
                future.result()
            del future, load
            executor.submit(abs, 1).result()
            assert gone() is None
    finally:
        gc.enable()


@pytest.fixture
def gives(monkeypatch):
    """The number of calls in each message to a worker."""
    counts, give = [], Worker.give

    def count(worker, batch, now):
        counts.append(len(batch.tickets))
        give(worker, batch, now)

    monkeypatch.setattr(Worker, "give", count)
    return counts


def test_the_next_call_is_at_hand_for_the_first_worker_that_gets_free(tmp_path):
    """The next call is sent ahead, so that callbacks do not delay it, and cannot be cancelled; all calls behind it can."""
    begun, go, here = (fifo(tmp_path / name) for name in ("begun", "go", "here"))
    heard = []
    with ProcessExecutor(1) as executor:
        first = executor.submit(far.tell_and_hear, (begun, go))
        far.hear(begun)
        following, *others = [executor.submit(far.tell, here, "I am") for _ in range(9)]
        last = time.monotonic() + 20
        while not following.running() and time.monotonic() < last:
            time.sleep(0.001)
        cancelled = [future.cancel() for future in (following, *others)]
        if following.running():  # else nobody would speak, and the callback hear for ever
            first.add_done_callback(lambda _: heard.append(far.hear(here)))
        far.tell(go, "on")
        assert "on" == first.result()
        assert [False] + [True] * 8 == cancelled, "it is not at hand"
        following.result()
    assert ["I am"] == heard


@pytest.fixture
def waiting():
    """An executor of one thread, its running call, nine waiting ones, the queue that they fill, and an event that releases the first."""
    begun, go = threading.Event(), threading.Event()
    with ThreadExecutor(1) as executor:
        first = executor.submit(lambda: begun.set() or go.wait(30))
        made = queue.SimpleQueue()
        others = [executor.submit(made.put, number) for number in range(9)]
        assert begun.wait(30)
        wait_until(lambda: len(executor._dispatcher._flying) == 10)
        yield executor, first, others, made, go
        go.set()


def test_calls_are_made_in_threads_whatever_callbacks_do(waiting, caplog):
    """Callbacks do not delay earlier submitted calls, each of which can be cancelled, without a word, until a thread begins with it."""
    _, first, others, made, go = waiting
    heard = []
    assert [False] * 9 == [future.running() for future in others]
    assert others[3].cancel()
    first.add_done_callback(lambda _: heard.extend([made.get(timeout=30) for _ in range(8)]))
    go.set()
    others[8].result(30)
    assert [0, 1, 2, 4, 5, 6, 7, 8] == heard
    assert others[3].cancelled()
    assert "" == caplog.text


def test_a_cancelled_call_is_done_at_once_for_those_that_wait(waiting):
    """``wait`` and ``as_completed`` do not wait for a worker to come to the call, as with a standard pool (CPython issue 92001)."""
    _, _, others, _, _ = waiting
    waiter = threading.Thread(target=wait, args=([others[4]],), daemon=True)
    waiter.start()
    assert others[3].cancel()
    assert others[3].cancel(), "a second time"
    assert others[4].cancel()
    assert not wait(others[3:5], 10).not_done
    assert set(others[3:5]) == set(as_completed(others[3:5], 10))
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_shutdown_that_cancels_tells_at_once_those_that_wait_for_calls(waiting):
    """``shutdown(cancel_futures=True)`` wakes those that wait for cancelled calls at once, even if the threads are busy."""
    executor, first, others, made, go = waiting
    assert others[3].cancel()
    waiter = threading.Thread(target=wait, args=(others,), daemon=True)
    waiter.start()
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in others), "on return"
    executor.shutdown(wait=False)  # takes nothing back
    assert not wait(others, 30).not_done
    waiter.join(30)
    go.set()
    assert first.result(30)
    executor.shutdown()
    assert made.empty()


def test_a_shutdown_that_cancels_meets_a_call_on_its_way(waiting, monkeypatch):
    """The dispatcher has taken it from the queue, and has yet to hand it over: it is cancelled, too."""
    executor, _, _, made, go = waiting
    dispatcher = executor._dispatcher
    begin = dispatcher._begin

    def shut_down(request):
        executor.shutdown(wait=False, cancel_futures=True)
        return begin(request)

    monkeypatch.setattr(dispatcher, "_begin", shut_down)
    late = executor.submit(made.put, "late")
    assert not wait([late], 30).not_done
    go.set()
    executor.shutdown()
    assert late.cancelled()
    assert made.empty()


def test_a_shutdown_that_cancels_leaves_as_many_calls_as_there_are_free_slots():
    """``shutdown(cancel_futures=True)`` spares as many calls as there are free slots, as a standard pool would have begun these."""
    futures = [PoolFuture(None) for _ in range(7)]
    begun, cancelled, *_ = futures
    assert begun._begin()
    assert cancelled.cancel()
    flying = dict(enumerate((future, abs) for future in futures[:5]))
    inbox = deque((future, None, abs) for future in futures[5:])
    assert futures[:3:-1] == list(to_cancel(flying, inbox, 3))
    assert futures[:5:-1] == list(to_cancel(flying, inbox, 5)), "none flies yet"


def test_a_shutdown_that_cancels_spares_none_where_more_calls_run_than_there_are_slots():
    """A process has the next call at hand, which counts as running."""
    running, *waiting = [PoolFuture(None) for _ in range(4)]
    at_hand = waiting.pop()
    assert running._begin()
    assert at_hand._begin()
    flying = {0: (running, abs), 1: (at_hand, abs)}
    inbox = deque((future, None, abs) for future in waiting)
    assert waiting[::-1] == list(to_cancel(flying, inbox, 1))


def test_a_shutdown_that_cancels_spares_the_call_of_an_idle_thread():
    """The thread may not have woken up yet; that of a standard pool would have taken the call at once."""
    for _ in range(10):
        with ThreadExecutor(1) as executor:
            executor.submit(abs, -1).result(30)
            call = executor.submit(abs, -2)
            executor.shutdown(cancel_futures=True)
            assert 2 == call.result(30)


def test_a_shutdown_that_cancels_begins_with_the_last_call():
    """The threads take calls from the front meanwhile; there, the shutdown would cancel none of many short calls."""
    futures = [PoolFuture(None) for _ in range(4)]
    flying = dict(enumerate((future, abs) for future in futures[:3]))
    assert futures[::-1] == list(to_cancel(flying, deque([(futures[3], None, abs)]), 0))


def test_a_call_begins_once():
    """``_begin`` succeeds only once, and not for a future that is cancelled or settled."""
    future, cancelled, settled = (PoolFuture(None) for _ in range(3))
    assert [True, False] == [future._begin(), future._begin()]
    assert cancelled.cancel()
    assert [False, False] == [cancelled._begin(), cancelled._begin()]
    assert {cancelled} == wait([cancelled], 30).done
    settled.set_exception(ValueError())
    assert not settled._begin()


def test_a_future_has_no_public_names_of_its_own():
    """Users note things on a future (``future.index = 7``), and any name that the standard one leaves free is theirs."""
    ours, standard = ({name for name in dir(one) if name[0] != "_"} for one in (PoolFuture(None), Future()))
    assert standard == ours


def test_a_chunk_of_calls_travels_as_one(gives):
    """``map`` sends each chunk in one message, keeps the order, and ends with the shortest iterable."""
    with ProcessExecutor(2) as executor:
        assert [] == [*executor.map(pow, [], chunksize=9)]
        values = [*executor.map(pow, range(1000), range(2, 996), chunksize=100)]
    assert [pow(number, number + 2) for number in range(994)] == values
    assert 10 <= sum(gives) <= 20, "one may be taken back from who is held up, and given to another"


def test_where_a_call_of_a_chunk_raises_those_before_it_have_their_values(tmp_path):
    """If a call of a chunk raises, earlier calls have their values, unlike in a standard pool, and the rest is not made."""
    path = tmp_path / "made"

    def note_and_divide(number):
        with path.open("a") as file:
            file.write(f"{number} ")
        return 12 // (number - 2)

    values = []
    with ProcessExecutor(1) as executor:
        try:
            values.extend(executor.map(note_and_divide, range(5), chunksize=5))
        except ZeroDivisionError as error:
            told = "".join(traceback.format_exception(error))
    assert ([-6, -12], "0 1 2 ") == (values, path.read_text())
    assert "in note_and_divide\n" in told
    assert "_chunk.py" not in told


def test_where_a_call_of_a_chunk_raises_the_chunks_that_wait_are_cancelled():
    """At once, and not when the error is let go of, whose traceback keeps what ``map`` has returned."""
    with ProcessExecutor(1) as executor:
        with pytest.raises(ZeroDivisionError) as _caught:
            list(executor.map(lambda number: time.sleep(0.02) or 1 / number, range(20), chunksize=2))
        assert all(future.cancelled() for future, _, _ in [*executor._dispatcher._inbox])


def test_a_chunk_whose_worker_dies_is_named_by_its_function():
    """If a worker dies in a chunk, the error names the function, and the executor goes on."""
    with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDied, match=r"worker process [0-9]+ exited with code 3"):
            list(executor.map(os._exit, [3, 4], chunksize=2))
        assert [1, 2] == list(executor.map(abs, [-1, -2], chunksize=2))
        with pytest.raises(TypeError, match=r"<lambda> \(a chunk of calls\) returned a list, "):
            list(executor.map(lambda _: threading.Lock(), [1, 2], chunksize=2))
        with pytest.raises(TypeError, match=r"fn is an object of type functools\.partial, which cannot"):
            list(executor.map(partial(pow, threading.Lock()), [1, 2], chunksize=2))


def test_with_a_timeout_each_call_travels_by_itself(gives):
    """With a timeout, which is per call, chunks are not used: earlier calls of a chunk would use up the time of later ones."""
    with ProcessExecutor(1, timeout=30) as executor:
        assert [*range(8)] == [*executor.map(far.give_back, range(8), chunksize=4)]
    assert 8 == sum(gives), "there is nobody else to give one to"


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.skipif(sys.version_info < (3, 14), reason="map has no buffersize before Python 3.14")
def test_map_reads_no_more_than_its_buffersize_ahead(executor, size):
    """As of the standard pools: counted in chunks, if there are any."""
    items = iter(range(100))
    values = executor.map(abs, items, chunksize=size, buffersize=2)
    assert [0, 1] == [next(values), next(values)]
    assert next(items) <= 4 * size
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        executor.map(abs, [1], buffersize=0)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="map has a buffersize from Python 3.14 on")
def test_map_refuses_a_buffersize_where_the_standard_pools_do(executor):
    """Python's own error."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'buffersize'"):
        executor.map(abs, [1], buffersize=2)


@pytest.mark.parametrize(("size", "kind"), [(0, ValueError), ("a", TypeError)])
def test_a_chunksize_must_be_a_whole_number_above_0(size, kind):
    """A bad ``chunksize`` is refused, and the error names the value."""
    with ProcessExecutor(1) as executor, pytest.raises(kind, match=f"chunksize must be .*, got {size!r}"):
        executor.map(abs, [1], chunksize=size)


@both
def test_a_timeout_that_is_none_is_refused(make):
    """A timeout of 0 is refused, as for a run: it would end every call."""
    with pytest.raises(ValueError, match=r"timeout must be greater than 0, got 0; math.inf means no limit"):
        make(1, timeout=0)
    with pytest.raises(ValueError, match="timeout must be a number of seconds that a float can hold"):
        make(1, timeout=10**400)


@pytest.mark.parametrize(
    ("make", "width"), [(ThreadExecutor, default_threads), (ProcessExecutor, default_processes)]
)
def test_an_executor_is_as_wide_by_default_as_a_run(make, width):
    """Without ``max_workers``, as ``run_parallel`` without one."""
    with make() as executor:
        assert width() == executor._max_workers


@both
def test_an_initializer_must_be_callable(make):
    """It is refused at once, not by threads or processes that start later."""
    with pytest.raises(TypeError, match="initializer must be callable, got 'connect'"):
        make(1, initializer="connect")


@both
def test_initializer_and_its_arguments_live_as_long_as_their_executor(make):
    """A manager deletes a lock as soon as no proxy of it is left, and the workers that started later found none."""
    given, bound = deque(), deque()
    seen = weakref.ref(given), weakref.ref(bound)
    with make(1, initializer=partial(max, bound), initargs=(given,)):
        del given, bound
        assert None not in [each() for each in seen]


@both
def test_what_a_call_is_made_of_is_let_go_when_it_is_done(make):
    """Neither the executor nor a future that nobody has keeps the object whose method was called."""
    with make(1) as executor:
        held = deque([1])
        seen, gone = weakref.ref(held, lambda _: gone.set()), threading.Event()
        executor.submit(held.count, 1)
        del held
        assert gone.wait(10), seen


@both
@pytest.mark.parametrize("initargs", ["model.bin", b"ab", {"path": 1}, {1, 2}, 5, None])
def test_arguments_of_an_initializer_come_in_a_tuple(make, initargs):
    """``initargs`` must be a tuple: a string would be split into characters, a mapping into keys, and break the executor later."""
    with pytest.raises(TypeError, match="initargs must be a tuple or a list of positional arguments, got "):
        make(1, initializer=print, initargs=initargs)
    make(1, initargs=initargs).shutdown()  # as with a standard pool, where there is none to take them


def test_a_nested_run_that_is_stopped_gives_its_slot_back_once():
    """A nested run that is stopped returns its borrowed slot exactly once."""
    with ThreadExecutor(1) as executor:

        def nested(_):
            with pytest.raises(ZeroDivisionError):
                run_parallel(invert, [0] * 1000, executor=executor, on_error="raise")

        for _ in range(3):
            results = run_parallel(nested, [0], executor=executor, run_timeout=10)
            assert (None, {}) == (results.stopped, results.failures)


def invert(number):
    return 1 / number


@pytest.mark.parametrize(
    ("make", "lacking"),
    [
        (ThreadExecutor, "ThreadExecutor"),
        (ThreadExecutor, "parallelkit_futures"),
        (ProcessExecutor, "parallelkit-supervisor"),
        (ProcessExecutor, "parallelkit_futures"),
    ],
)
def test_where_the_system_has_no_thread_to_give_nobody_waits_for_ever(make, lacking, monkeypatch):
    """If a thread cannot be started, every call fails with that error, whichever thread it was, and the shutdown returns."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith(lacking):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with make(1) as executor:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                executor.submit(abs, -1).result(timeout=30)


def test_a_call_that_waits_for_an_executor_which_cannot_open_is_told_so(monkeypatch):
    """Submitted while another thread opens it, in vain: that call fails, too, and the next one tries again."""
    executor, opening, go_on = ThreadExecutor(1), threading.Event(), threading.Event()
    engine = executor._engine()

    def fails(job):
        opening.set()
        assert go_on.wait(10)
        raise RuntimeError("no memory")

    with executor, ThreadPoolExecutor(1) as other, monkeypatch.context() as patch:
        patch.setattr(engine, "open", fails)
        first = other.submit(executor.submit, abs, -1)
        assert opening.wait(10)
        second = executor.submit(abs, -2)
        go_on.set()
        assert ["no memory"] * 2 == [str(future.exception(10)) for future in (first, second)]
        patch.undo()
        assert 3 == executor.submit(abs, -3).result(10)


@pytest.mark.parametrize("waits", ["submit", "run", "stream"])
def test_where_there_is_no_thread_for_what_a_call_waits_for_it_is_told_so(waits, monkeypatch):
    """If no thread can be started for a nested call, that call fails, and the executor goes on with the threads that it has."""
    start, few = threading.Thread.start, iter([None])
    wait_for = {
        "submit": lambda: executor.submit(abs, -1).result(),
        "run": lambda: run_parallel(abs, [-1], executor=executor),
        "stream": lambda: list(iter_parallel(abs, [-1], executor=executor)),
    }

    def refuse(thread):
        if thread.name.startswith("few") and next(few, thread):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with ThreadExecutor(2, "few") as executor:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(wait_for[waits]).result(timeout=30)
        assert [2, 3] == list(executor.map(abs, [-2, -3], timeout=30))


def test_then_of_a_stream_may_wait_for_the_executor_whose_task_reads_the_stream():
    """``then`` of a stream, which runs in the stream's thread, lends the slot of the task that reads the stream, as in a run."""

    def wait_for_it(outcome):
        return executor.submit(abs, -1).result() and ()

    def read(item):
        return [one.value for one in iter_parallel(abs, [item], executor="threads", then=wait_for_it)]

    with ThreadExecutor(1) as executor:
        assert [[2], [3]] == run_parallel(read, [-2, -3], executor=executor, run_timeout=30).values()


def test_a_call_gets_through_once_there_are_threads_again(monkeypatch):
    """A ``submit`` that failed for want of threads does not break the executor."""
    with ThreadExecutor(1) as executor:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no thread"):
            patch.setattr(threading.Thread, "start", no_thread)
            executor.submit(abs, -1)
        assert 2 == executor.submit(abs, -2).result(timeout=30)


def no_thread(thread):
    raise RuntimeError("no thread")


@pytest.mark.all
def test_calls_and_runs_get_through_once_there_are_processes_again(monkeypatch):
    """A temporary lack of processes fails only the calls and runs of that time."""
    with ProcessExecutor(1) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(_starter, "spawn", no_process)
            for _ in range(2):
                with pytest.raises(BrokenExecutor, match="the limit of processes is reached"):
                    executor.submit(abs, -1).result(timeout=30)
                assert "limit of processes" in (run_parallel(abs, [-1], executor=executor).stopped or "")
        assert 2 == executor.submit(abs, -2).result(timeout=30)
        assert [3] == run_parallel(abs, [-3], executor=executor).values()


def no_process(width):
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_limit_of_file_sizes_is_named():
    """If workers cannot be started because of ``ulimit -f``, the error names that limit, which also applies to shared memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        results = run_parallel(abs, [-1], executor="processes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "started: the limit of file sizes is too low (ulimit -f, which" in results.stopped


@pytest.mark.all
def test_an_item_beyond_the_limit_of_file_sizes():
    """Where ``ulimit -f`` leaves room for workers, but not for an item, the error of its task says so, not that it cannot be pickled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, hard))
    try:
        results = run_parallel(len, [bytes(4 << 20), bytes(10)], executor="processes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 10 == results[1]
    assert "the limit of file sizes is too low (ulimit -f" in str(results.failures[0].error)


def test_a_broken_executor_says_what_broke_it():
    """Every later call to a broken executor fails with what broke it, as in standard pools, and the traceback does not grow."""
    lengths = []
    with ThreadExecutor(1, initializer=invert, initargs=(0,)) as executor:
        for _ in range(30):
            with pytest.raises(BrokenThreadPool, match="initializer") as broken:
                executor.submit(abs, -1).result(timeout=30)
            lengths.append(len(traceback.extract_tb(broken.value.__traceback__)))
    assert lengths[-1] == lengths[-10], "each raise added to the traceback of the last"


def test_calls_that_a_broken_executor_fails_have_errors_of_their_own():
    """One error for all would collect the tracebacks of all that raise it (CPython issue 101267)."""
    go = threading.Event()
    with ThreadExecutor(1, initializer=lambda: go.wait(30) and 1 // 0) as executor:
        calls = [executor.submit(abs, -1) for _ in range(3)]
        go.set()
        errors = [call.exception(timeout=30) for call in calls]
    assert [BrokenThreadPool] * 3 == [type(error) for error in errors]
    assert 3 == len(set(map(id, errors)))
    assert {ZeroDivisionError} == {type(error.__cause__) for error in errors}


@pytest.mark.all
@given_time
def test_an_executor_that_lost_every_slot_serves_again_once_a_hung_call_returns(scale):
    """While every slot is lost, waiting and new calls fail, also those of callbacks that submit forever; then the executor serves again."""
    release, told = threading.Event(), queue.SimpleQueue()
    with ThreadExecutor(1, timeout=0.1 * scale) as executor:
        for _ in range(2):  # the second time it is another loss
            calls = [executor.submit(release.wait) for _ in range(4)]
            calls[-1].add_done_callback(lambda done: told.put(refusal(executor)))
            kinds = [type(call.exception(timeout=30)) for call in calls]
            assert [TaskTimeout, TaskTimeout, ParallelKitError, ParallelKitError] == kinds
            said = "every slot is lost: 2 threads overran their timeout"
            assert told.get(timeout=30).startswith(said)
            assert refusal(executor).startswith(said)
            assert run_parallel(abs, [-1], executor=executor).stopped.startswith(said)
            release.set()
            while executor._pool.abandoned:
                time.sleep(0.001)
            assert [1, 2] == list(executor.map(abs, [-1, -2]))
            assert [3] == run_parallel(abs, [-3], executor=executor).values()
            release.clear()


def test_only_the_loss_that_has_failed_calls_has_later_ones_refused(monkeypatch):
    """While it lasts; one that may still end has none refused."""
    with ThreadExecutor(1) as executor:
        for number in (1, 2):
            loss = Loss(math.inf, 60.0)
            monkeypatch.setattr(executor._pool, "loss", loss)
            assert number == executor.submit(abs, -number).result(30)
            failure = ParallelKitError(f"every slot is lost, for the {number}. time")
            monkeypatch.setattr(executor._dispatcher, "_last_loss", (loss, failure))
            assert str(failure) == refusal(executor)
        monkeypatch.setattr(executor._pool, "loss", None)
        assert 3 == executor.submit(abs, -3).result(30)
        monkeypatch.setattr(executor._dispatcher, "_last_loss", (None, failure))  # no worker could be started
        assert 4 == executor.submit(abs, -4).result(30)


def refusal(executor):
    """The error with which a call is refused."""
    with pytest.raises(ParallelKitError) as refused:
        executor.submit(abs, -1)
    return str(refused.value)


@both
@pytest.mark.parametrize(
    ("fate", "logged"),
    [
        (sys.exit, "a callback of a future raised an error that is no Exception; the executor goes on"),
        (lambda future: future.set_result(7), "exception calling callback"),
    ],
    ids=["exits", "settles"],
)
def test_a_callback_that_exits_ends_no_other_call(make, fate, logged, caplog, tmp_path):
    """A callback that raises SystemExit is logged, and later calls have their results."""
    go = fifo(tmp_path / "go")
    with make(1) as executor:
        executor.submit(far.hear, go).add_done_callback(fate)
        far.tell(go, "on")
        assert [2, 3] == [executor.submit(abs, number).result(timeout=30) for number in (-2, -3)]
    assert logged in caplog.text


@pytest.mark.parametrize("wait", ["submit", "map", "run"])
def test_a_finalizer_between_two_calls_may_wait_for_another(wait):
    """A finalizer that runs in a worker thread between two calls may wait for a call: its slot is lent, and given back."""
    waits = {
        "submit": lambda: executor.submit(abs, -3).result(),
        "map": lambda: next(executor.map(abs, [-3])),
        "run": lambda: run_parallel(abs, [-3], executor=executor)[0],
    }
    told = queue.SimpleQueue()

    class Item:
        def __del__(self):
            told.put((threading.current_thread().name, waits[wait]()))

    with ThreadExecutor(1, "single") as executor:
        executor.submit(type, Item())
        assert ("single_0", 3) == told.get(timeout=30)
        assert 5 == executor.submit(abs, -5).result(timeout=30)
        assert 1 == executor._pool.capacity()


def test_a_finalizer_in_a_thread_that_becomes_idle_may_wait_for_a_call(monkeypatch):
    """Nobody counts on the thread meanwhile, and it looks for work again afterwards."""
    become_idle, struck, made = ThreadWorker._idle, [], queue.SimpleQueue()

    def strike(worker):
        has_work = become_idle(worker)
        if not struck:
            struck.append(worker)
            made.put(executor.submit(abs, -2).result())
        return has_work

    monkeypatch.setattr(ThreadWorker, "_idle", strike)
    with ThreadExecutor(1, initializer=int) as executor:  # without one, the thread would end, and be replaced
        assert 1 == executor.submit(abs, -1).result(timeout=30)
        assert 2 == made.get(timeout=30)
        assert 3 == executor.submit(abs, -3).result(timeout=30)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (ThreadExecutor, "ThreadExecutor"),
        (ThreadExecutor, "parallelkit_futures"),
        (ProcessExecutor, "parallelkit-supervisor"),
        (ProcessExecutor, "parallelkit_futures"),
    ],
)
def test_a_finalizer_may_submit_in_a_thread_that_is_being_started(make, name, monkeypatch):
    """A finalizer in a starting thread may submit: it must not wait for the starter, which waits for that thread."""
    made, bootstrap = [], threading.Thread._bootstrap

    def strike(thread):
        if thread.name.startswith(name) and not made:
            made.append(None)
            made[0] = executor.submit(abs, -2)
        bootstrap(thread)

    monkeypatch.setattr("parallelkit._executors._submit._opening.PATIENCE", 0.1)
    monkeypatch.setattr(threading.Thread, "_bootstrap", strike)
    with make(1) as executor:
        if name == "parallelkit_futures":
            assert 1 == executor.submit(abs, -1).result(timeout=30)
        else:
            assert [1] == run_parallel(abs, [-1], executor=executor).values()
        assert 2 == made[0].result(timeout=30)


@both
def test_first_calls_that_come_together_start_one_thread(make, monkeypatch):
    """Another thread, or a finalizer, may submit just as the executor is about to start its own thread."""
    made, begin = [], Opening.__init__

    def strike(opening, work):
        if not made:
            made.append(None)
            made[0] = executor.submit(abs, -2)
        begin(opening, work)

    monkeypatch.setattr(Opening, "__init__", strike)
    with make(1) as executor:
        assert [1, 2] == [executor.submit(abs, -1).result(30), made[0].result(30)]
        assert 1 == [thread.name for thread in threading.enumerate()].count("parallelkit_futures")


def test_a_finalizer_may_submit_in_the_midst_of_the_engine(monkeypatch):
    """A finalizer may submit while its thread holds the engine's lock."""
    monkeypatch.setattr("parallelkit._executors._submit._opening.PATIENCE", 0.1)
    with ThreadExecutor(1) as executor:
        with executor._pool._lock:
            futures = [executor.submit(abs, number) for number in (-1, -2)]
        assert [1, 2] == [future.result(timeout=30) for future in futures]


@both
def test_a_callback_that_would_wait_for_ever_is_told_so(make):
    """A callback, which runs in the thread that settles futures, may wait only for done futures or with a time limit; otherwise RuntimeError is raised."""
    told = queue.SimpleQueue()

    def ask(done):
        with pytest.raises(RuntimeError, match="this thread must not wait for a call to this executor"):
            executor.submit(abs, -2).result()
        with pytest.raises(TimeoutError):
            executor.submit(abs, -3).exception(timeout=0.01)
        told.put(done.result())

    with make(1) as executor:
        executor.submit(abs, -1).add_done_callback(ask)
        assert 1 == told.get(timeout=30)


def test_a_call_just_before_the_shutdown_is_made():
    """Also if it comes when the dispatcher has looked for calls, and has yet to see the shutdown."""
    told = queue.Queue()

    def start(tickets):
        port.start = ordinary
        port.start(tickets)
        told.put(executor.submit(abs, -2))
        executor.shutdown(wait=False)

    executor = ThreadExecutor(1)
    assert 1 == executor.submit(abs, -1).result(30)
    port = executor._dispatcher._port
    ordinary, port.start = port.start, start
    port.wake()
    assert 2 == told.get(timeout=30).result(30)
    executor.shutdown()


def test_a_call_that_is_interrupted_as_it_begins_to_wait_has_its_slot_back(monkeypatch):
    """It may catch the error and go on, and then no other call runs beside it."""

    def interrupt():
        monkeypatch.undo()
        raise KeyboardInterrupt

    def wait_in_vain():
        future = executor.submit(abs, -1)
        monkeypatch.setattr(executor._dispatcher._port, "wake", interrupt)
        with pytest.raises(KeyboardInterrupt):
            future.result()
        return executor._pool.slots.lent()

    with ThreadExecutor(1) as executor:
        assert 0 == executor.submit(wait_in_vain).result(30)


def test_a_call_whose_wait_times_out_has_its_slot_back():
    """The same where it has waited long enough."""
    go = threading.Event()

    def wait_in_vain():
        with pytest.raises(TimeoutError):
            executor.submit(go.wait, 30).result(0.001)
        return executor._pool.slots.lent()

    with ThreadExecutor(1) as executor:
        lent = executor.submit(wait_in_vain).result(30)
        go.set()
    assert 0 == lent


def test_a_call_that_asks_without_waiting_lends_nothing():
    """Else the call that it asks for began beside it, in an executor for one at a time."""
    begun = threading.Event()

    def ask():
        future = executor.submit(begun.set)
        for asked in (future.result, future.exception):
            for timeout in (0, -1):
                with pytest.raises(TimeoutError):
                    asked(timeout)
        with pytest.raises(TimeoutError):
            next(executor.map(abs, [-1], timeout=0))
        return executor._pool.lending, begun.is_set()

    with ThreadExecutor(1) as executor:
        assert (False, False) == executor.submit(ask).result(PATIENCE)


def test_a_call_may_shut_another_executor_down():
    """It then waits for the calls of that one, which do not need its thread."""
    ended = []

    def end():
        wait_until(lambda: other._dispatcher._shut)
        ended.append(True)

    with ThreadExecutor(1) as executor:
        other = ThreadExecutor(1)
        other.submit(end)
        executor.submit(other.shutdown).result()
        assert [True] == ended


@pytest.mark.parametrize("way", ["submit", "run", "task of a run within"])
def test_a_call_may_shut_its_executor_down(way):
    """It does not wait for itself; what was submitted before is done all the same."""

    def shut_down(_):
        executor.shutdown()
        return "shut"

    executor = ThreadExecutor(1)
    if way == "submit":
        first, second = executor.submit(shut_down, None), executor.submit(abs, -2)
        assert ["shut", 2] == [first.result(30), second.result(30)]
    elif way == "run":
        assert (
            run_parallel(shut_down, [0], executor=executor, run_timeout=30).stopped != "run_timeout of 30 s"
        )
    else:
        nested = executor.submit(run_parallel, shut_down, [0], executor=executor, run_timeout=30)
        assert ["shut"] == nested.result(30).values()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -3)
    executor.shutdown()


@both
def test_an_executor_does_not_travel(make):
    """An executor cannot be pickled; the error says what to do instead."""
    with (
        make(1) as executor,
        pytest.raises(TypeError, match=r"cannot be sent to another process.*open one where"),
    ):
        pickle.dumps(executor)


def test_a_submit_to_an_executor_of_processes_from_its_own_call_is_refused():
    """A call that refers to its own ProcessExecutor fails, because the executor cannot be pickled."""
    with ProcessExecutor(1) as executor:
        future = executor.submit(lambda: executor.submit(abs, 1).result())
        with pytest.raises(TypeError, match="cannot be sent to another process"):
            future.result(timeout=60)


def test_an_argument_that_raises_ctrl_c_as_it_is_pickled_fails_its_call_alone():
    """Calls are packed in a thread of the executor, which no Ctrl-C reaches; the error says what pickling has raised."""

    class Interrupting:
        def __reduce__(self):
            raise KeyboardInterrupt("mine")

    with ProcessExecutor(1) as executor:
        with pytest.raises(
            TypeError, match=r"^the call of abs cannot be sent .*pickling it raised .*: mine$"
        ):
            executor.submit(abs, Interrupting()).result(60)
        assert 1 == executor.submit(abs, -1).result(60)


@both
def test_in_a_forked_child_an_executor_says_what_to_do(make):
    """In a forked child, calls and runs on an inherited executor are refused at once, and its shutdown is harmless."""
    with make(1) as executor:
        hold = threading.Event() if make is ThreadExecutor else None
        running = executor.submit(hold.wait, 20) if hold else executor.submit(abs, -1)
        said = in_a_fork(lambda: use(executor, make))
        if hold:
            hold.set()
        assert running.result(20)
        assert 1 == executor.submit(abs, -1).result(20)
    assert [ADVICE, ADVICE, ADVICE, "shut down", "[1]"] == said


@both
def test_in_a_forked_child_nobody_waits_for_a_call_for_ever(make, tmp_path):
    """Its end is told to the parent alone. With a timeout the wait ends, also where another thread held a lock of the executor."""

    def ask():
        for timeout in (None, 0.01):
            try:
                yield str(future.result(timeout))
            except (RuntimeError, TimeoutError) as error:
                yield str(error).partition("; ")[2] or type(error).__name__
        yield str(done.result())

    with make(1) as executor:
        done = executor.submit(abs, -1)
        assert 1 == done.result(20)
        future = executor.submit(wait_until, (tmp_path / "end").exists)
        with executor._dispatcher._lock:
            said = in_a_fork(ask)
        (tmp_path / "end").touch()
        future.result(20)
    assert [ADVICE, "TimeoutError", "1"] == said


def test_threads_belong_to_the_process_that_first_uses_them():
    """A ThreadExecutor made at import can be used in a server's workers that are forked later, as the standard one."""
    with ThreadExecutor(1) as executor:
        assert ["1"] == in_a_fork(lambda: [executor.submit(abs, -1).result(20)])
        assert ["[1]"] == in_a_fork(lambda: [run_parallel(abs, [-1], executor=executor).values()])
        assert 1 == executor.submit(abs, -1).result(20)


def test_processes_belong_to_the_process_that_made_their_executor():
    """A forked child is told so, also if nobody has used the executor before."""

    def submit():
        with pytest.raises(RuntimeError) as refused:
            executor.submit(abs, -1)
        yield str(refused.value).partition("; ")[2]

    with ProcessExecutor(1) as executor:
        assert [ADVICE] == in_a_fork(submit)


def use(executor, make):
    """Everything that a child may try."""
    for call in (
        lambda: executor.submit(abs, -1),
        lambda: executor.map(abs, [-1]),
        lambda: run_parallel(abs, [-1], executor=executor),
    ):
        try:
            call()
        except RuntimeError as error:
            yield str(error).partition("; ")[2]
    if make is ProcessExecutor:
        executor.terminate_workers()
        executor.kill_workers()
    with executor:
        executor.shutdown(cancel_futures=True)
    yield "shut down"
    with make(1) as own:
        yield str(list(own.map(abs, [-1])))


def in_a_fork(lines):
    """The lines that a forked child writes; the child is killed after 30 s."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, which is the point
        pid = os.fork()
    if not pid:
        signal.alarm(30)
        try:
            for line in lines():
                os.write(writer, f"{line}\n".encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        text = said.read()
    assert 0 == os.waitpid(pid, 0)[1]
    return text.splitlines()


@both
def test_a_forked_child_of_multiprocessing_makes_its_calls_before_it_ends(make, tmp_path):
    """It ends without the exit handlers of Python; calls that nobody waited for are made all the same, as in a standard pool."""
    child = forked(submit_and_leave, make, tmp_path)
    child.join(30)
    assert (0, ["0", "1", "2"]) == (child.exitcode, sorted(os.listdir(tmp_path)))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="exit handlers are not told of the error any longer")
def test_ctrl_c_ends_a_forked_child_of_multiprocessing_at_once(tmp_path):
    """As in any program: the workers are killed, and their calls not waited for."""
    child = forked(submit_and_wait, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    child.join(10)
    assert 1 == child.exitcode


def test_a_child_of_multiprocessing_is_told_once_to_wait_at_its_end():
    """However many executors it opens, it keeps one entry for them all."""
    child = forked(open_two)
    child.join(30)
    assert 1 == child.exitcode


@pytest.mark.parametrize("loaded", [True, False])
def test_a_program_that_is_no_child_of_multiprocessing_has_its_exit_handlers_alone(loaded, monkeypatch):
    """Multiprocessing is told of nothing, and need not be loaded."""
    before = dict(multiprocessing.util._finalizer_registry)
    if not loaded:
        monkeypatch.delitem(sys.modules, "multiprocessing.process")
    _exit.finish_at_child_exit()
    assert before == multiprocessing.util._finalizer_registry


def open_two():
    for _ in range(2):
        with ThreadExecutor(1) as executor:
            executor.submit(abs, -1).result(20)
    sys.exit(len(multiprocessing.util._finalizer_registry))


def forked(target, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        child = multiprocessing.get_context("fork").Process(target=target, args=args)
        child.start()
    return child


def submit_and_wait(path):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = ProcessExecutor(1)
    executor.submit(os.mkdir, path)
    executor.submit(time.sleep, 20).result()


def submit_and_leave(make, folder):
    executor = make(1)
    executor.submit(time.sleep, 0.1)
    for number in range(3):
        executor.submit(os.mkdir, folder / str(number))


class Noting:
    """Something with work to finish, which notes what it is asked."""

    def __init__(self):
        self.asked = []

    def shut(self, cancel_futures, stop=False):
        self.asked.append(("shut", cancel_futures, stop))

    def join(self):
        self.asked.append("join")


def test_a_daemon_thread_may_open_an_executor_as_the_program_exits(monkeypatch):
    """While the exit looks for executors, it may find one more at any step: it failed at that, and waited for no calls."""
    first, others = Noting(), []

    def open_another(*event):
        others.append(Noting())
        _exit.finish_at_exit(others[-1])

    monkeypatch.setattr(_exit, "_unfinished", type(_exit._unfinished)())
    monkeypatch.setattr(_exit, "_exiting", False)
    _exit.finish_at_exit(first)
    before = sys.getprofile()
    sys.setprofile(open_another)
    try:
        _exit._finish_all()
    finally:
        sys.setprofile(before)
    assert [("shut", False, False), "join"] == first.asked
    assert others


def test_ctrl_c_at_exit_stops_all_executors_before_one_is_waited_for(monkeypatch):
    """The calls of one may wait for those of another. None is cancelled: threads make all. Executors that were collected come last."""
    monkeypatch.setattr(_exit, "_unfinished", type(_exit._unfinished)())
    monkeypatch.setattr(_exit, "_exiting", False)
    monkeypatch.setattr(_exit, "_is_interrupted", lambda: True)
    monkeypatch.setattr(_exit, "wait_apart", lambda: asked.append("collected"))
    asked = []
    both = [Noting(), Noting()]
    for one in both:
        one.asked = asked
        _exit.finish_at_exit(one)
    _exit._finish_all()
    assert [*[("shut", False, True)] * 2, *[("shut", False, False), "join"] * 2, "collected"] == asked
    assert _exit.is_exiting()


@pytest.mark.parametrize(
    ("last", "at_prompt", "interrupted"),
    [
        (KeyboardInterrupt, False, True),
        (RunInterrupted, False, True),
        (KeyboardInterrupt, True, False),
        (ZeroDivisionError, False, False),
        (None, False, False),
    ],
)
def test_a_program_that_ends_by_ctrl_c_is_interrupted(last, at_prompt, interrupted, monkeypatch):
    """Not one that ends by another error, nor one at whose prompt Ctrl-C was pressed at some time."""
    monkeypatch.setattr(sys, "last_type", last, raising=False)
    monkeypatch.delattr(sys, "ps1", raising=False)
    if at_prompt:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert interrupted is _exit._is_interrupted()


@both
def test_the_text_of_an_executor_tells_how_many_workers_it_has(make):
    """The class and its width."""
    with make(2) as executor:
        assert f"<{make.__name__} max_workers=2>" == repr(executor)


@both
@pytest.mark.parametrize(
    "use",
    [lambda pool: pool.submit(abs, -1), lambda pool: run_parallel(abs, [-1], executor=pool)],
    ids=["submit", "run"],
)
def test_while_the_program_exits_no_call_is_taken(make, use, monkeypatch):
    """As in a standard pool; nobody would wait for it."""
    with make(1) as executor:
        monkeypatch.setattr(_exit, "_exiting", True)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after interpreter shutdown"):
            use(executor)


class Impatient(Noting):
    """An executor's dispatcher, at whose end the user presses Ctrl-C."""

    def join(self):
        super().join()
        raise KeyboardInterrupt


def test_ctrl_c_in_the_wait_at_exit_ends_it(monkeypatch):
    """The wait comes before other exit handlers and, for executors that these open, after them, but only once for each."""
    monkeypatch.setattr(_exit, "_unfinished", type(_exit._unfinished)())
    monkeypatch.setattr(_exit, "_exiting", False)
    one, another = Impatient(), Noting()
    _exit.finish_at_exit(one)
    with pytest.raises(KeyboardInterrupt):
        _exit._finish_before_others()
    _exit.finish_at_exit(another)
    _exit._finish_all()
    assert [("shut", False, False), "join"] == one.asked == another.asked


class Interrupting:
    """A lock at whose second release Ctrl-C comes."""

    def __init__(self, lock):
        self.lock, self.releases, self._is_owned = lock, 0, lock._is_owned

    def __enter__(self):
        self.lock.__enter__()

    def __exit__(self, *raised):
        self.lock.__exit__(*raised)
        self.releases += 1
        if self.releases == 2:
            raise KeyboardInterrupt


@both
def test_ctrl_c_before_the_executors_thread_is_started_leaves_the_executor_without(make):
    """If Ctrl-C prevents the start of the executor's thread, the next call starts one."""
    with make(1) as executor:
        executor._dispatcher._lock = Interrupting(executor._dispatcher._lock)
        with pytest.raises(KeyboardInterrupt):
            executor.submit(abs, -1)
        assert 2 == executor.submit(abs, -2).result(30)


@both
def test_ctrl_c_in_a_call_that_finds_the_executor_just_opened_leaves_it_open(make, monkeypatch):
    """Another thread, or a finalizer, has opened it meanwhile: that one's call is made, and so are later ones."""
    made, begin = [], Opening.__init__

    def strike(opening, work):
        if not made:
            made.append(None)
            made[0] = executor.submit(abs, -2)
            executor._dispatcher._lock = Interrupting(executor._dispatcher._lock)
            executor._dispatcher._lock.releases = 1
        begin(opening, work)

    with make(1) as executor:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Opening, "__init__", strike)
            executor.submit(abs, -1)
        assert made[0].exception(30) is None
        assert [2, 3] == [made[0].result(30), executor.submit(abs, -3).result(30)]
        assert 1 == [thread.name for thread in threading.enumerate()].count("parallelkit_futures")


@both
def test_ctrl_c_while_the_first_call_starts_the_executors_thread_leaves_none(monkeypatch, make):
    """If Ctrl-C interrupts the start of the executor's thread, that thread, should it run, ends, and later calls have another."""
    late = LateThreads(monkeypatch, "parallelkit_futures")
    with make(1) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.submit(abs, -1)
        assert late.ends_soon()
        assert 2 == executor.submit(abs, -2).result(30)
