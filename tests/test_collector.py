"""Streams and executors in reference cycles: the garbage collector closes them, in any thread, at any moment."""

import _thread
import gc
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import closing

import pytest
import remote_tasks as far
from patience import PATIENCE

from parallelkit import Checkpoint, ProcessExecutor, ThreadExecutor, _collector, iter_parallel, run_parallel
from parallelkit._executors import _threads
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._submit._dispatcher import Dispatcher
from parallelkit._executors._thread import _worker
from parallelkit._executors._thread._registry import Registry
from parallelkit._executors._thread._worker import ThreadWorker
from parallelkit._executors._threads import ThreadEngine


@pytest.fixture
def leave_behind():
    """Begin a stream that only a reference cycle holds, and that is not collected before the test wants it."""
    gc.collect()
    gc.disable()

    def begin(*args, **options):
        stream = iter_parallel(*args, **options)
        cycle = [stream]
        cycle.append(cycle)
        next(stream)

    yield begin
    gc.enable()
    closing = [
        each for each in threading.enumerate() if each.name in ("parallelkit_closing", "parallelkit_stream")
    ]
    for each in closing:
        each.join(PATIENCE)


def test_the_thread_that_a_stream_waits_for_may_close_it(monkeypatch, leave_behind):
    """A stream may be collected in the supervisor's thread, whose answers its close needs."""
    collections = iter([gc.collect])
    tell = Supervisor._tell
    with ProcessExecutor(1) as executor:
        leave_behind(far.nap, [0, 0.01, 0.01], executor=executor)

        def collect(supervisor, now):
            next(collections, int)()
            return tell(supervisor, now)

        monkeypatch.setattr(Supervisor, "_tell", collect)
        assert 1 == executor.submit(abs, -1).result(PATIENCE)
    assert next(collections, None) is None


WAITS = {
    "result": lambda executor: executor.submit(abs, -3).result(),
    "exception": lambda executor: executor.submit(abs, -3).exception(),
    "map": lambda executor: list(executor.map(abs, [-3])),
    "run": lambda executor: run_parallel(abs, [-3], executor=executor),
    "stream": lambda executor: list(iter_parallel(abs, [-3], executor=executor)),
}


class Last:
    """Garbage whose finalizer the collector calls; the outcome is put into a queue."""

    def __init__(self, finalizer, told):
        self.itself, self.finalizer, self.told = self, finalizer, told

    def __del__(self):
        try:
            self.told.put(self.finalizer())
        except RuntimeError as error:
            self.told.put(error)


@pytest.fixture
def finalize_in(monkeypatch):
    """Have the collector call a finalizer as soon as a given function is called; return the queue for its outcome."""
    gc.collect()
    gc.disable()

    def replace(owner, name, finalizer):
        told, function, once = queue.SimpleQueue(), getattr(owner, name), iter([None])

        def collect(*args):
            for _ in once:
                Last(finalizer, told)
                gc.collect()
            return function(*args)

        monkeypatch.setattr(owner, name, collect)
        return told

    yield replace
    gc.enable()


def finalize_in_supervisor(finalize_in, executor, finalizer):
    """The outcome of this finalizer, called in the thread that serves the workers."""
    executor.submit(abs, -1).result(PATIENCE)
    told = finalize_in(Supervisor, "_tell", lambda: finalizer(executor))
    executor._pool._supervisor.poke()
    return told.get(timeout=PATIENCE)


@pytest.mark.parametrize("wait", WAITS)
def test_a_finalizer_may_not_wait_for_the_thread_that_calls_it(finalize_in, wait):
    """A finalizer in the supervisor's thread may not wait for that thread: RuntimeError says so."""
    with ProcessExecutor(1) as executor:
        error = finalize_in_supervisor(finalize_in, executor, WAITS[wait])
    assert isinstance(error, RuntimeError)
    assert "must not wait" in str(error)


def test_a_finalizer_may_submit_where_it_may_not_wait(finalize_in):
    """A finalizer may submit a call where it may not wait for it, and the call is made."""
    with ProcessExecutor(1) as executor:
        future = finalize_in_supervisor(finalize_in, executor, lambda executor: executor.submit(abs, -3))
        assert 3 == future.result(PATIENCE)


def test_a_finalizer_may_shut_down_the_executor_whose_thread_calls_it(finalize_in):
    """A finalizer may shut down the executor in whose thread it runs: submitted calls are made, and it does not wait for them."""
    executor = ProcessExecutor(1)
    assert finalize_in_supervisor(finalize_in, executor, ProcessExecutor.shutdown) is None
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -4)
    executor.shutdown()


class Idle(deque):
    """The idle threads of an engine, with a ``remove`` that a test can replace."""

    def remove(self, worker):
        deque.remove(self, worker)


@pytest.mark.parametrize(
    "place",
    [(ThreadWorker, "_rest"), (ThreadWorker, "_idle"), (Idle, "remove"), (ThreadEngine, "end")],
    ids=lambda place: place[1],
)
@pytest.mark.parametrize("wait", WAITS)
def test_a_finalizer_in_a_thread_that_rests_or_ends_may_wait_for_the_executor(
    finalize_in, wait, place, monkeypatch
):
    """A finalizer in an idle or ending worker thread may wait for a call: its slot is lent, and the executor keeps its width."""
    monkeypatch.setattr(_worker, "IDLE", 0.01)
    with ThreadExecutor(1) as executor:
        executor._pool.idle = Idle()
        assert [1] == run_parallel(abs, [-1], executor=executor).values()
        told = finalize_in(*place, lambda: (WAITS[wait](executor), threading.current_thread().name))
        assert [2] == run_parallel(abs, [-2], executor=executor).values()
        _, name = told.get(timeout=PATIENCE)
        assert name.startswith("ThreadExecutor-")
        given_up = time.monotonic() + PATIENCE
        while (
            executor._pool.slots.loans and time.monotonic() < given_up
        ):  # a stream's thread pays its back as it ends
            time.sleep(0.001)
        assert not executor._pool.slots.loans
        assert [4, 5] == list(executor.map(abs, [-4, -5]))


def test_a_thread_that_ends_may_drop_the_last_reference_to_its_executor(monkeypatch):
    """A task may keep the executor in a ``threading.local``: the thread that ends closes it, and does not wait for itself."""
    monkeypatch.setattr(_worker, "IDLE", 0.01)
    local, before = threading.local(), set(threading.enumerate())
    executor = ThreadExecutor(1)
    run_parallel(setattr, [(local, "executor", executor)], star=True, executor=executor)
    gone = weakref.ref(executor)
    del executor
    given_up = time.monotonic() + PATIENCE
    while (gone() or set(threading.enumerate()) > before) and time.monotonic() < given_up:
        gc.collect()
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "place",
    [(_threads, "ThreadWorker"), (Registry, "leave"), (Dispatcher, "_check_loss")],
    ids=lambda place: place[1],
)
@pytest.mark.parametrize("wait", WAITS)
def test_a_finalizer_in_the_midst_of_an_executor_may_not_wait_for_it(finalize_in, wait, place, monkeypatch):
    """A finalizer in a thread that holds the executor's lock may not wait for a call: RuntimeError says so, and nothing hangs."""
    monkeypatch.setattr(_worker, "IDLE", 0.01)
    with ThreadExecutor(1) as executor:
        told = finalize_in(*place, lambda: WAITS[wait](executor))
        assert 2 == executor.submit(abs, -2).result(PATIENCE)
        error = told.get(timeout=PATIENCE)
        assert isinstance(error, RuntimeError)
        assert "must not wait" in str(error)
        assert 4 == executor.submit(abs, -4).result(PATIENCE)


@pytest.mark.parametrize("use", [WAITS["run"], WAITS["result"]], ids=["worker", "dispatcher"])
@pytest.mark.parametrize(
    "wait",
    [
        "run",
        "stream",
        *(pytest.param(wait, marks=pytest.mark.all) for wait in ("result", "exception", "map")),
    ],
)
def test_a_finalizer_in_a_thread_that_is_being_started_may_not_wait_for_it(finalize_in, wait, use):
    """A finalizer in a thread that is being started may not wait for a call, because the starter waits for that thread."""
    with ThreadExecutor(1) as executor:
        told = finalize_in(threading.Thread, "_set_native_id", lambda: WAITS[wait](executor))
        use(executor)
        given = told.get(timeout=PATIENCE)
        if use is WAITS["run"] or wait not in ("run", "stream"):
            assert "must not wait" in str(given)


def test_a_finalizer_in_the_midst_of_an_executor_may_shut_it_down(finalize_in):
    """A finalizer in a thread that holds the executor's lock may shut it down, without waiting; a run on it ends and says why."""
    executor = ThreadExecutor(1)
    told = finalize_in(_threads, "ThreadWorker", executor.shutdown)
    results = run_parallel(abs, [-1], executor=executor)
    assert told.get(timeout=PATIENCE) is None
    assert results.stopped in (None, "the executor was shut down")
    for each in threading.enumerate():
        if each.name == "parallelkit_closing":
            each.join(PATIENCE)
    assert not executor._pool.workers


def test_whoever_holds_a_lock_that_a_stream_needs_may_close_it(monkeypatch, leave_behind):
    """A stream may be collected while the thread holds a lock that the close needs."""
    collections, barrier = iter([gc.collect]), threading.Barrier(3)
    make = _threads.ThreadWorker
    with ThreadExecutor(3) as executor:
        leave_behind(far.nap, [0, 0.01], executor=executor)

        def collect(*args):
            assert executor._pool.is_served_here()
            next(collections, int)()
            return make(*args)

        monkeypatch.setattr(_threads, "ThreadWorker", collect)
        calls = [executor.submit(barrier.wait, PATIENCE) for _ in range(3)]  # which takes one thread more
        assert [0, 1, 2] == sorted(call.result(PATIENCE) for call in calls)
    assert next(collections, None) is None


def test_an_executor_is_shut_down_where_its_own_lock_is_held():
    """An executor may be collected while its own lock is held; its last calls are made."""
    release = threading.Event()

    def leave_behind():
        executor = ThreadExecutor(1)
        cycle = [executor]
        cycle.append(cycle)
        return executor._dispatcher, [executor.submit(release.wait, PATIENCE) for _ in range(2)]

    gc.disable()
    try:
        dispatcher, calls = leave_behind()
        with dispatcher._lock:
            gc.collect()
    finally:
        gc.enable()
    assert dispatcher._shut
    release.set()
    assert [True, True] == [call.result(PATIENCE) for call in calls]
    dispatcher.join()


def test_an_executor_that_served_runs_alone_is_closed_where_its_engines_lock_is_held():
    """An executor that is collected while its engine's lock is held is closed in another thread, because closing waits for threads."""

    def leave_behind():
        executor = ThreadExecutor(1)
        run_parallel(abs, [1], executor=executor)
        cycle = [executor]
        cycle.append(cycle)
        return executor._pool

    gc.disable()
    try:
        engine = leave_behind()
        with engine._lock:
            gc.collect()
    finally:
        gc.enable()
    for each in threading.enumerate():
        if each.name == "parallelkit_closing":
            each.join(PATIENCE)
    assert engine.closed
    assert not engine.workers


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_an_executor_that_was_shut_down_starts_no_thread_as_it_is_collected(make, monkeypatch):
    """It has nothing left to close; where the system has no thread to give, Python printed an error at its collection."""
    started = []
    monkeypatch.setattr(_collector._Closing, "start", started.append)
    with make(1) as executor:
        cycle = [executor]
        cycle.append(cycle)
    gone = weakref.ref(executor)
    del executor, cycle
    gc.collect()
    assert gone() is None
    assert [] == started


def test_the_journal_of_a_stream_is_written_and_given_free(tmp_path, leave_behind):
    """When a stream is collected, its journal is written and soon free for the next run."""
    journal, made = Checkpoint(tmp_path / "journal"), []
    leave_behind(abs, range(20), key=str, checkpoint=journal, executor="threads", order="input")
    gc.collect()
    for each in threading.enumerate():
        if each.name == "parallelkit_closing":
            each.join(PATIENCE)

    def make(item):
        made.append(item)
        return item

    make.__module__, make.__qualname__ = abs.__module__, abs.__qualname__
    assert list(range(20)) == run_parallel(make, range(20), key=str, checkpoint=journal).values()
    assert 0 not in made


def test_the_journal_of_a_stream_is_written_where_it_is_collected_as_the_last_act_of_a_program(tmp_path):
    """A stream that is collected at the end of a program has its journal written before the program exits."""
    script = f"""
import gc
from parallelkit import iter_parallel
gc.collect()
gc.disable()
def leave():
    stream = iter_parallel(abs, range(200), key=str, checkpoint={str(tmp_path / "journal")!r}, order="input")
    cycle = [stream]
    cycle.append(cycle)
    while next(stream).index < 150:
        pass
leave()
gc.collect()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
    assert ["journal"] == os.listdir(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal")) as journal:
        keys = {key for (key,) in journal.execute("SELECT key FROM outcomes")}
    assert {repr(str(number)) for number in range(151)} <= keys


def test_only_the_collector_counts():
    """A finalizer knows whether the garbage collector calls it; one of a dropped object runs where the caller says, and may wait."""
    _collector.watch()
    seen = []

    class Last:
        def __del__(self):
            seen.append(_collector.is_collecting())

    last = Last()
    del last
    assert [False] == seen
    last = Last()
    last.itself = last
    del last
    gc.collect()
    assert [False, True] == seen
    assert not _collector.is_collecting()


def test_ctrl_c_during_a_collection_is_not_lost():
    """A Ctrl-C that comes while garbage is collected is raised, although collections are noted."""

    class CtrlC:
        __del__ = _thread.interrupt_main  # in C: the signal is handled in the next function in Python

    others, gc.callbacks[:] = gc.callbacks[:], []
    try:
        _collector.watch()
        last = CtrlC()
        last.itself = last
        del last
        with pytest.raises(KeyboardInterrupt):
            gc.collect()
    finally:
        gc.callbacks[:] = others


def test_an_executor_that_has_ended_leaves_nothing_to_the_collector():
    """A closed executor frees the arguments of its initializer at once, without garbage collection."""

    class Model:
        pass

    gc.collect()
    gc.disable()
    try:
        model = Model()
        with ThreadExecutor(1, initializer=id, initargs=(model,)) as executor:
            executor.submit(abs, -1).result(PATIENCE)
        left = weakref.ref(model)
        del executor, model
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_collections_are_noted_from_the_first_executor_on(make):
    """Also where a program makes no stream: else whoever collects an executor would wait for its threads."""
    if _collector._note in gc.callbacks:
        gc.callbacks.remove(_collector._note)
    make(1).shutdown()
    assert _collector._note in gc.callbacks
