"""When the system has no thread left: what is known by then is kept, nobody waits for ever, and executors recover."""

import signal
import threading
import time
from math import inf

import pytest
from patience import wait_until

from parallelkit import RateLimit, TaskCancelled, TaskTimeout, ThreadExecutor, iter_parallel, run_parallel
from parallelkit._executors._contract import Job
from parallelkit._executors._thread import _worker
from parallelkit._executors._threads import ThreadEngine

LIMITS = [None, RateLimit(1000, per=1)]  # with a limit, nothing is queued where the last thread is lost


class System:
    """Starts threads until ``lacks`` is set; ``call`` sets it, and hangs until ``release`` is set."""

    def __init__(self, start):
        self.lacks = False
        self.release = threading.Event()
        self._start = start

    def start(self, thread):
        if self.lacks:
            raise RuntimeError("can't start new thread")
        self._start(thread)

    def call(self, item):
        if item == "hang":
            self.lacks = True
            self.release.wait(30)
        return item

    async def call_later(self, item):
        return self.call(item)


@pytest.fixture
def system(monkeypatch):
    system = System(threading.Thread.start)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: system.start(thread))  # noqa: PLW0108  # a bound method would not get the thread
    yield system
    system.release.set()


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", ["call", "call_later"])
@pytest.mark.all
def test_a_run_that_loses_its_last_thread_keeps_its_outcomes(name, limits, system):
    """If nothing can replace a hung thread, or a blocked loop, the run stops, and says so; its outcomes so far count."""
    fn = getattr(system, name)
    results = run_parallel(fn, ["done", "hang", "rest"], key=str, timeout=0.05, max_workers=1, limits=limits)
    assert {"done": "done"} == results.successes
    assert [TaskTimeout, TaskCancelled] == [type(failure.error) for failure in results.failures.values()]
    assert "can't start new thread" == results.stopped


@pytest.mark.parametrize("name", ["call", "call_later"])
@pytest.mark.all
def test_a_stream_that_loses_its_last_thread_yields_its_outcomes(name, system):
    """If nothing can replace a hung thread, a stream yields its outcomes so far, the timeout, and the rest as cancelled."""
    outcomes = iter_parallel(getattr(system, name), ["done", "hang", "rest"], timeout=0.05, max_workers=1)
    assert [None, TaskTimeout, TaskCancelled] == [
        None if one.ok else type(one.error) for one in sorted(outcomes, key=lambda one: one.index)
    ]


def test_a_call_past_its_timeout_is_told_so(system):
    """An overdue call has its own error; those behind it learn why they cannot be made, and later ones are made."""
    with ThreadExecutor(1, timeout=0.05) as executor:
        hangs, waits = executor.submit(system.call, "hang"), executor.submit(abs, -1)
        assert TaskTimeout is type(hangs.exception(30))
        with pytest.raises(RuntimeError, match="can't start new thread"):
            waits.result(30)
        system.lacks = False
        assert 2 == executor.submit(abs, -2).result(30)


def test_an_executor_whose_threads_have_retired_recovers(system, monkeypatch):
    """Calls submitted while there is no thread fail; they do not break the executor."""
    monkeypatch.setattr(_worker, "IDLE", 0.01)
    with ThreadExecutor(1) as executor:
        assert 1 == executor.submit(abs, -1).result(30)
        wait_until(lambda: not executor._pool.workers)
        system.lacks = True
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                executor.submit(abs, -2).result(30)
        system.lacks = False
        assert 3 == executor.submit(abs, -3).result(30)


def test_an_executor_that_gets_no_worker_keeps_no_port(monkeypatch):
    """Each call tries again to open one; those in vain would pile up, and be offered each slot that comes free."""

    def refuse(engine, tickets):
        raise RuntimeError("can't start new thread")

    with ThreadExecutor(1) as executor:
        monkeypatch.setattr(ThreadEngine, "supply", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(abs, -1)
        assert () == executor._pool.ports
        monkeypatch.undo()
        assert 2 == executor.submit(abs, -2).result(30)


def test_a_thread_that_returns_late_tells_those_who_wait_in_vain(system):
    """If a thread that comes back can start none for what waits, the waiting run ends, rather than wait for ever."""
    engine = ThreadEngine(1)
    lost = []
    for _ in range(2):
        port = engine.open(Job(system.call))
        port.start([(0, 1, "hang", 0.02)])
        lost += port.wait(time.monotonic() + 30)
        system.lacks = False
        port.close()
    assert [TaskTimeout] * 2 == [type(one.error) for one in lost]
    assert engine.loss is not None
    port = engine.open(Job(abs))
    port.start([(0, 1, -1, None)])
    system.lacks = True
    system.release.set()
    assert [] == port.wait(time.monotonic() + 30)
    assert "can't start new thread" in str(port.failure)
    engine.close()


def test_only_those_who_wait_in_vain_are_told(system):
    """A run that waits for nothing goes on, and may find a thread later."""
    engine = ThreadEngine(1)
    waiting, other = engine.open(Job(abs)), engine.open(Job(abs))
    waiting.queue.append((0, 1, -1, None))
    system.lacks = True
    engine._supply_all()
    assert ("can't start new thread", None) == (str(waiting.failure), other.failure)
    engine.close()


def test_a_thread_that_was_not_started_leaves_nothing_behind(system):
    """The next has its number, and no run waits for its initializer."""
    engine = ThreadEngine(1, initializer=int)
    port = engine.open(Job(lambda _: threading.current_thread().name))
    system.lacks = True
    with pytest.raises(RuntimeError, match="can't start new thread"):
        port.start([(0, 1, None, None)])
    system.lacks = False
    assert engine.check_starts(inf) is None
    engine.supply(1)
    while not (blocks := port.wait(time.monotonic() + 30)):
        assert port.failure is None
    assert [["parallelkit_0"]] == [block.values for block in blocks]
    engine.close()


def test_an_error_of_a_signal_handler_is_none_of_the_system(system, monkeypatch):
    """A RuntimeError of a signal handler is raised, also where another thread would do the work."""

    def give_up(number, frame):
        raise RuntimeError("told to end")

    engine = ThreadEngine(2)
    port = engine.open(Job(abs))
    former = signal.signal(signal.SIGUSR1, give_up)
    try:
        port.start([(0, 1, -1, None)])
        monkeypatch.setattr(system, "start", lambda thread: signal.raise_signal(signal.SIGUSR1))
        engine.idle.clear()
        with pytest.raises(RuntimeError, match="told to end"):
            engine.supply(1)
    finally:
        signal.signal(signal.SIGUSR1, former)
        monkeypatch.undo()
        engine.close()
