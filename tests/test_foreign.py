"""Somebody else's pool: what is made of values, errors, refusals and cancelled futures that it hands back."""

import gc
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from time import monotonic

import pytest
import remote_tasks as far

from parallelkit import RateLimit, Retry, TaskCancelled, TaskTimeout, WorkerDied, run_parallel
from parallelkit._executors import _foreign
from parallelkit._executors._contract import Ended, Job
from parallelkit._executors._foreign import ForeignEngine
from parallelkit.testing import FakeClock


class Pool(Executor):
    """Not a pool of threads, as far as anybody can tell; runs nothing before it is told to."""

    _max_workers = 2

    def __init__(self):
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.calls.append((future, fn, args, kwargs))
        return future

    def run(self):
        """Make all calls that were not cancelled."""
        while self.calls:
            future, fn, args, kwargs = self.calls.pop(0)
            if future.set_running_or_notify_cancel():
                future.set_result(fn(*args, **kwargs))


class Refusing(Pool):
    """Takes nothing."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def submit(self, fn, /, *args, **kwargs):
        raise self.error


def events_of(fn, item):
    """What comes of one attempt in such a pool."""
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(fn))
    port.start([(0, 1, item, None)])
    pool.run()
    return port.wait(monotonic())


class Load:
    """An item that can be referred to weakly."""


def raise_with(load):
    raise LookupError("not this one")


def test_an_item_whose_task_raised_goes_with_the_results():
    """It does not wait for the garbage collector: the frames of the pool, which the error holds, know no report of it."""
    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as pool:
            load = Load()
            gone = weakref.ref(load)
            results = run_parallel(raise_with, [load], executor=pool)
            assert 1 == len(results.failures)
            del results, load
            pool.submit(abs, 1).result()
            assert gone() is None
    finally:
        gc.enable()


def test_values_come_back_as_they_were():
    """Sealed on the far side, opened on this one."""
    (block,) = events_of(far.give_back, {"a": [1, 2]})
    assert ((0,), ({"a": [1, 2]},)) == (tuple(block.indices), tuple(block.values))


def test_errors_come_back_as_they_were():
    """Class, arguments and the text of the far traceback."""
    (ended,) = events_of(far.fail, KeyError("gone"))
    assert (KeyError, ("gone",)) == (type(ended.error), ended.error.args)
    assert "in fail" in ended.traceback


def test_what_cannot_be_sent_is_named():
    """Item, argument of a call, or argument of the run, each with its task or its name: it was Python's bare error."""
    lock = threading.Lock()
    (item,) = events_of(far.give_back, lock)
    assert str(item.error).startswith(
        "the item of task 0 cannot be sent to a worker process: an object of type _thread.lock"
    )
    assert item.final
    (call,) = events_of(None, (far.give_back, (lock,), {}))
    assert str(call.error).startswith(
        "task 0 cannot be sent to a worker process: args[0] is an object of type _thread.lock"
    )
    with pytest.raises(
        TypeError, match=r"^args\[0\] cannot be sent to worker processes: an object of type _thread.lock"
    ):
        ForeignEngine(Pool(), None).open(Job(far.give_back, (lock,)))


def test_a_value_that_cannot_be_pickled_is_not_made_again():
    """As in processes of our own: another try cannot help."""
    (ended,) = events_of(lambda item: threading.Lock(), None)
    assert ended.final


def test_a_value_that_cannot_be_pickled_costs_its_own_task():
    """The message names what could not travel."""
    (ended,) = events_of(lambda item: (number for number in range(3)), 0)
    assert isinstance(ended.error, TypeError)
    assert "generator" in str(ended.error)


def test_a_value_that_breaks_on_unpickling_costs_its_own_task():
    """Whatever it raises then, ``SystemExit`` too, is the cause."""
    (ended,) = events_of(lambda item: far.Bomb("out"), 0)
    assert isinstance(ended.error, TypeError)
    assert "cannot be unpickled" in str(ended.error)
    assert isinstance(ended.error.__cause__, SystemExit)


def test_a_future_cancelled_by_others_may_have_run():
    """It was not this run that cancelled it, so nothing is known of it."""
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", None)])
    pool.calls[0][0].cancel()
    (ended,) = port.wait(monotonic())
    assert isinstance(ended.error, WorkerDied)
    assert ended.error.may_have_run


def test_what_has_not_begun_at_its_timeout_is_withdrawn():
    """Its slot is free again, for nothing occupies it; and it never runs."""
    pool, ran = Pool(), []
    port = ForeignEngine(pool, None).open(Job(ran.append))
    port.start([(0, 1, "item", 0.0)])
    (ended,) = port.wait(monotonic())
    assert isinstance(ended.error, TaskTimeout)
    assert 2 == port.room()
    pool.run()
    assert ([], []) == (ran, port.wait(monotonic()))


@contextmanager
def busy_pool(width):
    """A pool whose threads are all at somebody else's work, and what ends that."""
    release = threading.Event()
    with ThreadPoolExecutor(width) as pool:
        for _ in range(width):
            pool.submit(release.wait, 60)
        try:
            yield pool, release
        finally:
            release.set()


def test_a_rate_is_kept_in_a_pool_that_others_keep_busy():
    """What was handed over there begins when it can, and counts from then: not two at once as the others leave."""
    starts = []

    with busy_pool(2) as (pool, release):
        timer = threading.Timer(0.3, release.set)
        timer.start()
        run_parallel(
            lambda _: starts.append(monotonic()), range(2), executor=pool, limits=RateLimit(1, per=0.1)
        )
        timer.join()
    assert starts[1] - starts[0] >= 0.1


def test_what_has_not_begun_in_a_busy_pool_when_the_run_is_stopped_never_started():
    """It was handed over, and that is no attempt."""
    heard = []
    with busy_pool(1) as (pool, _):
        results = run_parallel(str, [0], executor=pool, run_timeout=0.1, on_event=heard.append)
    assert (0, None) == (results.failures[0].attempts, results.failures[0].started_at)
    assert [] == heard


def test_what_has_begun_keeps_its_slot_beyond_its_timeout():
    """A pool that cannot kill is not given more than it has workers for; the late end frees the slot."""
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", 0.0)])
    future = pool.calls[0][0]
    future.set_running_or_notify_cancel()
    (ended,) = port.wait(monotonic())
    assert isinstance(ended.error, TaskTimeout)
    assert 1 == port.room()
    future.set_result((0.0, 1.0, True, b""))
    assert ([], 2) == (port.wait(monotonic()), port.room())


def test_a_slot_that_comes_back_late_is_told():
    """Nobody else would tell the run that there is room again, and it has nothing else to wait for."""
    pool, reports = Pool(), []
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", 0.0)])
    future = pool.calls[0][0]
    future.set_running_or_notify_cancel()
    port.wait(monotonic())
    waiter = threading.Thread(target=lambda: reports.append(port.wait(None)), daemon=True)
    waiter.start()
    future.set_result((0.0, 1.0, True, b""))
    waiter.join(30)
    assert ([[]], 2) == (reports, port.room())


def test_a_run_ends_when_calls_past_their_timeout_hold_every_slot():
    """It never waits for ever: one more timeout, then it says why."""
    release = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        results = run_parallel(lambda _: release.wait(30), range(5), executor=pool, timeout=0.05)
        release.set()
    assert "every slot is lost: 2 calls overran their timeout" in results.stopped
    assert [TaskTimeout] * 2 + [TaskCancelled] * 3 == [type(one.error) for one in results.failures.values()]


def test_calls_past_their_timeout_have_as_long_again_to_return(monkeypatch):
    """Before that the run does not end, though they hold every slot."""
    clock, pool = FakeClock(), Pool()
    monkeypatch.setattr(_foreign, "monotonic", clock)
    pool._max_workers = 1
    port = ForeignEngine(pool, None).open(Job(abs))
    port.start([(0, 1, -1, 5.0)])
    pool.calls[0][0].set_running_or_notify_cancel()
    for instant, overdue, lost in ((4.9, 0, False), (5.0, 1, False), (9.9, 0, False), (10.0, 0, True)):
        clock.jump(instant)
        assert overdue == len(port.wait(instant))
        assert lost == (port.failure is not None), instant


def test_a_pool_that_dislikes_a_call_costs_that_call():
    """Its error is the task's, which has not begun, and would be refused again."""
    error = ValueError("not this")
    port = ForeignEngine(Refusing(error), None).open(Job(far.give_back))
    port.start([(0, 1, "item", None)])
    (ended,) = port.wait(monotonic())
    assert isinstance(ended, Ended)
    assert (error, None, True) == (ended.error, ended.started, ended.final)
    assert port.failure is None


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("error", [RuntimeError("after shutdown"), BrokenProcessPool("after shutdown")])
def test_a_run_on_a_pool_that_takes_nothing_ends(error, retries):
    """It says why. No task has been tried, so none is blamed: all are cancelled."""
    results = run_parallel(abs, range(5), executor=Refusing(error), retries=retries)
    assert "after shutdown" == results.stopped
    assert {(TaskCancelled, 0, None)} == {
        (type(one.error), one.attempts, one.error.__cause__) for one in results.outcomes.values()
    }


class Breaking(Pool):
    """Loses both its workers to the first two calls, and takes no more."""

    def submit(self, fn, /, *args, **kwargs):
        if len(self.calls) == self._max_workers:
            raise BrokenProcessPool("broken")
        future = super().submit(fn, *args, **kwargs)
        if len(self.calls) == self._max_workers:
            for lost, *_ in self.calls:
                lost.set_exception(BrokenProcessPool("broken"))
        return future


@pytest.mark.parametrize("retries", [0, 2])
def test_when_a_pool_breaks_only_what_was_in_flight_has_lost_its_worker(retries):
    """What had not been handed over never began; what may be tried again is cancelled, because of its loss."""
    results = run_parallel(abs, range(5), executor=Breaking(), retries=Retry(retries, delay=0))
    lost = [one.error.__cause__ if retries else one.error for one in list(results.outcomes.values())[:2]]
    assert [(WorkerDied, True)] * 2 == [(type(error), error.may_have_run) for error in lost]
    assert [(TaskCancelled, 0)] * 3 == [
        (type(one.error), one.attempts) for one in list(results.outcomes.values())[2:]
    ]
    assert "broken" == results.stopped


def test_a_call_that_returned_late_gives_those_after_it_their_own_patience():
    """The wait for one that held every slot is over when it returns; the next begins anew."""
    pool = Pool()
    pool._max_workers = 1
    port = ForeignEngine(pool, None).open(Job(abs))
    for index in (0, 1):
        port.start([(index, 1, -1, 0.02)])
        pool.calls[0][0].set_running_or_notify_cancel()
        (overdue,) = port.wait(monotonic() + 30)
        assert (index, TaskTimeout, None) == (overdue.index, type(overdue.error), port.failure)
        future, *_ = pool.calls.pop(0)
        future.set_result((0.0, 0.0, True, b""))
        assert [] == port.wait(monotonic() + 30)
        assert 1 == port.room()
