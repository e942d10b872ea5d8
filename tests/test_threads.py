"""The thread engine: wake-ups, slots, abandoned threads, nested runs, contexts, initializers."""

import ctypes
import gc
import os
import queue
import re
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from math import inf
from types import SimpleNamespace

import pytest
from patience import PATIENCE, wait_until

from parallelkit import ParallelKitError, RateLimit, Retry, Task, TaskTimeout, ThreadExecutor, run_parallel
from parallelkit._executors import _choice
from parallelkit._executors._contract import Ended, Job
from parallelkit._executors._gate import Gate
from parallelkit._executors._submit._future import PoolFuture
from parallelkit._executors._thread import _loss, _overdue, _starts
from parallelkit._executors._thread import _worker as _thread
from parallelkit._executors._thread._overdue import Lookout
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._executors._thread._queue import OWN, TicketQueue
from parallelkit._executors._thread._registry import Registry
from parallelkit._executors._thread._slots import Slots
from parallelkit._executors._thread._worker import IDLE, ThreadWorker
from parallelkit._executors._threads import ThreadEngine
from parallelkit._executors._width import outer_width
from parallelkit.testing import FakeClock


@pytest.fixture
def engine():
    engine = ThreadEngine(2)
    yield engine
    engine.close()


def tickets(*items, timeout=None):
    return [(index, 1, item, timeout) for index, item in enumerate(items)]


def take(port, count):
    """Wait until ``count`` attempts have ended; return them by index: the value, or the ``Ended``."""
    seen, until = {}, time.monotonic() + PATIENCE
    while len(seen) < count:
        entries = port.wait(until)
        # It may return early, for a thread that was started, say.
        goes_on = port.failure is None and time.monotonic() < until
        assert entries or goes_on, f"{len(seen)} of {count} ended, then nothing more"
        for entry in entries:
            seen.update(
                zip(entry.indices, entry.values, strict=True)
                if hasattr(entry, "indices")
                else [(entry.index, entry)]
            )
    return seen


def outlast(port):
    """Wait until nothing can run on a port any more; return what has ended meanwhile."""
    ended = []
    while port.failure is None:
        ended += port.wait(None)
    return ended


def run_all(engine, fn, items, timeout=None):
    port = engine.open(Job(fn))
    try:
        port.start(tickets(*items, timeout=timeout))
        return take(port, len(items))
    finally:
        port.close()


class Hold:
    """A function that signals when it has begun, and returns when it is released."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, item=None):
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return item


# Wake-ups


def test_all_slots_come_to_work():
    """A worker that leaves tickets behind wakes the next: eight tasks that wait for each other run at once."""
    engine, barrier = ThreadEngine(8), threading.Barrier(8)
    for _ in range(3):  # started, then woken
        seen = run_all(engine, lambda item: barrier.wait(PATIENCE) and item, range(8))
        assert set(range(8)) == set(seen)
    assert 8 == len(engine.workers)
    engine.close()


def test_ctrl_c_as_an_engine_is_closed_leaves_no_idle_thread(monkeypatch):
    """After Ctrl-C during ``close``, idle threads end at once, although nobody waits for them."""
    engine = ThreadEngine(2)
    barrier = threading.Barrier(2)
    port = engine.open(Job(lambda item: barrier.wait(PATIENCE)))
    port.start(tickets(0, 1))
    take(port, 2)
    port.close()
    threads = [worker.thread for worker in engine.workers]

    def pressed(thread):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "join", pressed)
        engine.close()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert (2, True) == (len(threads), time.monotonic() - began < IDLE / 2)


def test_no_ticket_is_slept_through(restless):
    """Tickets that come one by one, just as workers go idle, are all served."""
    engine = ThreadEngine(4)
    port = engine.open(Job(lambda item: item))
    for index in range(2_000):
        port.start([(index, 1, index, None)])
        assert {index: index} == take(port, 1)
    port.close()
    engine.close()


def test_no_ticket_is_slept_through_when_ports_come_and_go(restless):
    """Tickets of a new port are served, even if a worker goes idle just as the port opens."""
    engine = ThreadEngine(3)
    for index in range(300):
        assert {0: index} == run_all(engine, lambda item: item, [index])
    engine.close()


def test_a_thread_is_idle_only_once_it_can_be_woken(monkeypatch):
    """A thread that is about to wait is not woken for a ticket: it would not notice, and be neither idle nor at work."""
    engine = ThreadEngine(1, initializer=int)
    run_all(engine, abs, [1])
    (worker,) = engine.workers
    wait, waits = Gate.wait, []

    def wake_and_wait(gate, *args):
        if gate is worker.gate:
            engine.wake_one()
            waits.append(gate)
        return wait(gate, *args)

    monkeypatch.setattr(Gate, "wait", wake_and_wait)
    run_all(engine, abs, [2])
    wait_until(lambda: waits and worker.gate._tokens)
    assert {0: 3} == run_all(engine, abs, [-3])
    engine.close()


def test_no_more_threads_are_started_than_are_wanted():
    """In an engine of a hundred slots, two tasks start at most two threads."""
    engine = ThreadEngine(100)
    run_all(engine, lambda item: item, range(2))
    assert len(engine.workers) <= 2
    engine.close()


def test_a_ticket_for_which_a_thread_idles_starts_none():
    """A task for which an idle thread has been woken starts no new thread."""
    engine = ThreadEngine(4)
    port = engine.open(Job(lambda item: threading.current_thread()))
    seen = []
    for index in range(20):
        port.start([(index, 1, index, None)])
        seen += take(port, 1).values()
        wait_until(lambda: engine.idle)
    port.close()
    assert 1 == len(set(map(id, seen))) == len(engine.workers)
    engine.close()


def test_an_idle_thread_that_is_ended_from_outside_is_replaced(engine):
    """If an exception is sent into a thread that idles, the next task is not left to that thread."""
    port = engine.open(Job(abs))
    port.start(tickets(-1))
    assert {0: 1} == take(port, 1)
    wait_until(lambda: engine.idle)
    (worker,) = engine.idle
    ident, error = ctypes.c_ulong(worker.thread.ident), ctypes.py_object(LookupError)
    assert 1 == ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)
    worker.gate.force()
    worker.thread.join(PATIENCE)
    port.start(tickets(-2))
    assert {0: 2} == take(port, 1)
    port.close()


def test_idle_threads_retire(monkeypatch):
    """Threads end after some seconds without work, and new ones start when there is work again."""
    monkeypatch.setattr(_thread, "IDLE", 0.01)
    engine = ThreadEngine(2)
    run_all(engine, lambda item: item, range(2))
    threads = [worker.thread for worker in tuple(engine.workers)]
    for thread in threads:
        thread.join(PATIENCE)
    assert set() == engine.workers
    assert {0: 1} == run_all(engine, lambda item: item, [1])
    engine.close()


def test_a_thread_with_an_initializer_stays(monkeypatch):
    """What an initializer has set up in a thread, a connection say, is not lost where no work comes for a while."""
    monkeypatch.setattr(_thread, "IDLE", 0.0)
    begun = []
    engine = ThreadEngine(1, initializer=lambda: begun.append(threading.current_thread()))
    run_all(engine, lambda item: item, [0])
    wait_until(lambda: engine.idle)
    begun[0].join(0.05)
    assert {0: 1} == run_all(engine, lambda item: item, [1])
    assert (1, True) == (len(begun), begun[0].is_alive())
    engine.close()


def test_a_worker_may_retire_while_work_comes(monkeypatch, restless):
    """No task is lost to a worker that is about to retire when it is woken."""
    monkeypatch.setattr(_thread, "IDLE", 1e-5)
    engine = ThreadEngine(2)
    port = engine.open(Job(lambda item: item))
    for index in range(1_000):
        port.start([(index, 1, index, None)])
        assert {index: index} == take(port, 1)
    port.close()
    engine.close()


def test_threads_are_daemons_with_a_name():
    """Threads are daemons, so that a hung one does not keep the program from exiting, and have the given name."""
    engine = ThreadEngine(2, "fetch")
    seen = run_all(engine, lambda item: threading.current_thread(), range(4))
    assert all(thread.daemon for thread in seen.values())
    assert all(thread.name.startswith("fetch_") for thread in seen.values())
    engine.close()


def test_threads_are_numbered_from_zero_in_each_executor():
    """Thread names are those of the standard pool, with the executor's number if there is no prefix; numbers are reused."""
    barrier = threading.Barrier(3)

    def name(_):
        barrier.wait(PATIENCE)
        return threading.current_thread().name

    for _ in range(2):
        with ThreadExecutor(3, "fetch") as executor:
            assert ["fetch_0", "fetch_1", "fetch_2"] == sorted(executor.map(name, range(3)))
    prefixes = set()
    for _ in range(2):
        with ThreadExecutor(3) as executor:
            names = sorted(executor.map(name, range(3)))
        prefix = names[0].removesuffix("_0")
        assert re.fullmatch(r"ThreadExecutor-\d+", prefix)
        assert [f"{prefix}_{number}" for number in range(3)] == names
        prefixes.add(prefix)
    assert 2 == len(prefixes)


def test_the_number_of_a_thread_that_has_ended_is_used_again(engine, monkeypatch):
    """The number of an ended thread is reused, so that a long-lived executor does not seem to have thousands of workers."""
    monkeypatch.setattr(_thread, "IDLE", 0.01)
    for _ in range(3):
        assert {0: "parallelkit_0"} == run_all(engine, lambda _: threading.current_thread().name, [0])
        for worker in tuple(engine.workers):
            worker.thread.join(PATIENCE)


def test_the_limit_of_the_system_costs_width_only(monkeypatch):
    """If no further thread can be started, the others do the work; if none can, that is an error."""
    start, started = threading.Thread.start, []

    def start_one(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    engine = ThreadEngine(8)
    assert {index: index for index in range(20)} == run_all(engine, lambda item: item, range(20))
    engine.close()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_all(ThreadEngine(8), lambda item: item, [1])


def test_ctrl_c_before_a_thread_is_started_costs_no_slot():
    """If Ctrl-C prevents the start of a thread, its slot is free, and another thread is started."""

    class Interrupting(set):
        def add(self, worker):
            super().add(worker)
            if next(interrupts, None):
                raise KeyboardInterrupt

    interrupts, engine = iter([True]), ThreadEngine(1)
    engine.workers = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        run_all(engine, abs, [-1])
    assert {0: 2} == run_all(engine, abs, [-2])
    engine.close()


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("leave", ["done", "given up", "closed"])
def test_an_exact_run_hears_that_another_has_left_it_a_thread(engine, leave, pause, monkeypatch):
    """An ``exact`` run learns that another run has freed a thread; otherwise it would go on with one until its own attempt ends."""
    monkeypatch.setattr(_thread, "IDLE", 2 * PATIENCE)  # a thread that retires would tell it, too
    begun, go_on = threading.Semaphore(0), {name: threading.Event() for name in "abc"}

    def task(item):
        begun.release()
        return go_on[item].wait(PATIENCE)

    other, port = engine.open(Job(task)), engine.open(Job(task, exact=True))
    other.start([(0, 1, "a", None), (1, 1, "b", pause + 0.3 if leave == "given up" else None)])
    assert all(begun.acquire(timeout=PATIENCE) for _ in range(2))
    port.start([(0, 1, "c", None)])
    go_on["a"].set()
    assert begun.acquire(timeout=PATIENCE)
    assert 0 == port.room()

    act = {"done": go_on["b"].set, "closed": other.close, "given up": lambda: take(other, 2)}[leave]
    timer = threading.Timer(pause, act)
    timer.start()
    until = time.monotonic() + PATIENCE
    assert [] == port.wait(until)
    assert time.monotonic() < until
    assert 1 == port.room()
    timer.join()
    for event in go_on.values():
        event.set()
    assert {0: True} == take(port, 1)


def test_a_slot_that_comes_free_as_room_is_counted_is_heard_of(engine, monkeypatch):
    """The count may not have seen it, and nobody would tell the run of it again."""
    port = engine.open(Job(abs, exact=True))

    def count(port):
        port.hear_of_room()
        return 0, True

    monkeypatch.setattr(engine, "slots_for", count)
    port.room()
    assert port._woken
    port.close()


def test_what_has_ended_holds_no_slot_before_its_run_looks(engine):
    """An ended attempt frees its slot for other runs, even before its own run, such as a stream with a slow consumer, takes it."""
    other, port = engine.open(Job(abs)), engine.open(Job(abs, exact=True))
    other.start(tickets(1, 2))
    wait_until(lambda: port.room() == 2)


# A run that owns its threads


@pytest.fixture
def passing():
    """An engine of a single run, and a function that opens a port which gets no further first attempts."""
    engine = ThreadEngine(4, passing=True)
    yield engine, lambda fn, **job: engine.open(Job(fn, ended=lambda: True, **job))
    engine.close()


def test_threads_that_have_ended_take_no_memory():
    """Idle threads retire, and others take their place, for as long as an executor is used."""
    registry = Registry()
    for number in range(3):
        registry.leave(ThreadWorker(None, "retired", number))  # its thread is not alive
    assert len(registry._left) <= 1


def test_threads_of_a_run_end_when_nothing_is_left_for_them(passing, monkeypatch):
    """Threads of a run end as soon as nothing is left for them, while another is still busy."""
    monkeypatch.setattr(_thread, "IDLE", inf)
    engine, open_port = passing
    hold, barrier = Hold(), threading.Barrier(4)

    def task(item):
        barrier.wait(PATIENCE)
        return hold() if item == 3 else item

    port = open_port(task)
    port.start(tickets(*range(4)))
    assert hold.begun.wait(PATIENCE)
    threads = [worker.thread for worker in tuple(engine.workers)]
    assert {0: 0, 1: 1, 2: 2} == take(port, 3)
    wait_until(lambda: 1 == sum(thread.is_alive() for thread in threads))
    hold.go.set()
    take(port, 1)
    port.close()


def test_the_thread_of_a_failed_attempt_stays_for_the_next(passing):
    """The thread of a failed attempt stays for its retry, with whatever it has opened, such as a connection."""
    engine, open_port = passing
    local = threading.local()

    def task(item):
        if not hasattr(local, "known"):
            local.known = True
            raise ConnectionError
        return item

    port = open_port(task)
    port.start([(0, 1, "a", None)])
    assert isinstance(take(port, 1)[0].error, ConnectionError)
    wait_until(lambda: engine.idle)
    port.start([(0, 2, "a", None)])
    assert {0: "a"} == take(port, 1)
    port.close()


@pytest.mark.all
def test_no_attempt_is_lost_to_a_thread_that_is_about_to_end(passing, restless):
    """Tickets that come just as threads of the run end for want of work are served."""
    _, open_port = passing
    port = open_port(lambda item: item)
    for index in range(1_000):
        port.start([(index, 1, index, None)])
        assert {index: index} == take(port, 1)
    port.close()


def test_what_is_held_after_a_failure_is_not_lost_to_threads_that_end(passing):
    """Tasks held back while a failure is looked at are run, even if all threads have ended meanwhile."""
    _, open_port = passing

    def task(item):
        if item == 0:
            raise ValueError
        return item

    port = open_port(task, wary=True)
    port.start(tickets(*range(100)))
    seen, until = {}, time.monotonic() + PATIENCE
    while len(seen) < 100:
        events = port.wait(until)
        assert events
        for event in events:
            seen.update(
                zip(event.indices, event.values, strict=True)
                if hasattr(event, "indices")
                else [(event.index, event)]
            )
        port.start(())  # the run has seen the failure
    assert set(range(100)) == set(seen)
    port.close()


@pytest.mark.parametrize("passing", [True, False])
def test_the_close_waits_for_threads_that_have_left(passing, monkeypatch):
    """``close`` also waits for threads that have no work any more but still clear up their thread-local objects."""
    monkeypatch.setattr(_thread, "IDLE", 0.01)
    engine, local, cleared = ThreadEngine(1, passing=passing), threading.local(), []

    class Slow:
        def __del__(self):
            time.sleep(0.02)
            cleared.append(self)

    def task(item):
        local.thing = Slow()

    run_all(engine, task, [1])
    wait_until(lambda: not engine.workers)
    engine.close()
    assert 1 == len(cleared)


def test_a_thread_of_a_run_stays_while_more_may_be_read():
    """A thread stays, with whatever it has opened, while a slow input may bring more work."""
    engine = ThreadEngine(1, passing=True)
    port = engine.open(Job(lambda item: threading.current_thread()))
    seen = []
    for index in range(3):
        port.start([(index, 1, None, None)])
        seen += take(port, 1).values()
        wait_until(lambda: engine.idle)
    assert 1 == len(set(map(id, seen)))
    port.close()
    engine.close()


def test_a_thread_of_a_run_stays_while_attempts_wait_to_be_made_again():
    """A thread stays, with whatever it has opened, while retries are delayed."""
    tried = set()

    def task(item):
        if item not in tried:
            tried.add(item)
            raise ConnectionError
        return threading.current_thread()

    results = run_parallel(task, range(8), max_workers=1, retries=Retry(1, delay=0.05))
    assert 1 == len(set(map(id, results.values())))


@pytest.mark.parametrize(
    "options",
    [
        {"limits": RateLimit(1, per=0.02)},
        {"then": lambda outcome: [Task(threading.current_thread)] if outcome.index < 2 else ()},
    ],
)
def test_a_thread_of_a_run_stays_where_tasks_wait_elsewhere(options):
    """A thread stays when its queue is empty, if limits hold tasks back or ``then`` may make new ones."""
    results = run_parallel([threading.current_thread] * 3, max_workers=1, **options)
    assert 1 == len(set(map(id, results.values())))
    assert len(results) >= 3


# Abandoned threads


def test_an_overdue_thread_loses_its_slot_and_tells_where_it_stood(engine):
    """If two tasks hang in two slots, a third one still runs, and each failure has the stack of its thread."""
    hold = Hold()
    port = engine.open(Job(lambda item: hold(item) if item == "hang" else item))
    port.start([(0, 1, "hang", 0.05), (1, 1, "hang", 0.05)])
    seen = take(port, 2)
    assert [TaskTimeout] * 2 == [type(seen[index].error) for index in (0, 1)]
    assert "in __call__" in seen[0].stack
    assert "assert self.go.wait(PATIENCE)" in seen[0].stack
    (note,) = seen[0].error.__notes__
    assert note.startswith("it stood at\n")
    assert "assert self.go.wait(PATIENCE)" in note
    port.start([(2, 1, "next", None)])
    assert {2: "next"} == take(port, 1)
    assert 2 == len(engine.abandoned)
    hold.go.set()
    port.close()


def test_the_next_look_for_overdue_attempts_is_as_early_as_any_may_be(monkeypatch):
    """The port looks after the shortest timeout of all that may begin, whatever else was handed over before or since."""
    monkeypatch.setattr(_overdue, "monotonic", FakeClock())
    lookout = Lookout()
    for limit, expected in ((9.0, 9.0), (3.0, 3.0), (5.0, 3.0), (None, 3.0)):
        lookout.expect([(0, 1, None, limit)])
        assert expected == lookout.look_at
    for more, expected in ((True, 6.0), (False, 9.0)):
        lookout.look_again(3.0, [9.0], more)
        assert expected == lookout.look_at


def test_a_late_end_is_dropped(engine):
    """A value or error that an abandoned thread produces later is dropped, and the thread ends."""
    holds = [Hold(), Hold()]

    def task(number):
        holds[number]()
        if number:
            raise OSError("late")

    port = engine.open(Job(task))
    port.start(tickets(0, 1, timeout=0.05))
    take(port, 2)
    threads = [worker.thread for worker in tuple(engine.abandoned)]
    for hold in holds:
        hold.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ([], set()) == (port.wait(time.monotonic()), engine.abandoned)
    port.close()


class LateLock:
    """A lock that does something once, just before the main thread acquires it."""

    def __init__(self, lock, act):
        self._lock, self._act = lock, act

    def __enter__(self):
        if self._act is not None and threading.current_thread() is threading.main_thread():
            act, self._act = self._act, None
            act()
        self._lock.acquire()

    def __exit__(self, *error):
        self._lock.release()


def test_a_thread_that_ends_while_it_is_given_up_is_not_counted_as_abandoned_for_ever(engine):
    """A thread that ends while it is being abandoned is not counted as abandoned; otherwise its slot would be lost for good."""
    hold = Hold()
    port = engine.open(Job(hold))
    port.start(tickets("x", timeout=0.03))
    assert hold.begun.wait(PATIENCE)
    (worker,) = engine.workers

    def end():
        hold.go.set()
        wait_until(lambda: worker.current is None or not worker.thread.is_alive())

    engine._lock = LateLock(engine._lock, end)
    assert {0: "x"} == take(port, 1)
    assert set() == engine.abandoned
    port.close()


def test_when_every_slot_is_lost_the_port_fails(engine):
    """As many threads as there are slots may be abandoned; as many again lose the slots, and the port fails."""
    hold = Hold()
    port = engine.open(Job(hold))
    port.start(tickets(*range(6), timeout=0.03))
    assert set(range(4)) == set(take(port, 4))
    assert 0 == engine.capacity()
    assert [] == outlast(port), "nothing more could run"
    assert isinstance(port.failure, ParallelKitError)
    assert "every slot is lost: 4 threads overran their timeout" in str(port.failure)
    hold.go.set()
    port.close()


def lose_every_slot(engine, hold, timeout=0.03):
    port = engine.open(Job(hold))
    port.start(tickets(*range(4), timeout=timeout))
    take(port, 4)
    port.close()


def test_a_run_without_timeout_ends_where_an_earlier_one_lost_every_slot(engine):
    """A run without a timeout also fails if an earlier run's hung threads hold every slot."""
    hold = Hold()
    lose_every_slot(engine, hold)
    port = engine.open(Job(abs))
    port.start(tickets(1))
    assert [] == outlast(port)
    assert "none returned within 0.03 s more" in str(port.failure)
    hold.go.set()
    port.close()


def test_a_loss_of_every_slot_is_not_put_off():
    """What is abandoned later, in a slot that was lent, say, gives the others no more time to return."""
    engine, now, timeout = ThreadEngine(1), 10.0, 5.0
    for number, until in enumerate([None, 16.0, 16.0]):
        assert engine.abandon(object(), [0.0], now + number, timeout)
        assert until == (engine.loss and engine.loss.until)


def test_a_loss_of_every_slot_is_told_to_those_that_wait_already(engine):
    """A run without a timeout that is already waiting ends when another run loses every slot."""
    hold = Hold()
    port, reports = engine.open(Job(hold)), []
    port.start(tickets(*range(4), timeout=0.03))
    hold.begun.wait(PATIENCE)
    other = engine.open(Job(abs))
    waiter = threading.Thread(target=lambda: reports.append(outlast(other)))
    other.start(tickets(1))
    waiter.start()
    while other.failure is None:
        port.wait(time.monotonic() + 0.1)
    waiter.join(PATIENCE)
    assert [[]] == reports
    hold.go.set()
    port.close()
    other.close()


def test_a_run_that_was_stopped_has_no_timeout_to_wait_by(engine, monkeypatch):
    """Threads that a stopped run has abandoned have a fixed time to return, because they have no timeout."""
    monkeypatch.setattr(_loss, "PATIENCE", 0.05)
    holds = [Hold() for _ in range(4)]
    for pair in (0, 1), (2, 3):
        port = engine.open(Job(lambda item: holds[item]()))
        port.start(tickets(*pair))
        assert all(holds[item].begun.wait(PATIENCE) for item in pair)
        port.close()
    port = engine.open(Job(abs))
    port.start(tickets(1))
    assert [] == outlast(port)
    assert "4 threads belong to runs that were stopped, cannot be killed" in str(port.failure)
    for hold in holds:
        hold.go.set()
    port.close()


def test_slots_may_be_lost_to_timeouts_and_to_stopped_runs(engine, monkeypatch):
    """If slots are lost both to timeouts and to stopped runs, the error says both."""
    monkeypatch.setattr(_loss, "PATIENCE", 0.05)
    hold, last = Hold(), Hold()
    port = engine.open(Job(lambda item: (last if item == 3 else hold)()))
    port.start(tickets(*range(3), timeout=0.03))
    take(port, 3)
    port.start([(3, 1, 3, None)])
    assert last.begun.wait(PATIENCE)
    port.close()
    port = engine.open(Job(abs))
    port.start(tickets(1))
    assert [] == outlast(port)
    assert "4 threads overran their timeout or belong to runs that were stopped" in str(port.failure)
    hold.go.set()
    last.go.set()
    port.close()


def test_slots_are_lost_until_one_comes_back(engine):
    """More threads than there are slots may be abandoned, where slots were lent: the return of one need not free a slot."""
    late = [ThreadWorker(engine, "late", number) for number in range(6)]
    engine.abandoned.update(late)
    engine.loss = loss = _loss.loss_at(0.0, 1.0)
    for worker in late[:3]:
        assert loss is engine.loss
        engine.strike_off(worker)
    assert engine.loss is None
    engine.abandoned.clear()


def test_a_slot_that_comes_back_saves_the_port(engine):
    """If one of four hung threads returns in time, the rest is done."""
    holds = [Hold() for _ in range(4)]
    port = engine.open(Job(lambda item: holds[item](item) if item < 4 else item))
    port.start(tickets(*range(4), timeout=0.03))
    take(port, 4)
    assert 0 == engine.capacity()
    engine.loss = engine.loss._replace(until=time.monotonic() + PATIENCE)  # the machine may pause here
    port.start([(4, 1, 4, None), (5, 1, 5, None)])
    holds[0].go.set()
    assert {4: 4, 5: 5} == take(port, 2)
    assert (None, None) == (port.failure, engine.loss)
    for hold in holds:
        hold.go.set()
    port.close()


class Crew:
    """An engine with one worker, driven by hand."""

    max_workers = 1
    initializes = False
    broken = loss = None
    abandoned = ports = ()

    def __init__(self):
        self.workers = ()
        self.given_up = []

    def capacity(self):
        return 1

    def cpu_seconds(self):
        return None

    def supply(self, tickets, awaited=False):
        pass

    def abandon(self, worker, claim, now, timeout):
        if not claim:
            return False
        claim.clear()
        self.given_up.append(worker)
        return True

    def remove(self, port):
        pass

    def check_starts(self, now):
        return None


class Worker:
    """A worker to which something happens as soon as it publishes its claim."""

    name, thread = "played", threading.current_thread()

    def __init__(self, crew, then):
        self._current, self._then = None, then
        crew.workers = (self,)

    @property
    def current(self):
        return self._current

    @current.setter
    def current(self, current):
        self._current = current
        if current is not None:
            self._then()


def test_a_close_at_the_moment_of_a_start_gives_the_worker_up_for_good():
    """A worker that is given up by a close at the moment of a start must not go on serving, because another one has its slot."""
    crew, ran = Crew(), []
    port = ThreadPort(crew, Job(ran.append), 0)
    worker = Worker(crew, port.close)
    worker.ticket = (0, 1, "item", None)
    assert not port.execute(worker)
    assert ([worker], []) == (crew.given_up, ran)


def test_a_start_just_after_the_close_runs_nothing():
    """A ticket taken just before the close is not run, and its worker is free for other runs."""
    crew, ran = Crew(), []
    port = ThreadPort(crew, Job(ran.append), 0)
    port.close()
    worker = Worker(crew, lambda: None)
    worker.ticket = (0, 1, "item", None)
    assert port.execute(worker)
    assert ([], [], None, None) == (crew.given_up, ran, worker.ticket, worker.current)


def test_what_is_committed_at_the_moment_of_the_timeout_counts():
    """An attempt is claimed once, by its worker or by the timeout watch, never by both."""
    crew = Crew()
    port = ThreadPort(crew, Job(lambda item: item), 0)
    port.start([(0, 1, "item", 0.0)])
    worker = Worker(crew, lambda: None)
    worker.ticket = (0, 1, "item", 0.0)
    assert port.execute(worker)
    (block,) = port.wait(time.monotonic())
    assert ["item"] == list(block.values)
    assert ([], []) == (crew.given_up, port.wait(time.monotonic()))
    port.close()


# Runs within runs


def test_a_run_within_a_task_has_the_slot_of_that_task():
    """Runs nested three deep on an executor of one thread do not deadlock: each uses its task's slot."""
    with ThreadExecutor(1) as executor:

        def task(depth):
            return depth if depth == 0 else run_parallel(task, [depth - 1], executor=executor)[0] + 1

        assert 3 == run_parallel(task, [3], executor=executor)[0]


def test_a_lent_slot_is_given_back():
    """After a nested run, its task has its slot back, also while it goes on, and nothing is kept of the run."""
    with ThreadExecutor(1) as executor:

        def nested(_):
            run_parallel(abs, range(8), executor=executor)
            return executor._pool.capacity(), executor._pool.slots.loans

        assert [(1, {})] == run_parallel(nested, [0], executor=executor).values()

        running, most, lock = 0, 0, threading.Lock()

        def task(item):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.001)  # lets others begin
            with lock:
                running -= 1

        run_parallel(task, range(20), executor=executor)
        assert 1 == most


def test_a_thread_too_many_takes_no_ticket(engine):
    """A slot may be given back just after the thread has looked whether it is one too many."""
    port = engine.open(Job(abs))
    port.queue.extend(tickets(1))
    threads = [ThreadWorker(engine, "more", number) for number in range(3)]
    engine.workers.update(threads)
    assert engine.take(threads[0], port) is None
    engine.workers.discard(threads[2])
    assert engine.take(threads[0], port) is not None
    engine.workers.clear()
    port.close()


def test_a_lent_slot_is_free_for_nothing_else():
    """A slot that is lent to a run serves neither another run nor a call, and one for a call no run; all others are taken."""
    run, other, call = TicketQueue(), TicketQueue(), object()
    slots = Slots(2, [SimpleNamespace(ticket=ticket, slot=OWN, port=None) for ticket in (1, 2)], ())
    slots.lend(run, [1.0])
    slots.lend(call, [2.0])
    assert [[1.0], None, [2.0]] == [slots.free(run), slots.free(other), slots.free(None)]
    assert [(1, True), (0, True)] == [slots.open_to(port, alone=False) for port in (run, other)]
    slots.repay(call)
    assert [[1.0], None, None] == [slots.free(run), slots.free(other), slots.free(None)]
    slots.loans[run][0].clear()  # its lender has ended
    assert slots.free(run) is None


def test_of_two_lent_slots_one_is_given_back():
    """Of two tasks that wait for one call, the one that has waited long enough gets its slot back, and no other does."""
    slots, call, other = Slots(2, (), ()), object(), object()
    first, second = [1.0], [1.0]  # begun at the same instant
    for claim in (first, second):
        slots.lend(call, claim)
    slots.lend(other, second)
    assert ([call], [call, other]) == (slots.borrowers(first), slots.borrowers(second))
    slots.repay(call, second)
    assert ([call], [other], 2) == (slots.borrowers(first), slots.borrowers(second), slots.lent())
    slots.repay(call, first)
    assert ([], [other], 1) == (slots.borrowers(first), slots.borrowers(second), slots.lent())


def test_a_task_lends_one_slot_however_much_it_waits_for(engine):
    """A task may wait for two things at once, in ``then`` of a run that it has made; once it has ended, it lends none."""
    claim, slots = [0.0], engine.slots
    slots.lend("run", claim)
    slots.lend("call", claim)
    assert 1 == slots.lent()
    slots.repay("call", claim)
    assert 1 == slots.lent()
    claim.clear()
    assert 0 == slots.lent()
    slots.repay("run")


def test_runs_within_runs_take_few_threads():
    """A lent slot serves only the nested run, not the next task, which would lend its own in turn, and so on."""
    peak, seen = 0, set()

    def inner(item):
        nonlocal peak
        peak = max(peak, threading.active_count())
        if item not in seen:
            seen.add(item)
            raise OSError(item)

    with ThreadExecutor(2) as executor:

        def outer(item):
            retries = Retry(1, delay=0.02)
            return run_parallel(inner, [(item, 0), (item, 1)], executor=executor, retries=retries).values()

        before = threading.active_count()
        assert [[None, None]] * 20 == run_parallel(outer, range(20), executor=executor).values()
    assert peak - before <= 4


def test_a_lent_slot_waits_for_what_its_task_waits_for():
    """A queued call does not take it, which may in turn wait, through another executor, for what then has no slot."""
    done = threading.Event()

    def wait_for_run():
        calls.append(executor.submit(done.wait, 2))
        wait_until(lambda: any(port.queue for port in executor._pool.ports))
        return run_parallel([done.set], executor=executor).values()

    with ThreadExecutor(2) as executor:
        calls = []
        within = executor.submit(run_parallel, [partial(done.wait, 2), wait_for_run], executor=executor)
        assert [True, [None]] == within.result(PATIENCE).values()
        assert [True] == [call.result(PATIENCE) for call in calls]


def test_a_run_within_a_task_may_have_the_limits_of_the_run_around_it():
    """No start is granted to a task that only a lent slot could take: it would never begin, nor would those that wait for it."""
    limit = RateLimit(2, per=0.02)

    with ThreadExecutor(2) as executor:

        def outer(_):
            return run_parallel(abs, range(3), executor=executor, limits=limit).values()

        results = run_parallel(outer, range(6), executor=executor, limits=limit, run_timeout=10)
    assert [[0, 1, 2]] * 6 == results.values()


def test_larger_priorities_run_first_while_slots_are_lent(monkeypatch):
    """A task that is read meanwhile goes before one that waits, which is not handed over for a lent slot."""
    monkeypatch.setattr("parallelkit._input._intake.PORTION", 0.0)  # the input is read item by item
    order, inner_runs, added = [], threading.Event(), threading.Event()

    with ThreadExecutor(1) as executor:

        def inner():
            inner_runs.set()
            assert added.wait(PATIENCE)
            yield 0

        def outer(name):
            order.append(name)
            if name == "first":
                run_parallel(abs, inner(), executor=executor)

        def tasks():
            yield Task(outer, "first", priority=9)
            assert inner_runs.wait(PATIENCE)
            yield Task(outer, "low", priority=1)
            yield Task(outer, "high", priority=2)
            added.set()

        run_parallel(tasks(), executor=executor).values()
    assert ["first", "high", "low"] == order


def test_a_run_within_a_task_of_another_executor_finds_its_way_back():
    """Runs that alternate between executors do not deadlock: the only slot of the first is lent across the others."""
    with ThreadExecutor(1) as one, ThreadExecutor(1) as other, ThreadPoolExecutor(1) as foreign:

        def there(item):
            return run_parallel(abs, [item], executor=one)[0]

        def here(item):
            ours = run_parallel(there, [item], executor=other)[0]
            return (
                ours + run_parallel(there, [item], executor=foreign)[0] + other.submit(there, item).result()
            )

        assert {0: 9} == run_parallel(here, [-3], executor=one, run_timeout=PATIENCE).successes


def test_a_submitted_call_may_wait_for_calls_that_it_submits():
    """Calls nested three deep on an executor of one thread do not deadlock, waiting by ``result``, ``exception`` or ``map``."""
    with ThreadExecutor(1) as executor:

        def call(depth):
            if depth == 0:
                return 0
            inner = executor.submit(call, depth - 1)
            assert inner.exception(PATIENCE) is None
            return inner.result() + sum(executor.map(abs, [1, -1], timeout=PATIENCE))

        others = [executor.submit(abs, -5) for _ in range(50)]
        assert 6 == executor.submit(call, 3).result(PATIENCE)
        assert [5] * 50 == [other.result(PATIENCE) for other in others]
        assert [6] == run_parallel(call, [3], executor=executor, run_timeout=PATIENCE).values()


def test_what_outlives_a_task_may_wait_for_calls_and_runs_on_its_executor():
    """Once the task has ended there is no slot to lend, and nothing was abandoned."""
    ended = threading.Event()
    with ThreadExecutor(1) as first, ThreadExecutor(1) as second:

        def later():
            assert ended.wait(30)
            return first.submit(abs, -1).result(30), run_parallel(abs, [-2], executor=first)[0]

        call = first.submit(lambda: second.submit(later)).result(30)
        ended.set()
        assert (1, 2) == call.result(30)


def test_who_waits_no_longer_has_its_slot_back():
    """A task whose wait has timed out runs on, and lends nothing more: else the call could run beside it."""
    go = threading.Event()

    def outer():
        call = executor.submit(go.wait, 30)
        with pytest.raises(TimeoutError):
            call.result(timeout=0)
        slots = executor._pool.capacity()
        go.set()
        return slots

    with ThreadExecutor(1) as executor:
        assert 1 == executor.submit(outer).result(30)


def test_a_call_may_be_waited_for_again(monkeypatch):
    """A call that waits for another in vain, so that this has no thread, and waits for it later, does not deadlock."""
    given_up = threading.Event()

    def call():
        port = executor._dispatcher._port
        hurry = port.hurry
        monkeypatch.setattr(port, "hurry", lambda index: given_up.wait(PATIENCE) and hurry(index))
        inner = executor.submit(abs, -1)
        wait_until(lambda: port.queue)  # handed over while no slot was lent
        with pytest.raises(TimeoutError):
            inner.result(1e-9)
        given_up.set()
        wait_until(lambda: port.urgent)
        return inner.result(PATIENCE)

    with ThreadExecutor(1) as executor:
        assert 1 == executor.submit(call).result()


@pytest.mark.parametrize("opened", ["within", "before"])
def test_calls_and_runs_may_wait_for_each_other_in_any_depth(opened):
    """A run opened by a call for which a task of a run waits has a slot, although such tasks hold all that its depth has."""

    def run(fn):
        return run_parallel([fn], executor=executor, run_timeout=PATIENCE).values()

    def wait_for_call():
        return (early if opened == "before" else executor.submit(run, os.getpid)).result(PATIENCE)

    with ThreadExecutor(1) as executor:
        held = threading.Event()
        first = executor.submit(held.wait, PATIENCE)
        outer = executor.submit(run, wait_for_call)
        early = executor.submit(run, os.getpid)
        held.set()
        assert first.result()
        assert [[os.getpid()]] == outer.result(PATIENCE)


def test_a_wait_for_a_call_breaks_no_exclusion():
    """While a slot is lent, only the awaited call runs in it, and then its task goes on alone: one thread still means one at a time."""
    lock = threading.Lock()

    def alone(item):
        assert lock.acquire(blocking=False)
        threading.Event().wait(0.0005)
        lock.release()
        return item

    with ThreadExecutor(1) as executor:

        def waits(item):
            alone(item)
            seen = executor.submit(alone, item).result(PATIENCE)
            return alone(seen)

        futures = [executor.submit(waits, item) for item in range(20)]
        results = run_parallel(waits, range(20), executor=executor, run_timeout=PATIENCE)
        assert list(range(20)) == [future.result(PATIENCE) for future in futures] == results.values()


def test_who_waits_has_its_slot_back_before_the_call_is_told_to_be_done(monkeypatch):
    """Otherwise the task could go on while another call is given its slot."""
    lent, settle = [], PoolFuture.set_result

    def set_result(future, value):
        lent.append(executor._pool.slots.lent())
        settle(future, value)

    monkeypatch.setattr(PoolFuture, "set_result", set_result)
    with ThreadExecutor(1) as executor:
        assert 1 == executor.submit(lambda: executor.submit(abs, -1).result(PATIENCE)).result(PATIENCE)
    assert [0, 0] == lent


@pytest.mark.parametrize("kind", ["calls", "runs"])
def test_a_thread_for_a_lent_slot_is_kept_for_the_next(kind, monkeypatch):
    """Nested waits one after the other share a thread, so that its initializer opens no connection for each of them."""
    monkeypatch.setattr(_thread, "IDLE", 0.0)  # which counts for threads without an initializer
    initialized = []

    def outer(item):
        if kind == "calls":
            return executor.submit(abs, item).result(PATIENCE)
        return run_parallel(abs, [item], executor=executor, run_timeout=PATIENCE)[0]

    with ThreadExecutor(1, initializer=initialized.append, initargs=(1,)) as executor:
        assert [1] * 30 == list(executor.map(outer, [-1] * 30, timeout=PATIENCE))
        assert [1] * 30 == run_parallel(outer, [-1] * 30, executor=executor, run_timeout=PATIENCE).values()
    assert 2 == len(initialized)


def test_a_thread_of_an_executor_is_kept_for_the_next_run():
    """What it has in its thread-locals, a connection, say, serves all runs; only a run's own threads end with it."""
    with ThreadExecutor(1) as executor:
        threads = [
            run_parallel(lambda _: threading.current_thread(), [0], executor=executor)[0] for _ in range(3)
        ]
    assert 1 == len(set(threads))


def test_a_thread_between_attempts_lends_no_slot_of_another_executor(engine):
    """A finalizer that waits there for a call to another executor adds no slot to that one: it holds none of them."""
    run_all(engine, abs, [1])
    (worker,) = engine.workers
    other = ThreadEngine(1)
    assert worker.stand_in(other) is None


def test_threads_that_are_kept_for_lent_slots_end(monkeypatch):
    """They end with their executor, and where no slot is lent for as long as an idle thread stays."""

    def call(depth):
        return depth and executor.submit(call, depth - 1).result(PATIENCE)

    def threads():
        return [one for one in threading.enumerate() if one.name.startswith("deep_")]

    with ThreadExecutor(2, "deep") as executor:
        executor.submit(call, 8).result(PATIENCE)
    wait_until(lambda: not threads())
    monkeypatch.setattr(_thread, "IDLE", 0.01)
    with ThreadExecutor(2, "deep") as executor:
        executor.submit(call, 8).result(PATIENCE)
        wait_until(lambda: not threads())


@pytest.mark.parametrize("idle", [0.01, PATIENCE], ids=["kept for a while", "not kept"])
def test_a_shutdown_waits_for_threads_whose_lent_slot_was_given_back(idle, monkeypatch):
    """No thread is left afterwards, not even one that is about to end."""
    monkeypatch.setattr(_thread, "IDLE", idle)
    end, delays = ThreadEngine.end, iter([0.1])

    def end_slowly(engine, worker):
        time.sleep(next(delays, 0))
        end(engine, worker)

    monkeypatch.setattr(ThreadEngine, "end", end_slowly)
    with ThreadExecutor(1, "deep") as executor:

        def call(depth):
            return depth and executor.submit(call, depth - 1).result(PATIENCE)

        executor.submit(call, 3).result(PATIENCE)
        wait_until(lambda: len(executor._pool.workers) < 2 and (idle > 1 or not [*executor._pool.spares]))
    assert not [one for one in threading.enumerate() if one.name.startswith("deep_")]


def test_no_more_threads_are_kept_for_lent_slots_than_there_are_slots():
    """A deep chain of calls leaves few threads behind."""
    engine = ThreadEngine(2)
    threads = [ThreadWorker(engine, "spare", number) for number in range(5)]
    engine.workers.update(threads)
    assert [True] * 3 + [False] * 2 == [engine.dismiss(each) for each in threads]
    assert threads[:2] == list(engine.spares)
    engine.workers.clear()
    engine.supply(2)
    assert (set(threads[:2]), {}) == (engine.workers, engine.spares)


def test_a_thread_without_a_slot_lends_none(engine):
    """A finalizer that waits in a thread which is about to end, or kept for the next lent slot, makes no room for one more."""
    worker = ThreadWorker(engine, "spare", 0)
    assert worker.stand_in(engine) is None
    engine.workers.add(worker)
    assert worker.stand_in(engine) is not None
    engine.workers.clear()


def test_a_first_submit_within_a_task_borrows_nothing():
    """The first ``submit`` of an executor, if made within a task, does not borrow that task's slot for good."""
    with ThreadExecutor(1) as executor:
        run_parallel(lambda _: executor.submit(abs, 1), [0], executor=executor)
        assert 1 == executor._pool.capacity()


def test_an_abandoned_task_lends_nothing(engine):
    """An abandoned task lends no slot, because its slot has been given to another."""
    hold = Hold()
    port = engine.open(Job(lambda item: run_all(engine, hold, [item])))
    port.start(tickets(0, timeout=0.2))
    assert hold.begun.wait(PATIENCE)
    assert 3 == engine.capacity()
    take(port, 1)
    assert 2 == engine.capacity()
    hold.go.set()
    port.close()


def test_a_run_within_a_run_divides_the_default_width(engine):
    """A nested run divides the default number of threads: eight in each of eight tasks would be sixty-four."""
    assert 1 == outer_width()
    assert {0: 2} == run_all(engine, lambda _: outer_width(), [0])
    inner = ThreadEngine(3)
    assert {0: 6} == run_all(engine, lambda _: run_all(inner, lambda _: outer_width(), [0])[0], [0])
    inner.close()


def test_a_closed_engine_starts_no_thread(engine, monkeypatch):
    """A run may hand over tasks before it has seen that its executor was shut down, which has waited for all threads."""
    port, started = engine.open(Job(abs)), []
    monkeypatch.setattr(engine, "_add_worker", started.append)
    engine.close()
    port.start(tickets(1))
    assert not started


def test_a_task_may_close_the_engine(engine):
    """A task that closes its own engine does not wait for itself; it is abandoned with its run."""
    returned = threading.Event()

    def task(item):
        engine.close()
        returned.set()

    port = engine.open(Job(task))
    port.start(tickets(0))
    assert returned.wait(PATIENCE)
    assert ([], [], ()) == (port.running(), port.wait(time.monotonic()), engine.ports)


# What tasks see and leave


VARIABLE = ContextVar("variable", default="unset")


def test_each_attempt_has_a_copy_of_the_callers_context(engine):
    """A task sees the context variables of the place where the port was opened; what it sets, no other task sees."""

    def task(item):
        seen = VARIABLE.get()
        VARIABLE.set(item)
        return seen

    token = VARIABLE.set("the caller's")
    try:
        seen = run_all(engine, task, range(20))
    finally:
        VARIABLE.reset(token)
    assert {"the caller's"} == set(seen.values())
    assert "unset" == VARIABLE.get()


def test_a_submitted_call_sees_the_context_of_its_submit():
    """A submitted call has the context of its own ``submit``."""
    with ThreadExecutor(2) as executor:
        futures = []
        for name in "abc":
            token = VARIABLE.set(name)
            futures.append(executor.submit(VARIABLE.get))
            VARIABLE.reset(token)
        assert ["a", "b", "c", "unset"] == [
            *[future.result() for future in futures],
            executor.submit(VARIABLE.get).result(),
        ]


def test_a_nested_run_has_its_share_of_the_machine(monkeypatch):
    """By default, a run within three tasks at a time has a third of the threads, or workers, that it would have alone; at least one."""
    monkeypatch.setattr(_choice, "usable_cpus", lambda: 8)
    choices = [_choice.default_threads, _choice.default_processes]
    assert [12, 8] == [choose() for choose in choices]
    assert [4, 2] == run_parallel(choices, max_workers=3).values()
    assert [1, 1] == run_parallel(choices, max_workers=30).values()


def test_submitted_calls_are_counted_as_a_width():
    """A run within a submitted call divides its default width, as one within a run does."""
    with ThreadExecutor(3) as executor:
        assert 3 == executor.submit(outer_width).result()


def test_an_executor_counts_once_as_a_width():
    """What its tasks submit or run on it shares its slots, however long the chain; another executor counts as well."""

    def chain(links):
        if links:
            executor.submit(chain, links - 1)
        else:
            widths.put(outer_width())

    widths = queue.SimpleQueue()
    with ThreadExecutor(3) as executor:
        executor.submit(chain, 4)
        assert 3 == widths.get(timeout=PATIENCE)
        within = executor.submit(run_parallel, [outer_width], executor=executor)
        assert [3] == within.result(PATIENCE).values()
        beside = executor.submit(run_parallel, [outer_width], max_workers=2)
        assert [6] == beside.result(PATIENCE).values()


def test_a_foreign_pool_of_threads_is_counted_as_a_width():
    """A run within a task of a standard thread pool divides its default width, too."""
    with ThreadPoolExecutor(3) as pool:
        assert [3] == run_parallel([outer_width], executor=pool).values()


class Thing:
    pass


def test_an_idle_thread_keeps_nothing_alive(engine):
    """An idle thread keeps neither its last item and value alive nor, once the port is closed, the function."""

    def make():
        thing, value, function = Thing(), Thing(), Thing()
        run_all(engine, lambda item, function=function: value if item is thing else None, [thing])
        return [weakref.ref(each) for each in (thing, value, function)]

    alive = make()
    gc.collect()
    assert [None] * 3 == [ref() for ref in alive]


def test_processor_time_is_measured_where_the_system_tells(engine, monkeypatch):
    """CPU time is measured, including that of ended threads, if the system provides it."""

    def spin(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    run_all(engine, spin, [0.02])
    assert engine.cpu_seconds() >= 0.02
    engine.close()
    assert engine.cpu_seconds() >= 0.02
    monkeypatch.delattr(time, "pthread_getcpuclockid")
    assert engine.cpu_seconds() is None


def test_the_processor_time_of_a_thread_without_a_slot_counts():
    """The CPU time of a thread counts, too, while it is kept for the next slot that is lent."""

    def spin(inner):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return inner and executor.submit(spin, inner=False).result(PATIENCE)

    with ThreadExecutor(1) as executor:
        executor.submit(spin, inner=True).result(PATIENCE)
        wait_until(lambda: any(executor._pool.spares))
        assert executor._pool.cpu_seconds() >= 0.04


def test_the_processor_time_of_a_thread_that_ends_counts_once(engine, monkeypatch):
    """The CPU time of a thread that is just ending is counted once."""
    strike_off, told = engine.strike_off, []

    def look_and_strike(worker):
        told.append((engine.cpu_seconds(), time.thread_time()))
        strike_off(worker)

    monkeypatch.setattr(engine, "strike_off", look_and_strike)
    run_all(engine, lambda size: sum(range(size)), [1_000_000])
    engine.close()
    ((counted, spent),) = told
    assert 0 < counted <= spent


# Initializers


def test_an_initializer_runs_once_in_each_thread():
    """An initializer runs once in each thread, before its first task, with its arguments."""
    local, barrier = threading.local(), threading.Barrier(3)

    def initialize(value):
        assert not hasattr(local, "value")
        local.value = value

    engine = ThreadEngine(3, initializer=initialize, initargs=(7,))
    seen = run_all(engine, lambda _: barrier.wait(PATIENCE) >= 0 and local.value, range(6))
    assert {7} == set(seen.values())
    engine.close()


def test_no_call_waits_for_an_initializer_while_a_thread_is_ready():
    """A thread that was started in a lent slot, and still calls the initializer as the slot is back, takes the place of none."""
    begins, third, go_on = threading.Semaphore(2), threading.Event(), threading.Event()

    def initialize():
        if not begins.acquire(blocking=False):
            third.set()
            assert go_on.wait(PATIENCE)

    def wait_in_vain():
        inner = executor.submit(abs, -1)
        while not third.is_set():
            with suppress(TimeoutError):
                inner.result(0.01)
        return inner

    with ThreadExecutor(2, initializer=initialize) as executor:
        both = threading.Barrier(2)
        held = [executor.submit(both.wait, PATIENCE) for _ in range(2)]  # now there are two threads
        assert {0, 1} == {one.result() for one in held}
        busy = executor.submit(go_on.wait, PATIENCE)
        try:
            assert 1 == executor.submit(wait_in_vain).result(PATIENCE).result(PATIENCE)
        finally:
            go_on.set()
        assert busy.result()


def test_initializers_that_raise_at_once_break_the_engine_with_one_error(monkeypatch):
    """An executor would take a second error for the loss of every slot, and end the calls that have begun."""
    make, both, seen = _starts.broken, threading.Barrier(2), []
    monkeypatch.setattr(_starts, "broken", lambda *of: both.wait(PATIENCE) >= 0 and make(*of))
    monkeypatch.setattr(ThreadPort, "fail", lambda _port, error: seen.append(error))
    engine = ThreadEngine(2, initializer=lambda: 1 // 0)
    port = engine.open(Job(abs))
    port.start(tickets(1, 2))
    wait_until(lambda: len(seen) == 2)
    assert seen[0] is seen[1]
    engine.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_an_initializer_that_raises_breaks_the_engine(error):
    """If an initializer raises, every port fails, now and later, with the standard pool's error and its cause."""

    def initialize():
        raise error

    engine = ThreadEngine(2, initializer=initialize)
    port, other = engine.open(Job(abs)), engine.open(Job(abs))
    port.start(tickets(1, 2))
    assert [] == port.wait(None)
    assert isinstance(port.failure, BrokenThreadPool)
    assert error is port.failure.__cause__
    assert port.failure is other.failure is engine.open(Job(abs)).failure
    for each in tuple(engine.ports):
        each.close()
    engine.close()


def test_a_failed_initializer_is_not_tried_again():
    """No thread is started for tickets that wait in a broken engine, nor does its failure change."""
    calls = []

    def initialize():
        calls.append(1)
        raise ValueError("no")

    engine = ThreadEngine(1, initializer=initialize)
    port = engine.open(Job(abs))
    port.start(tickets(1, 2))
    port.wait(None)
    wait_until(lambda: not engine.workers)
    engine.supply(1)
    assert [1] == calls
    assert engine.broken is port.failure
    port.close()
    engine.close()


def test_an_initializer_that_hangs_breaks_the_engine(monkeypatch):
    """Runs wait for a hung initializer no longer than in processes, and say what they waited for."""
    monkeypatch.setattr(_starts, "START_LIMIT", 0.05)
    hold = Hold()
    with ThreadExecutor(2, initializer=hold) as executor:
        results = run_parallel(abs, range(3), executor=executor)
        assert "the initializer of a worker thread did not end within 0.05 s" in results.stopped
        assert 3 == len(results.failures)
        with pytest.raises(BrokenThreadPool, match="did not end"):
            executor.submit(abs, 1).result(PATIENCE)
        hold.go.set()


def test_an_initializer_that_hangs_in_a_thread_that_comes_later_breaks_the_engine(monkeypatch):
    """An initializer that hangs in the replacement of an abandoned thread, for whose start nobody waits, breaks the engine, too."""
    holds, task = deque([None, Hold()]), Hold()

    def initialize():
        hold = holds.popleft()
        if hold is not None:
            hold()

    hung = holds[1]
    engine = ThreadEngine(1, initializer=initialize)
    port, other = engine.open(Job(task)), engine.open(Job(abs))
    reports = []
    waiter = threading.Thread(target=lambda: reports.append(outlast(other)))
    port.start(tickets(1, timeout=0.02))
    assert task.begun.wait(PATIENCE)
    monkeypatch.setattr(_starts, "START_LIMIT", 0.05)
    other.start(tickets(1))
    waiter.start()
    take(port, 1)
    waiter.join(PATIENCE)
    assert [[]] == reports
    assert isinstance(other.failure, BrokenThreadPool)
    for each in (hung, task):
        each.go.set()
    engine.close()


def test_a_thread_whose_initializer_has_ended_is_given_no_limit():
    """The five minutes are the initializer's, not the thread's."""
    engine = ThreadEngine(1, initializer=int)
    run_all(engine, abs, [1])
    assert (None, None) == (engine.check_starts(inf), engine.broken)
    engine.close()


def test_a_thread_whose_initializer_fails_runs_nothing():
    """Tasks count on what it sets up."""
    ran, go = [], threading.Event()

    def initialize():
        go.wait(PATIENCE)
        raise OSError

    engine = ThreadEngine(1, initializer=initialize)
    port = engine.open(Job(ran.append))
    port.start(tickets(1))
    (worker,) = engine.workers
    go.set()
    worker.thread.join(PATIENCE)
    assert ([], [], True) == (ran, outlast(port), isinstance(port.failure, BrokenThreadPool))
    engine.close()


def test_an_initializer_that_hangs_does_not_hold_the_close():
    """``close`` waits for no code of the caller's, be it a task or an initializer."""
    release = threading.Event()
    engine = ThreadEngine(1, initializer=release.wait)
    port = engine.open(Job(abs))
    port.start(tickets(1))
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(5)
    held = closer.is_alive()
    release.set()
    closer.join(PATIENCE)
    assert not held


# As an executor


def test_a_hung_call_costs_itself_only():
    """With ``timeout``, a hung call ends in TaskTimeout, its slot is refilled, and shutdown does not wait for it."""
    hold = Hold()
    executor = ThreadExecutor(1, timeout=0.05)
    hung = executor.submit(hold)
    assert isinstance(hung.exception(PATIENCE), TaskTimeout)
    assert 9 == executor.submit(pow, 3, 2).result(PATIENCE)
    executor.shutdown()
    hold.go.set()


def test_calls_and_runs_share_an_executor():
    """Submitted calls and runs share the slots of an executor, and never use more than it has."""
    lock, running, most = threading.Lock(), 0, 0

    def task(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        return item

    with ThreadExecutor(2) as executor:
        futures = [executor.submit(task, index) for index in range(20)]
        assert list(range(20)) == run_parallel(task, range(20), executor=executor).values()
        wait(futures, PATIENCE)
        assert list(range(20)) == [future.result(0) for future in futures]
    assert 2 >= most


@pytest.mark.parametrize("options", [{"max_failures": 5}, {"on_error": "raise"}])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_nothing_begins_between_a_failure_and_the_stop(options, kind):
    """However short the tasks are, besides the failures that are allowed only those fail that were already running."""
    began = []

    def fail(item):
        began.append(item)
        raise LookupError(item)

    async def fail_later(item):
        fail(item)

    run = partial(
        run_parallel, {"plain": fail, "coroutine": fail_later}[kind], range(1000), max_workers=2, **options
    )
    if "on_error" in options:
        with pytest.raises(LookupError):
            run()
        assert len(began) <= 2
    else:
        assert "max_failures of 5 reached" == run().stopped
        assert 5 <= len(began) <= 6


def test_failures_that_stop_nothing_cost_no_task():
    """Tasks that are held back while a failure is looked at run afterwards, even if threads became free meanwhile."""
    results = run_parallel(lambda item: 1 / (item % 3), range(300), max_workers=4, max_failures=0.9)
    assert (None, 100, 200) == (results.stopped, len(results.failures), len(results.successes))


def test_tickets_that_are_held_after_a_failure_keep_their_order():
    """They come before those that are handed over meanwhile, whether the run goes on with them or takes them back."""
    tickets = [(index, 1, None, None) for index in range(4)]
    line = TicketQueue()
    for end in (lambda: line.release() and [*line.queue], line.withdraw):
        line.clear()
        line.queue.extend(tickets[:3])
        line.hold()
        line.queue.append(tickets[3])
        assert (4, tickets) == (line.waiting(), end())
    assert 0 == line.waiting()


def test_a_ticket_that_was_not_begun_goes_back_to_its_line():
    """An urgent one is still taken first, and what has no slot is no work: a thread that thought so would never rest."""
    line, (ordinary, urgent) = TicketQueue(), tickets(1, 2)
    line.take_back(ordinary, urgent=False)
    line.take_back(urgent, urgent=True)
    slots = [{}, {None: OWN}, {line: OWN}]  # for urgent calls, or for the others
    assert [False, True, True] == [line.has_work(free.get) for free in slots]
    assert [None, urgent, ordinary] == [line.take(free.get)[0] for free in slots]
    assert 0 == line.waiting()


def test_an_attempt_that_is_lost_with_its_thread_holds_back_the_others():
    """As any failure that may stop the run."""
    port = ThreadPort(Crew(), Job(abs, wary=True), False)
    port.start(tickets(1, 2))
    port.give_up(Ended(0, OSError(), "", 0.0, 0.0, "thread"))
    assert (0, 2) == (len(port.queue), port.waiting())
    port.close()


def test_late_failure_of_an_abandoned_thread_holds_nothing_back():
    """The late failure of an abandoned thread holds back no task: no run would ever look at it and release the others."""
    engine, holds = ThreadEngine(1), [Hold(), Hold()]

    def work(item):
        if item < 2:
            holds[item]()
        if item == 0:
            raise LookupError("late")
        return item

    port = engine.open(Job(work, wary=True))
    port.start([*tickets(0, timeout=0.05), (1, 1, 1, None), (2, 1, 2, None)])
    assert isinstance(take(port, 1)[0].error, TaskTimeout)
    (abandoned,) = engine.abandoned
    assert holds[1].begun.wait(PATIENCE)  # so that 2 waits in line
    holds[0].go.set()
    abandoned.thread.join(PATIENCE)
    holds[1].go.set()
    assert {1: 1, 2: 2} == take(port, 2)  # although nobody says go on
    port.close()
    engine.close()


FORKS = """
import os, sys
from parallelkit import ThreadExecutor, run_parallel
def fork(how):
    os.write(2, b"#")
    if os.fork():
        return os.waitstatus_to_exitcode(os.wait()[1])
    if how == "returns":
        return "the child came back"
    raise ZeroDivisionError if how == "raises" else SystemExit(how)
ways = [3, None, 2**70, "no luck", "raises", "returns"]
for executor in ("threads", "processes"):
    print(run_parallel(fork, ways, executor=executor, max_workers=1).values())
with ThreadExecutor(1) as executor:
    print(list(executor.map(fork, ways)))
"""


def test_a_forked_child_that_comes_back_from_its_task_ends():
    """A child that a task has forked ends when it returns from the task: it must not run the parent's waiting tasks.

    Its exit status and its last output are those of a program that ends in that way.
    """
    quiet = "-Wignore:This process:DeprecationWarning"  # of Python 3.12 on, that a process with threads forks
    done = subprocess.run(
        [sys.executable, quiet, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (3 * "[3, 0, 255, 1, 1, 0]\n", 0) == (done.stdout, done.returncode)
    assert [3 * 6, 3, 3] == [done.stderr.count(text) for text in ("#", "no luck\n", "\nZeroDivisionError\n")]
