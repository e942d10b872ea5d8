"""Foreign pools: how values, errors, refusals and cancelled futures that they return are handled."""

import asyncio
import gc
import signal
import sys
import threading
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from contextlib import contextmanager
from multiprocessing import get_context
from time import monotonic
from unittest.mock import Mock

import pytest
import remote_tasks as far

from parallelkit import RateLimit, Retry, TaskCancelled, TaskTimeout, WorkerDied, run_parallel
from parallelkit._executors import _foreign, _foreign_calls
from parallelkit._executors._contract import Block, Ended, Job
from parallelkit._executors._foreign import ForeignEngine, due_at
from parallelkit._executors._foreign_calls import our_time
from parallelkit._executors._gate import Gate
from parallelkit.testing import FakeClock


class Pool(Executor):
    """A pool of an unknown kind that runs nothing before it is told to."""

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


class Beginning(ThreadPoolExecutor):
    """A pool of threads that is just beginning with each call: it can no longer be cancelled, and has not run yet."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_running_or_notify_cancel()
        return future


class Refusing(Pool):
    """A pool that accepts no call."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def submit(self, fn, /, *args, **kwargs):
        raise self.error


def events_of(fn, item):
    """The outcome of one attempt in such a pool."""
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(fn))
    port.start([(0, 1, item, None)])
    pool.run()
    return port.wait(monotonic())


class Load:
    """An item to which a weak reference can be made."""


def raise_with(load):
    raise LookupError("not this one")


class PoolWithEngine(ThreadPoolExecutor):
    """A pool of the user's own, whose private attributes happen to have the names of ours."""

    _engine, _timeout = "sqlite://", "10 s"


def test_a_pool_may_have_any_attributes_of_its_own():
    """A pool is not taken for one of ours because of the names of its attributes."""
    with PoolWithEngine(1) as pool:
        assert [1, 2] == run_parallel(abs, [-1, -2], executor=pool).values()


def test_an_item_whose_task_raised_goes_with_the_results():
    """The item of a failed task is freed with the results, without garbage collection, although the error holds frames of the pool."""
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
    """Values come back unchanged, packed by the worker and unpacked here."""
    (block,) = events_of(far.give_back, {"a": [1, 2]})
    assert ((0,), ({"a": [1, 2]},)) == (tuple(block.indices), tuple(block.values))


@pytest.mark.parametrize("ahead", [1e6, -1e6])
def test_instants_of_another_host_are_put_on_our_clock(monkeypatch, ahead):
    """If the clock of a pool's host is another, a call's instants lie between hand-over and arrival, so that limits can count them."""
    monkeypatch.setattr(_foreign_calls, "monotonic", lambda: monotonic() + ahead)
    before = monotonic()
    (block,) = events_of(far.nap, 0.01)
    assert before <= block.started[0] <= block.ended[0] - 0.01 <= monotonic()


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ((3.0, 5.0), (3.0, 5.0)),
        ((103.0, 105.0), (7.0, 9.0)),
        ((-3.0, -1.0), (7.0, 9.0)),
        ((3.0, 23.0), (1.0, 9.0)),
    ],
)
def test_a_call_ran_between_its_hand_over_and_now(there, here):
    """Instants that may be of our clock are kept; else it is taken to have ended just now, and not begun before its hand-over."""
    assert here == our_time(*there, 1.0, 9.0)


def test_errors_come_back_as_they_were():
    """Errors come back with class, arguments and remote traceback text."""
    (ended,) = events_of(far.fail, KeyError("gone"))
    assert (KeyError, ("gone",)) == (type(ended.error), ended.error.args)
    assert "in fail" in ended.traceback


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there are no such pools before Python 3.14")
def test_a_pool_of_interpreters_gets_what_it_can_carry():
    """It is a ThreadPoolExecutor by its class, but its threads see no objects of ours."""
    from concurrent.futures import InterpreterPoolExecutor

    base = 10
    with InterpreterPoolExecutor(1) as pool:
        results = run_parallel(lambda item: base / item, [5, 0], executor=pool)
    assert {0: 2.0} == results.successes
    assert isinstance(results.failures[1].error, ZeroDivisionError)


def test_what_cannot_be_sent_is_named():
    """An item or argument that cannot be pickled is named in the error, with its task."""
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


class Leaves:
    """Exits the program as it is pickled."""

    def __reduce__(self):
        raise SystemExit(3)


def test_an_item_that_exits_as_it_is_pickled_costs_its_own_task():
    """As in worker processes of ours; it ended the caller's program."""
    (ended,) = events_of(far.give_back, Leaves())
    assert "cannot be pickled (SystemExit: 3)" in str(ended.error)
    assert ended.final


class Lazy:
    """As a lazy object of Django's whose making fails: whoever asks for its class, by ``isinstance`` say, makes it."""

    @property
    def __class__(self):
        raise LookupError("no database")


@pytest.mark.parametrize(
    ("fn", "item"),
    [(far.give_back, Lazy()), (None, (far.give_back, (Lazy(),), {})), (None, (Lazy(), (), {}))],
    ids=["item", "argument", "function"],
)
def test_what_raises_as_its_class_is_asked_for_costs_its_own_task(fn, item):
    """The search for the part to blame raised it again, out of the run; of a ``ProcessExecutor`` it broke the executor."""
    (ended,) = events_of(fn, item)
    assert str(ended.error).endswith(
        "task 0 cannot be sent to a worker process: pickling it raised LookupError: no database"
    )
    assert isinstance(ended.error.__cause__, LookupError)


def test_a_value_that_raises_as_its_class_is_asked_for_costs_its_own_task():
    """As any value that cannot be pickled; the error came out of what packs it, and in a worker process of ours ended that."""
    (ended,) = events_of(lambda _: Lazy(), 0)
    assert "returned a test_foreign.Lazy, which cannot be pickled (LookupError: no database)" in str(
        ended.error
    )
    assert ended.final


def test_a_value_that_cannot_be_pickled_costs_its_own_task():
    """A value that cannot be pickled fails its own task, which is not retried, and the message names it."""
    (ended,) = events_of(lambda item: (number for number in range(3)), 0)
    assert (TypeError, True) == (type(ended.error), ended.final)
    assert "generator" in str(ended.error)


def test_a_value_that_breaks_on_unpickling_costs_its_own_task():
    """A value whose unpickling raises, even SystemExit, fails its own task, with that error as the cause."""
    (ended,) = events_of(lambda item: far.Bomb("out"), 0)
    assert isinstance(ended.error, TypeError)
    assert "cannot be unpickled" in str(ended.error)
    assert isinstance(ended.error.__cause__, SystemExit)


def test_a_future_cancelled_by_others_may_have_run():
    """A future that others have cancelled is reported with ``may_have_run``."""
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", None)])
    pool.calls[0][0].cancel()
    (ended,) = port.wait(monotonic())
    assert isinstance(ended.error, WorkerDied)
    assert ended.error.may_have_run
    assert str(ended.error).endswith("in flight: CancelledError")


def test_what_has_not_begun_at_its_timeout_is_withdrawn():
    """A call that has not begun at its timeout is withdrawn: it never runs, and its slot is free."""
    pool, ran = Pool(), []
    port = ForeignEngine(pool, None).open(Job(ran.append))
    port.start([(0, 1, "item", 0.0)])
    (ended,) = port.wait(monotonic())
    assert isinstance(ended.error, TaskTimeout)
    assert 2 == port.room()
    pool.run()
    assert ([], []) == (ran, port.wait(monotonic()))


class Mute(Future):
    """A future that forgets its callbacks."""

    def add_done_callback(self, fn):
        pass


def test_what_a_pool_does_not_tell_of_is_found_at_its_timeout(monkeypatch):
    """A call that ended in time counts, even if its pool makes no callback; until then, nothing is polled."""
    monkeypatch.setattr("test_foreign.Future", Mute)
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", 0.01)])
    pool.run()
    (block,) = port.wait(monotonic() + 30)
    assert ["item"] == list(block.values)
    assert 2 == port.room()


class Signalled(Future):
    """A future during whose ``result`` a signal comes."""

    def result(self, timeout=None):
        signal.raise_signal(signal.SIGUSR1)
        return super().result(timeout)


def test_an_error_of_a_signal_handler_is_not_the_pools(monkeypatch):
    """If a signal handler raises while a result is fetched, that comes out of the run: the pool is not broken."""

    def leave(number, frame):
        raise SystemExit("told to end")

    monkeypatch.setattr("test_foreign.Future", Signalled)
    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(far.give_back))
    port.start([(0, 1, "item", None)])
    pool.run()
    former = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(SystemExit, match="told to end"):
            port.wait(monotonic())
    finally:
        signal.signal(signal.SIGUSR1, former)


@contextmanager
def busy_pool(width):
    """A pool whose threads are all busy with others' calls, and an event that ends these."""
    release = threading.Event()
    with ThreadPoolExecutor(width) as pool:
        for _ in range(width):
            pool.submit(release.wait, 60)
        try:
            yield pool, release
        finally:
            release.set()


@pytest.mark.all
def test_a_rate_is_kept_in_a_pool_that_others_keep_busy():
    """In a busy pool, starts count for a rate limit from when they really begin, so that calls do not all begin together."""
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
    """A call that a busy pool has not begun when the run is stopped counts no attempt."""
    heard = []
    with busy_pool(1) as (pool, _):
        results = run_parallel(str, [0], executor=pool, run_timeout=0.1, on_event=heard.append)
    assert (0, None) == (results.failures[0].attempts, results.failures[0].started_at)
    assert [] == heard


def test_a_call_that_is_just_beginning_is_neither_given_back_nor_overdue(monkeypatch):
    """It would be made twice, or have no time: it counts as begun when it can no longer be withdrawn."""
    clock = FakeClock()
    monkeypatch.setattr(_foreign, "monotonic", clock)
    port = ForeignEngine(Beginning(1), None).open(Job(abs))
    port.start([(0, 1, -1, 5.0)])
    assert [] == port.give_back()
    clock.jump(5.0)
    assert [] == port.wait(5.0)
    clock.jump(10.0)
    (over,) = port.wait(10.0)
    assert (TaskTimeout, 5.0) == (type(over.error), over.started)


def test_what_is_in_a_pool_as_the_port_closes():
    """What has ended keeps its value, what runs is known to be cut off, and what has not begun is withdrawn."""
    pool = Pool()
    port = ForeignEngine(pool, 3).open(Job(abs))
    port.start([(0, 1, -5, None)])
    pool.run()
    port.start([(1, 1, -6, None), (2, 1, -7, None)])
    running, waiting = (call[0] for call in pool.calls)
    running.set_running_or_notify_cancel()
    port.close()
    port.close()
    assert [(5,)] == [block.values for block in port.wait(monotonic())]
    assert ([1], True) == ([index for index, *_ in port.late], waiting.cancelled())


@pytest.mark.parametrize(
    ("error", "lost"), [(BrokenProcessPool("gone"), [1]), (RuntimeError("shut down"), [])]
)
def test_what_is_in_a_pool_that_takes_no_more_calls(error, lost, monkeypatch):
    """What has ended keeps its value. The rest is lost, and reported once, if the pool broke; in one that was shut down, it goes on."""
    pool = Pool()
    port = ForeignEngine(pool, 3).open(Job(abs))
    port.start([(0, 1, -5, None)])
    pool.run()
    port.start([(1, 1, -6, None)])
    monkeypatch.setattr(pool, "submit", Mock(side_effect=error))
    port.start([(2, 1, -7, None)])
    events = port.wait(monotonic())
    ended = [event for event in events if isinstance(event, Ended)]
    assert [(5,)] == [event.values for event in events if isinstance(event, Block)]
    assert [(index, WorkerDied, error) for index in lost] == [
        (event.index, type(event.error), event.error.__cause__) for event in ended
    ]
    assert port.failure is error
    pool.run()
    assert bool(lost) == (port.wait(monotonic()) == [])


def test_a_failure_that_a_run_has_not_seen_as_it_stops_was_the_last_attempt():
    """It counts once: the call that raised it is not also taken for a retry that the stop has cut off."""
    go, both = threading.Event(), threading.Barrier(2)

    def fail(number):
        assert not number or go.wait(10)
        raise (ValueError, OSError)[number]

    def hear(event):
        if (event.kind, event.index) == ("failed", 0):
            go.set()
            wait([pool.submit(both.wait, 10) for _ in range(2)])  # the pool needs the thread of task 1, too

    with ThreadPoolExecutor(2) as pool:
        retries = Retry(2, on=OSError, delay=0)
        results = run_parallel(fail, range(2), executor=pool, max_failures=1, retries=retries, on_event=hear)
    assert (1, 1) == (results.outcomes[0].attempts, results.outcomes[1].attempts)
    assert 2 == results.summary.attempts == len(results.attempts)


def test_a_timeout_in_a_thread_pool_counts_from_the_start(monkeypatch):
    """A call that waited in a pool of threads has its whole timeout once it begins; one that has not begun by then is withdrawn."""
    clock = FakeClock()
    monkeypatch.setattr(_foreign, "monotonic", clock)
    monkeypatch.setattr(_foreign_calls, "monotonic", clock)
    begun, go = threading.Event(), threading.Event()
    with busy_pool(1) as (pool, release):
        port = ForeignEngine(pool, 2).open(Job(lambda _: begun.set() or go.wait(30)))
        port.start([(0, 1, None, 5.0), (1, 1, None, 5.0)])
        assert [] == port.wait(0.0)
        clock.jump(4.0)
        release.set()
        assert begun.wait(30)
        clock.jump(8.0)
        (late,) = port.wait(8.0)
        assert (1, TaskTimeout) == (late.index, type(late.error))
        assert "task 1 waited for its timeout of 5 s in a busy ThreadPoolExecutor" in str(late.error)
        clock.jump(9.0)
        (over,) = port.wait(9.0)
        assert (0, TaskTimeout, 4.0, 9.0) == (over.index, type(over.error), over.started, over.ended)
        assert "; a ThreadPoolExecutor cannot end it" in str(over.error)
        go.set()


def test_a_run_on_a_pool_waits_without_looking_again_and_again(monkeypatch):
    """Not even after it was woken once."""
    looks = []
    port = ForeignEngine(Pool(), None).open(Job(abs))
    collect = port._collect
    monkeypatch.setattr(port, "_collect", lambda: looks.append(True) or collect())
    port.start([(0, 1, -1, None)])
    port.wake()
    last = monotonic() + 10
    assert [] == port.wait(last)
    assert monotonic() < last
    until = monotonic() + 0.02
    assert [] == port.wait(until)
    assert monotonic() >= until
    assert len(looks) <= 4


@pytest.mark.parametrize(("happens", "values"), [("run", [(5,)]), ("wake", [])])
def test_what_happens_as_the_run_is_about_to_block_is_not_slept_through(happens, values):
    """A call that ends after the run has looked, or a wake-up, finds nobody at the gate yet."""

    class Late(Gate):
        def wait(self, ready, timeout=None):
            pool.run() if happens == "run" else port.wake()
            return super().wait(ready, timeout)

    pool = Pool()
    port = ForeignEngine(pool, None).open(Job(abs))
    port.start([(0, 1, -5, None)])
    port._gate = Late()
    last = monotonic() + 10
    assert values == [block.values for block in port.wait(last)]
    assert monotonic() < last


def test_the_next_look_for_overdue_calls_is_when_one_may_be():
    """A call that began late is not looked at before: the run would look all the time, and use a processor."""
    ticket = (0, 1, None, 5.0)
    assert [6.0, 8.0] == [due_at((ticket, 1.0, claim)) for claim in ([], [3.0])]
    assert due_at(((0, 1, None, None), 1.0, [3.0])) is None


def test_a_call_that_begins_as_it_is_withdrawn_has_its_whole_timeout(monkeypatch):
    """A call of a busy pool of threads may begin between the look at its start and the attempt to withdraw it."""
    clock = FakeClock()
    monkeypatch.setattr(_foreign, "monotonic", clock)
    monkeypatch.setattr(_foreign_calls, "monotonic", clock)
    begun = threading.Event()
    with busy_pool(1) as (pool, release):
        port = ForeignEngine(pool, 2).open(Job(lambda _: begun.set()))
        port.start([(0, 1, None, 5.0)])
        (future,) = port._flights

        def too_late():
            release.set()
            assert begun.wait(30)
            return False

        future.cancel = too_late
        clock.jump(5.0)
        assert [] == port.wait(5.0)


@pytest.mark.parametrize("cancel", [True, False])
def test_what_a_thread_pool_drops_unbegun_never_ran(cancel):
    """If a pool of threads is shut down, or its initializer raises, the calls that it had not begun are cancelled, not blamed."""
    handed_over = threading.Semaphore(0)

    class Telling(ThreadPoolExecutor):
        def submit(self, *args):
            future = super().submit(*args)
            handed_over.release()
            return future

    def wait_for_all():
        for _ in range(3):
            handed_over.acquire(timeout=10)

    def shut(item):
        wait_for_all()
        pool.shutdown(wait=False, cancel_futures=True)

    def refuse():
        wait_for_all()
        raise OSError("no license")

    with Telling(1, initializer=None if cancel else refuse) as pool:
        results = run_parallel(shut, range(3), executor=pool, max_workers=3)
    unbegun = list(results.outcomes.values())[cancel:]
    assert {(TaskCancelled, 0)} == {(type(one.error), one.attempts) for one in unbegun}
    assert ("cancelled a call" if cancel else "initializer failed") in results.stopped


class Processes(Pool, ProcessPoolExecutor):
    """A pool of processes that runs nothing before it is told to."""


def test_what_a_process_pool_cancels_never_ran():
    """If others shut down a pool of processes, and cancel its calls, no worker has died: only what runs has an attempt."""
    pool = Processes()
    port = ForeignEngine(pool, None).open(Job(abs))
    port.start([(0, 1, -1, None), (1, 1, -1, None)])
    pool.calls[0][0].set_running_or_notify_cancel()
    pool.calls[1][0].cancel()
    assert [0] == [index for index, _, _ in port.running()]
    assert [] == port.wait(monotonic())
    assert "Processes cancelled a call that had not begun" in str(port.failure)


TABLE = {}


def look_up(key):
    return TABLE[key]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # since 3.12, beside any thread
def test_a_pool_that_forks_shares_what_a_module_has_loaded(monkeypatch):
    """A function of a module is sent by name, so that the workers use the globals that they were forked with."""
    monkeypatch.setitem(TABLE, "a", 1)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        pool.submit(abs, 0).result()  # now it has forked
        monkeypatch.setitem(TABLE, "a", 2)
        assert [1] == run_parallel(look_up, ["a"], executor=pool).values()


def test_what_has_begun_keeps_its_slot_beyond_its_timeout():
    """An overdue call that has begun keeps its slot until it returns."""
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
    """The late return of an overdue call wakes a run that waits for nothing else."""
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
    """If overdue calls hold every slot for one more timeout, the run ends and says why."""
    release = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        results = run_parallel(lambda _: release.wait(30), range(5), executor=pool, timeout=0.05)
        release.set()
    assert "every slot is lost: 2 calls overran their timeout" in results.stopped
    assert [TaskTimeout] * 2 + [TaskCancelled] * 3 == [type(one.error) for one in results.failures.values()]


def test_calls_past_their_timeout_have_as_long_again_to_return(monkeypatch):
    """Overdue calls that hold every slot have as long again to return before the run ends."""
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
    """A call that the pool refuses fails with the pool's error, never begins, and is not retried."""
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
    """On a pool that accepts nothing, the run ends and says why; all tasks are cancelled."""
    results = run_parallel(abs, range(5), executor=Refusing(error), retries=retries)
    assert "after shutdown" == results.stopped
    assert {(TaskCancelled, 0, None)} == {
        (type(one.error), one.attempts, one.error.__cause__) for one in results.outcomes.values()
    }


@pytest.mark.parametrize(
    "answer", [lambda: None, lambda: ("value", 1.0), lambda: asyncio.Future(loop=Mock())]
)
def test_a_pool_that_returns_no_future_costs_its_calls(answer):
    """Nobody would tell what becomes of them: the run would wait for ever."""
    pool = Pool()
    pool.submit = lambda *call: answer()
    results = run_parallel(abs, [-1, -2], executor=pool, run_timeout=5)
    assert {TypeError} == {type(failure.error) for failure in results.failures.values()}
    assert 2 == len(results.failures)
    assert str(results.failures[0].error).startswith(
        "submit of Pool must return a concurrent.futures.Future, got "
    )


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, Pool])
def test_a_pool_that_answers_with_a_value_of_its_own_is_broken(pool):
    """One that adds times to values, say: what the call has returned must come back as it was."""

    class Timing(pool):
        def submit(self, fn, /, *args):
            own = Future()
            own.set_result(("abcd", fn(*args)))
            return own

    results = run_parallel(abs, [-1], executor=Timing(), max_workers=1)
    text = "the Timing broke while this task was in flight: TypeError: it gave an object of type builtins.tuple in place"
    assert str(results.failures[0].error).startswith(text)
    assert results.stopped is None


def test_a_run_that_ends_at_an_error_without_text_says_its_type():
    """``stopped`` is never empty after a run that was stopped."""
    assert "NotImplementedError" == run_parallel(abs, [-1], executor=Executor(), max_workers=1).stopped


class Breaking(Pool):
    """A pool that loses both its workers to the first two calls, and then accepts no more."""

    def submit(self, fn, /, *args, **kwargs):
        if len(self.calls) == self._max_workers:
            raise BrokenProcessPool("broken")
        future = super().submit(fn, *args, **kwargs)
        if len(self.calls) == self._max_workers:
            for lost, *_ in self.calls:
                lost.set_exception(BrokenProcessPool("broken"))
        return future


class BreakingSilently(Pool):
    """A pool that breaks with two calls in flight, and has not told their futures by the time it is given a third."""

    _max_workers = 3

    def submit(self, fn, /, *args, **kwargs):
        if len(self.calls) == 2:
            raise BrokenProcessPool("broken")
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("pool", [Breaking, BreakingSilently])
@pytest.mark.parametrize("retries", [0, 2])
def test_when_a_pool_breaks_only_what_was_in_flight_has_lost_its_worker(retries, pool):
    """When a pool breaks, only calls in flight are WorkerDied, whatever the retries; others are cancelled and never began."""
    results = run_parallel(abs, range(5), executor=pool(), retries=Retry(retries, delay=0))
    lost = [one.error for one in list(results.outcomes.values())[:2]]
    assert [(WorkerDied, True)] * 2 == [(type(error), error.may_have_run) for error in lost]
    assert [(TaskCancelled, 0)] * 3 == [
        (type(one.error), one.attempts) for one in list(results.outcomes.values())[2:]
    ]
    assert "broken" == results.stopped


class Healing(Pool):
    """A pool that loses its first call, and starts new workers then."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        if len(self.calls) == 1:
            future.set_exception(BrokenProcessPool("broken"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_call_lost_by_a_pool_that_starts_new_workers_is_retried():
    """Only a pool that has broken for good takes no retry."""
    results = run_parallel(abs, [-1, -2], executor=Healing(), retries=Retry(1, delay=0))
    assert ([1, 2], [2, 1]) == (results.values(), [one.attempts for one in results.outcomes.values()])


class BreakingThreads(ThreadPoolExecutor):
    """A pool of threads that breaks as it is given a second call; what has begun goes on."""

    def submit(self, fn, /, *args, **kwargs):
        if self._threads:
            raise BrokenThreadPool("broken")
        return super().submit(fn, *args, **kwargs)


def test_when_a_pool_of_threads_breaks_no_thread_has_died():
    """Its initializer has failed in another thread. What runs goes on, as after a shutdown, and is cancelled."""
    begun, over = threading.Event(), threading.Event()
    with BreakingThreads(2) as pool:

        def items():
            yield lambda: (begun.set(), over.wait(30))
            assert begun.wait(30)
            yield abs

        results = run_parallel(items(), executor=pool)
        over.set()
    assert (TaskCancelled, 1) == (type(results.failures[0].error), results.failures[0].attempts)
    assert "broken" == results.stopped


def test_a_call_that_returned_late_gives_those_after_it_their_own_patience():
    """After a late return has freed a slot, the next loss of every slot is waited for anew."""
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
