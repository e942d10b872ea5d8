import _signal
import errno
import gc
import math
import os
import pickle
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from functools import partial
from types import SimpleNamespace

import pytest
import remote_tasks as far
from patience import given_time, wait_until
from port_driver import Seen, drive, drive_port, drive_rest, fifo, opened, wait

from parallelkit import ProcessExecutor, Retry, RunInterrupted, Task, run_parallel
from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import Block, Ended, Job, PlainBlock
from parallelkit._executors._process import _decode, _reserve, _worker_pool
from parallelkit._executors._process._actor import Actor, WakeUp
from parallelkit._executors._process._handle import STANDSTILL, Worker
from parallelkit._executors._process._holding import LOOK, Holding
from parallelkit._executors._process._lane import Batch, Lane, Why
from parallelkit._executors._process._poller import Poller
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._starter import Starter
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._process._wire import Wire
from parallelkit._executors._process._worker_pool import WorkerPool
from parallelkit._executors._processes import ProcessEngine, ProcessPort
from parallelkit._loop import reason_of
from parallelkit._worker._channel import EACH, LARGE, SLOTS


@pytest.fixture
def engine(request):
    engine = ProcessEngine(getattr(request, "param", 2))
    yield engine
    engine.close()


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What comes back


def test_every_item_has_its_value(engine):
    """Each of thousands of tasks is reported once, with its own value and the pid of its worker."""
    seen = drive(engine, far.give_back, range(5000), timeout=10)

    assert {index: index for index in range(5000)} == seen.values
    assert {f"process {worker.pid}" for worker in engine._supervisor.pool.workers} >= set(
        seen.workers.values()
    )


def test_times_are_those_of_the_task(engine):
    """Start and end of an attempt are taken in the worker, on the clock that this process reads."""
    before = time.monotonic()
    seen = drive(engine, far.nap, [0.02])
    started, ended = seen.times[0]

    assert before < started < ended < time.monotonic()
    assert ended - started >= 0.02


def test_arguments_follow_the_item(engine):
    """A job's own arguments come after the item, and ``star`` unpacks the item."""
    assert {0: 33} == drive(engine, far.add, [1], args=(10,), kwargs={"factor": 3}).values
    assert {0: 9} == drive(engine, far.add, [(1, 2)], star=True, kwargs={"factor": 3}).values


def test_calls_bring_their_own_function(engine):
    """Without a function of the run, every item is a call with its own function."""
    calls = [(far.add, (1, 2), {"factor": 5}), (math.sqrt, (16.0,), {}), (lambda: "mine", (), {})]
    assert {0: 15, 1: 4.0, 2: "mine"} == drive(engine, None, calls).values


def test_workers_start_when_there_is_work(engine):
    """No process starts before the first task, and only one starts for one task."""
    assert [] == engine._supervisor.pool.workers
    with opened(engine, far.give_back) as port:
        assert [] == engine._supervisor.pool.workers
        port.start([(0, 1, "x", None)])
        wait(port)
        assert 1 == len(engine._supervisor.pool.workers)


def test_workers_stay_for_the_next_run(engine):
    """A port that is closed after its tasks are done leaves the workers for the next run."""
    drive(engine, far.nothing, range(50))
    before = list(engine._supervisor.pool.workers)
    drive(engine, far.nothing, range(50))
    assert before == engine._supervisor.pool.workers[: len(before)]


# Death


def test_what_a_worker_has_started_ends_with_it(engine, tmp_path):
    """The programs that a task has started are killed when its worker has ended by itself, too."""
    path = tmp_path / "pid"
    drive(engine, far.start_and_leave, [path])
    wait_until(lambda: not is_alive(int(path.read_text())))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_signal_costs_its_own_task(engine, number):
    """A task whose worker is ended by a signal fails, and the failure names the signal."""
    seen = drive(engine, partial(far.on, {3: (far.end_by, number)}), range(20))

    assert [3] == list(seen.failures)
    assert (None, number) == (seen.failures[3].error.exitcode, seen.failures[3].error.signal)


def test_crash_tells_where_it_was(engine):
    """The failure of a segfault shows the task's stack at that moment."""
    (ended,) = drive(engine, far.crash, [0]).failures.values()
    assert "Segmentation fault" in ended.stack
    assert "crash" in ended.stack
    assert "_serve" not in ended.stack


def test_every_task_may_die(engine):
    """If every task kills its worker, each is blamed for its own death, and the run ends."""
    seen = drive(engine, far.leave, range(12))
    assert list(range(12)) == [seen.failures[index].error.exitcode for index in range(12)]


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.all
def test_default_timeout_of_sockets_does_not_reach_the_workers(width):
    """``socket.setdefaulttimeout`` in the program does not affect workers, forked ones included: their sockets block."""
    socket.setdefaulttimeout(30)
    engine = ProcessEngine(width)
    try:
        seen = drive(engine, find_blocking, range(width))
    finally:
        socket.setdefaulttimeout(None)
        engine.close()

    assert {index: [True] for index in range(width)} == seen.values


def find_blocking(_):
    """For each socket of this worker, whether it blocks."""
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    sockets = [fd for fd in fds if is_socket(fd)]
    return [os.get_blocking(fd) for fd in sockets]


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False  # the descriptor of the listing itself


def test_function_whose_loading_kills_fails_its_run_only(engine):
    """If loading the function kills workers, no task can be blamed, so the run fails; other runs are unaffected."""
    with opened(engine, Deadly()) as port:
        port.start([(0, 1, 0, None)])
        with pytest.raises(BrokenProcessPool, match=r"load the function: worker process .* code 3"):
            wait(port)
    assert not drive(engine, far.nothing, range(10)).failures


@pytest.mark.parametrize("status", [3, -signal.SIGKILL])
@pytest.mark.all
def test_workers_that_fail_to_load_now_and_then_do_not_fail_a_run(tmp_path, status):
    """However many workers crash or are killed while they load the function, the run goes on if others have loaded it in between."""
    engine = ProcessEngine(1, max_tasks_per_child=1)
    engine._supervisor._deaths._patience = 2
    try:
        seen = drive(engine, Flaky(tmp_path / "loads", status), range(5))
    finally:
        engine.close()
    assert {number: number for number in range(5)} == seen.values


class Flaky:
    """A function that ends every third worker that loads it."""

    def __init__(self, log, status):
        self.log, self.status = log, status

    def __call__(self, item):
        return item

    def __reduce__(self):
        return load_flaky, (self.log, self.status)


def load_flaky(log, status):
    with open(log, "ab", buffering=0) as file:
        file.write(b".")
        if file.tell() % 3 == 0:
            far.end_by(-status) if status < 0 else far.leave(status)
    return far.give_back


class Deadly:
    def __call__(self, item):
        return item

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize("times", [5, 1000])
@pytest.mark.all
def test_worker_killed_from_outside_while_it_loads_is_replaced(engine, tmp_path, times):
    """A worker killed from outside while it loads the function is replaced; the run fails only if that happens many times."""
    log = tmp_path / "loads"
    with opened(engine, Struck(log, times)) as port:
        port.start([(0, 1, 7, None)])
        if times < 10:
            assert {0: 7} == drive_rest(port, 1).values
            return
        with pytest.raises(BrokenProcessPool, match=r"load the function: worker process .* SIGKILL"):
            wait(port)
    assert 10 < len(log.read_bytes()) < 20


class Struck:
    """A function that kills the first workers that load it, as the system does when memory is short."""

    def __init__(self, log, times):
        self.log = log
        self.times = times

    def __call__(self, item):
        return item

    def __reduce__(self):
        return load_struck, (self.log, self.times)


def load_struck(log, times):
    with open(log, "ab", buffering=0) as file:
        file.write(b".")
        if file.tell() <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    return far.give_back


# Timeouts


@pytest.mark.all
def test_who_takes_the_place_of_an_overdue_worker_is_there_before():
    """The replacement of an overdue worker starts before the timeout, so that the next task need not wait for it."""
    engine = ProcessEngine(1)
    with opened(engine, far.nap) as port:
        port.start([(0, 1, 1000, 2.0), (1, 1, 0, 2.0)])
        wait_until(lambda: engine._supervisor.pool.spare is not None)
        spare = engine._supervisor.pool.spare
        assert [0] == [index for index, _, _ in port.running()], "it has not been killed yet"
        seen = Seen()
        while len(seen) < 2:
            seen.add(wait(port))
    engine.close()

    assert isinstance(seen.failures[0].error, TaskTimeout)
    assert spare.label == seen.workers[1]


def test_overdue_task_tells_where_it_was(engine):
    """The failure has the task's stack, unless the machine is too busy for the worker to write it."""
    for _ in range(20):
        (ended,) = drive(engine, far.nap, [1000], timeout=0.05).failures.values()
        if "in nap" in (ended.stack or ""):
            break
    assert "in nap" in ended.stack
    assert "_serve" not in ended.stack


@given_time
@pytest.mark.all
def test_timeout_is_counted_from_the_start_of_each(engine, scale):
    """Many short tasks with one timeout are never overdue, however long they take together."""
    seen = drive(engine, far.nap, [0.002] * int(300 * scale), timeout=0.25 * scale)
    assert not seen.failures


def test_timeout_may_be_as_long_as_one_likes(engine):
    """A timeout may exceed the 25 days that a system call can wait."""
    assert not drive(engine, far.nap, [0.05], timeout=1e8).failures


@given_time
@pytest.mark.all
def test_who_may_no_longer_signal_its_workers_has_them_killed(tmp_path, scale, monkeypatch):
    """A program that has dropped root after starting its workers, and may not signal them, still has them killed, at a timeout and on close."""
    engine = ProcessEngine(2)
    path = tmp_path / f"child {scale}"
    path.touch()
    with opened(engine, far.have_child_and_hang) as port:
        monkeypatch.setattr(os, "killpg", forbid)
        monkeypatch.setattr(_signal, "pidfd_send_signal", forbid)
        port.start([(0, 1, path, 0.3 * scale), (1, 1, os.devnull, None)])
        (ended,) = wait(port)
    engine.close()

    assert isinstance(ended.error, TaskTimeout)
    assert path.read_text(), "it was killed before it had a child"
    wait_until(lambda: not is_alive(int(path.read_text())))


def forbid(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_busy_caller_delays_no_kill():
    """An overdue task is killed even if the caller's thread is not waiting."""
    engine = ProcessEngine(1)
    try:
        (pid,) = drive(engine, far.pid_of, [0]).values.values()
        with opened(engine, far.nap) as port:
            port.start([(0, 1, 1000, 0.1)])
            wait_until(lambda: not is_alive(pid))  # without a call of port.wait
            (ended,) = wait(port)
    finally:
        engine.close()

    assert isinstance(ended.error, TaskTimeout)


# Who waits for whom


def test_who_has_plenty_to_do_wakes_the_parent_as_it_comes_to_its_last():
    """A worker with a large stock is only polled, so it must send a wake-up at its last task: its tasks may be shorter than estimated."""
    asked = []
    pool = WorkerPool(1, None, lambda now: None, lambda wanted: 0)
    wire = SimpleNamespace(set_wake_at=asked.append)
    busy = {"pending": 10, "sent": 30, "stock": lambda: 6 * LOOK, "takes_more": lambda: False}
    pool.workers.append(SimpleNamespace(**busy, wire=wire, ready=False))

    assert 2 * LOOK == pool.listen(0.0, moved=True)
    assert [29] == asked


@pytest.mark.parametrize(("wake_at", "look_at"), [(30, LOOK), (21, math.inf), (EACH, math.inf)])
def test_who_wakes_the_parent_later_than_at_its_next_commit_is_looked_at_again(wake_at, look_at):
    """A worker that sends a wake-up only after several commits is polled, too: if it hung in between, its committed results would wait."""
    pool = WorkerPool(1, None, lambda now: None, lambda wanted: 0)
    wire = SimpleNamespace(set_wake_at=lambda number: False, wakes_at=30, head=20)
    busy = {"pending": 10, "done": 20, "sent": 30, "stock": lambda: 0.0, "takes_more": lambda: False}
    worker = SimpleNamespace(**busy, wire=wire, ready=False)
    worker.wake_at = lambda in_vain: wake_at
    pool.workers.append(worker)

    assert look_at == pool.listen(0.0, moved=True)


@pytest.mark.parametrize("engine", [1], indirect=True)
def test_who_takes_long_is_asked_once_to_wake_the_parent_at_each(engine, monkeypatch):
    """A worker with long tasks is asked once for a wake-up at each commit; the supervisor then takes one turn per task, and polls nothing."""
    asked, turns = [], []
    wake_at, turn = Wire.set_wake_at, Supervisor._turn
    monkeypatch.setattr(
        Wire, "set_wake_at", lambda wire, number: wake_at(wire, number) and (asked.append(number) or True)
    )
    monkeypatch.setattr(Supervisor, "_turn", lambda own: turns.append(own) or turn(own))
    drive(engine, far.nap, [0.006] * 5)
    asked.clear()
    turns.clear()
    drive(engine, far.nap, [0.006] * 40)

    assert (
        len(asked) <= 20
    )  # more than twice only where the machine is so busy that the worker idles in between
    assert len(turns) <= 60


@pytest.mark.parametrize("engine", [1], indirect=True)
def test_what_a_socket_does_not_take_at_once_follows_soon(engine):
    """Large items that travel in a socket wait for their worker to read, not for the supervisor to look at everything."""
    large = [str(number) * 200 for number in range(1000)]
    items = [[]] * 10 + [large] * 3 + [[]] * 3
    with opened(engine, far.nap_and_count, patient=True) as port:
        began = time.monotonic()
        port.start([(index, 1, item, None) for index, item in enumerate(items)])
        drive_rest(port, len(items))
        assert time.monotonic() < began + STANDSTILL / 2


@pytest.mark.parametrize("engine", [1], indirect=True)
def test_what_is_offered_in_the_midst_of_a_turn_is_given_out(engine, monkeypatch):
    """Work offered during a turn, after the queue was checked and before a worker is known to be hungry, is still given out."""
    with opened(engine, far.give_back) as port:
        port.start([(0, 1, "first", None)])
        listen = WorkerPool.listen

        def offer_before(pool, now, moved):
            if moved and not pool.workers[0].pending and not late:
                pool.hungry = False  # as it was when there was enough to do
                late.append("late")
                port.start([(1, 1, *late, None)])
            return listen(pool, now, moved)

        late = []
        monkeypatch.setattr(WorkerPool, "listen", offer_before)
        seen, until = Seen(), time.monotonic() + 5
        while len(seen) < 2 and time.monotonic() < until:
            seen.add(port.wait(until))

    assert {0: "first", 1: "late"} == seen.values


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("engine", [1], indirect=True)
def test_a_worker_that_was_held_serves_on(engine, tmp_path, late):
    """It may stop and tell where; or have finished everything before it sees the hold: then it tells nothing."""
    begun, go = fifo(tmp_path / "begun"), fifo(tmp_path / "go")
    with opened(engine, partial(far.on, {-1: (far.tell_and_hear, (begun, go))})) as port:
        drive_port(port, list(range(100)))
        port._lane.pace.limit = 2  # both are sent at once
        port.start([(100, 1, -1, None), (101, 1, 1, None)])
        far.hear(begun)
        (worker,) = engine._supervisor.pool.workers
        wait_until(lambda: worker.pending == 2)

        def hold():
            if late:
                far.tell(go)
                wait_until(lambda: worker.wire.head == worker.sent)
            worker.hold(time.monotonic())

        engine._supervisor.ask(hold)
        if not late:
            far.tell(go)
        port.start([(102, 1, 2, None)])
        seen = drive_rest(port, 3)
        assert {101: 1, 102: 2} == {index: seen.values[index] for index in (101, 102)}
        assert [worker] == engine._supervisor.pool.workers


def test_nobody_waits_behind_a_hanging_task(engine, tmp_path):
    """Tasks that were sent to a worker behind a hung task are taken back and run elsewhere."""
    mine, yours = fifo(tmp_path / "mine"), fifo(tmp_path / "yours")
    with opened(engine, partial(far.on, {"hang": (far.tell_and_hear, (mine, yours))})) as port:
        drive_port(port, list(range(2000)))  # from now on, much is sent ahead
        workers = {worker.pid for worker in engine._supervisor.pool.workers}
        port.start([(0, 1, "hang", None), *((index, 1, index, None) for index in range(1, 500))])
        far.hear(mine)
        seen = drive_rest(port, 499)
        assert 0 not in seen.values
        far.tell(yours, "go on")
        seen.add(wait(port))
        assert "go on" == seen.values[0]
        drive_port(port, list(range(2000)))  # the worker that was held serves again
        assert workers <= {worker.pid for worker in engine._supervisor.pool.workers}


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.all)])
def test_nobody_waits_for_a_function_to_load_that_an_idle_worker_knows(engine, tmp_path, exact):
    """A task given to a worker that is still loading the function moves to an idle one that has loaded it."""
    with opened(engine, LoadedOnce(tmp_path), exact=exact) as port:
        began = time.monotonic()
        port.start([(0, 1, 0, None), (1, 1, 1, None)])
        assert {0: 0, 1: 1} == drive_rest(port, 2).values
        assert time.monotonic() < began + 15


class LoadedOnce:
    """A function that the second worker never finishes loading; the first is busy until the second has begun to load."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, item):
        wait_until((self.folder / "second").exists)
        time.sleep(0.1)  # by now the second has been given a task
        return item

    def __reduce__(self):
        return load_once, (LoadedOnce, self.folder)


def load_once(kind, folder):
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        (folder / "second").touch()
        time.sleep(60)
    return kind(folder)


@given_time
def test_nothing_is_looked_at_while_a_long_task_runs(engine, monkeypatch, scale):
    """While one long task runs and all other workers idle, the supervisor does not poll."""
    turns = []
    turn = Supervisor._turn
    monkeypatch.setattr(Supervisor, "_turn", lambda own: turns.append(time.monotonic()) or turn(own))
    drive(engine, far.nap, [0] * 200)
    turns.clear()
    seen = drive(engine, far.nap, [0] * 20 + [0.4 * scale] + [0] * 200)
    _, ended = seen.times.pop(20)
    alone = max(others_ended for _, others_ended in seen.times.values()) + 0.05
    looks = [at for at in turns if alone < at < ended - 0.05]

    assert 221 == len(seen.values)
    assert ended - alone > 0.15
    assert len(looks) <= 10


def test_a_job_that_may_yet_be_exact_has_more_ahead_until_it_is(engine):
    """A port takes more tasks than it has slots while only tasks that have yet to be read may call for an order.

    As many as are some milliseconds of work: not as an earlier run had it, whose tasks were others.
    """
    drive(engine, None, [(abs, (-1,), {})] * 500)
    with opened(engine, None) as port:
        assert port.room() > 3 * engine.max_workers
    with opened(engine, None, exact=True, tentative=True) as port:
        assert 3 * engine.max_workers == port.room()
        port.be_exact()
        assert engine.max_workers == port.room()


@pytest.mark.parametrize(
    ("last", "called"),
    [
        (Task(abs, 2), 0),
        (Task(abs, 2, retries=1), 0),
        (Task(abs, 2, priority=1), 1),
        (Task(abs, 2, retries=Retry(1, max_time=9)), 1),
    ],
)
def test_a_task_of_a_generator_may_call_for_an_order(monkeypatch, last, called):
    """From a ``Task`` with a priority or a limit in time on, tasks of a generator are handed over one by one."""
    calls = []
    monkeypatch.setattr(ProcessPort, "be_exact", lambda port: calls.append(port.room()))
    tasks = [Task(abs, -1), last]
    assert [1, 2] == run_parallel(iter(tasks), executor="processes", max_workers=1).values()
    assert called == len(calls)
    calls.clear()
    assert [1, 2] == run_parallel(tasks, executor="processes", max_workers=1).values()
    assert not calls, "those of a list are known before"


@pytest.mark.all
def test_two_runs_take_turns(engine):
    """A second run gets its share of the workers at once, and both runs end."""
    with opened(engine, far.nap) as long, opened(engine, far.give_back, exact=True) as short:
        long.start([(index, 1, 0.01, None) for index in range(100)])
        seen = drive_port(short, list(range(20)))
        assert {index: index for index in range(20)} == seen.values
        rest = drive_rest(long, 100)
    first_done, last_done = (max(end for _, end in each.times.values()) for each in (seen, rest))
    assert first_done < last_done, "the second run had to wait for the first to end"


def test_closing_a_port_kills_its_own_tasks_only(engine, tmp_path):
    """Closing a port kills the workers that run its tasks; another run's task goes on."""
    first, mine, yours = (fifo(tmp_path / name) for name in ("first", "mine", "yours"))
    with opened(engine, far.tell_and_hear) as other:
        with opened(engine, far.tell_and_hang) as port:
            port.start([(0, 1, first, None)])
            pid = int(far.hear(first))
            other.start([(0, 1, (mine, yours), None)])
            survivor = int(far.hear(mine))
        assert not is_alive(pid)
        assert is_alive(survivor)
        far.tell(yours, "fine")
        assert {0: "fine"} == drive_rest(other, 1).values


def test_handler_that_raises_leaves_the_port_usable(engine):
    """An exception that propagates through ``wait`` loses no outcome."""

    def interrupt(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with opened(engine, far.nap) as port:
            port.start([(0, 1, 0.05, None)])
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                port.wait(None)
            assert {0: 0.05} == drive_rest(port, 1).values
    finally:
        signal.signal(signal.SIGALRM, old)


def test_handler_that_raises_has_nothing_dealt_with_twice(engine, monkeypatch):
    """An exception between the unpickling of results and their removal from the queue does not deliver them twice."""
    blows = iter([KeyboardInterrupt])
    unpickle = ProcessPort._open

    def interrupted(port, event):
        outcomes = unpickle(port, event)
        for blow in blows:
            raise blow
        return outcomes

    monkeypatch.setattr(ProcessPort, "_open", interrupted)
    with opened(engine, abs) as port:
        port.start([(0, 1, -7, None)])
        with pytest.raises(KeyboardInterrupt):
            wait(port)
        assert [(0,)] == [tuple(block.indices) for block in port.wait(time.monotonic())]


def test_interrupted_unpickling_goes_on_behind_it(engine):
    """Ctrl-C in a value's own unpickling code costs that value and others with such code; the next ``wait`` gives the plain ones."""
    bombs = {1: (far.Bomb, "interrupt"), 2: (far.Bomb, "interrupt")}
    with opened(engine, partial(far.on, bombs)) as port:
        port.start([(index, 1, index, None) for index in range(4)])
        seen, interrupts = Seen(), 0
        while len(seen) < 4:
            try:
                seen.add(wait(port))
            except KeyboardInterrupt:
                interrupts += 1
    assert (1, {0: 0, 3: 3}, {1, 2}) == (interrupts, seen.values, set(seen.failures))


def test_ctrl_c_costs_no_plain_value(engine, monkeypatch):
    """Ctrl-C that comes as a value is unpickled that has no code of its own costs no value."""
    blows = [KeyboardInterrupt()]

    def strike(blob):
        if blows:
            raise blows.pop()
        return pickle.loads(blob)

    monkeypatch.setattr(_decode, "loads", strike)
    with opened(engine, str) as port:
        port.start([(index, 1, index, None) for index in range(4)])
        seen = Seen()
        while len(seen) < 4:
            with suppress(KeyboardInterrupt):
                seen.add(wait(port))
    assert ([], {index: str(index) for index in range(4)}) == (blows, seen.values)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["default", "ignored"])
def on_sigint(request):
    """What SIGINT does; a shell makes its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


@pytest.mark.all
def test_value_that_raises_keyboard_interrupt_is_no_ctrl_c(on_sigint):
    """A value whose unpickling raises KeyboardInterrupt fails its own task; a real Ctrl-C during unpickling ends the run."""
    results = run_parallel(partial(far.on, {1: (far.Bomb, "interrupt")}), range(4), executor="processes")
    with ProcessExecutor(1) as executor:
        error = executor.submit(far.Bomb, "interrupt").exception(30)
    pressed = nullcontext() if on_sigint is signal.SIG_IGN else pytest.raises(RunInterrupted)
    with pressed:
        run_parallel(partial(far.on, {1: (far.Bomb, "Ctrl-C")}), range(4), executor="processes")

    assert [1] == list(results.failures)
    assert results.stopped is None
    assert "cannot be unpickled (KeyboardInterrupt)" in str(results.failures[1].error)
    assert "cannot be unpickled (KeyboardInterrupt)" in str(error)


# Memory


def test_items_are_not_packed_far_ahead(engine):
    """However long the input, the number and size of packed waiting items is bounded."""
    with opened(engine, far.nothing) as port:
        assert port.room() <= 16
        drive_port(port, [b"x" * 8_000_000] * 4)
        assert 0 < port.room() <= 10


# The life of workers


@pytest.mark.all
def test_large_items_are_not_packed_far_ahead_of_a_quick_function(engine):
    """A previous run of many short items does not make a port pack too many large ones."""
    drive(engine, len, ["x" * 2000] * 3000)
    with opened(engine, len) as port:
        room = port.room()
        port.start([(index, 1, "x" * 1_000_000, None) for index in range(300)])
        packed = port._packing.bytes
        seen = Seen()
        while len(seen) < 300:
            seen.add(wait(port))
            assert port._packing.bytes < 80_000_000

    assert room > 300
    assert 0 < packed < 80_000_000
    assert {1_000_000} == set(seen.values.values())


def test_items_wait_in_line_whatever_they_are(engine):
    """Items of mixed sizes each have their own result, and one that cannot be pickled fails alone."""
    items = [bytes(3_000_000), 1, lambda: 0, *[bytes(3_000_000)] * 40, threading.Lock(), "last"]
    with opened(engine, far.kind_of) as port:
        port.start([(index, 1, item, None) for index, item in enumerate(items)])
        seen = Seen()
        while len(seen) < len(items):
            seen.add(wait(port))

    assert [43] == list(seen.failures)
    assert ["bytes", "int", "function"] == [seen.values[index] for index in range(3)]
    assert "str" == seen.values[44]


def test_initializer_runs_once_in_each_worker():
    """The initializer runs in each worker before its first task, and what it sets stays."""
    engine = ProcessEngine(2, initializer=far.set_variable, initargs=("PARALLELKIT_TEST", "set"))
    try:
        seen = drive(engine, far.get_variable, ["PARALLELKIT_TEST"] * 10)
    finally:
        engine.close()
    assert ["set"] * 10 == list(seen.values.values())


@pytest.mark.parametrize(
    ("initializer", "argument", "shown"),
    [(far.fail, ValueError("not today"), "ValueError: not today"), (far.leave, 1, "do not start")],
)
def test_initializer_that_fails_breaks_the_engine(initializer, argument, shown):
    """An initializer that fails breaks the engine: the port says why, and it is not retried forever."""
    engine = ProcessEngine(2, initializer=initializer, initargs=(argument,))
    try:
        with opened(engine, far.nothing) as port:
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            assert isinstance(port.failure, BrokenProcessPool)
            assert shown in str(port.failure)
        with opened(engine, far.nothing) as port:
            assert 0 == port.room()
    finally:
        engine.close()


def test_initializer_that_fails_once_breaks_the_engine(tmp_path):
    """As in a standard pool, one failure is enough, whatever other workers do: no error is passed over."""
    flag = tmp_path / "flag"
    flag.mkdir()

    def fail_once():
        if flag.exists():
            flag.rmdir()
            raise ValueError("once")

    engine = ProcessEngine(1, initializer=fail_once)
    try:
        with opened(engine, far.nap) as port:
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            assert "the initializer of a worker process raised ValueError: once" in str(port.failure)
    finally:
        engine.close()


def test_what_broke_the_engine_is_what_later_runs_are_told(tmp_path):
    """That is how the first workers ended, not that the package killed the others for it."""

    def exit_or_hang():
        for number in range(2):
            try:
                (tmp_path / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            os._exit(3)
        time.sleep(1000)

    engine = ProcessEngine(3, initializer=exit_or_hang)
    try:
        with opened(engine, far.nothing) as port:
            port.start([(index, 1, 0, None) for index in range(3)])
            assert [] == port.wait(time.monotonic() + 30)
        wait_until(lambda: not engine._supervisor.pool.everybody())
        with opened(engine, far.nothing) as port:
            assert [] == port.wait(0.0)
            assert "code 3" in str(port.failure)
    finally:
        engine.close()


@pytest.mark.parametrize(
    "initializer",
    [partial(far.fail, ValueError("no")), pytest.param(partial(far.nap, 1000), marks=pytest.mark.all)],
)
def test_an_initializer_that_has_broken_the_engine_is_not_called_again(initializer, monkeypatch):
    """One that raises, or takes too long, is judged by its first call, and no worker is started after that."""
    spawned, spawn = [], Starter.spawn
    monkeypatch.setattr(Starter, "spawn", lambda own: spawned.append(own) or spawn(own))
    monkeypatch.setattr("parallelkit._executors._process._handle.LOAD_LIMIT", 0.3)
    engine = ProcessEngine(1, initializer)
    try:
        with opened(engine, far.nothing) as port:
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            for _ in range(2):  # the second answer comes in a later turn
                engine._supervisor.ask(int)
    finally:
        engine.close()
    assert 1 == len(spawned)


def test_lack_of_descriptors_is_told(monkeypatch):
    """If no worker can be started for want of descriptors, the run says so, and the attempt leaks nothing."""
    import resource

    monkeypatch.setattr(_reserve, "PATIENCE", 0.2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    engine = ProcessEngine(1)
    try:
        with opened(engine, far.nothing) as port:
            spare = os.open("/dev/null", os.O_RDONLY)
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 6, hard))
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            assert "no worker process can be started" in str(port.failure)
            assert isinstance(port.failure.__cause__, OSError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        engine.close()


def test_large_items_leave_workers_their_descriptors():
    """However many large items wait, enough descriptors are left to start a worker."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    engine = ProcessEngine(4)
    try:
        with opened(engine, len) as port:
            spare = os.open("/dev/null", os.O_RDONLY)
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 30, hard))
            seen = drive_port(port, [bytes(LARGE)] * 60)
        assert dict.fromkeys(range(60), LARGE) == seen.values
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        engine.close()


SIZES = (1000, 300_000, 2_000_000)


@pytest.mark.all
def test_large_values_arrive_though_no_descriptor_is_left(engine, full_table):
    """Large values arrive without free descriptors: some are reserved for them, or the values are read at once."""
    drive(engine, far.nap, [0.01] * 2)
    with full_table:
        seen = drive(engine, far.make_large, [*SIZES, *SIZES, *SIZES])

    assert dict(enumerate(3 * [*map(far.make_large, SIZES)])) == seen.values


@pytest.mark.parametrize("size", [300_000, 2_000_000])
@pytest.mark.all
def test_value_that_is_lost_for_want_of_a_descriptor_says_so(engine, full_table, monkeypatch, size):
    """If even the reserved descriptor is taken, the value's task fails and says why; its worker is not blamed, and goes on."""
    drive(engine, far.nap, [0.01] * 2)
    monkeypatch.setattr(Reserve, "lend", lambda reserve: None)
    before = {worker.pid for worker in engine._supervisor.pool.workers}
    with full_table:
        failures = drive(engine, far.make_large, [size]).failures
    again = drive(engine, far.make_large, [size])

    assert [OSError] == [type(ended.error) for ended in failures.values()]
    assert errno.EMFILE == failures[0].error.errno
    assert re.search(
        r"Too many open files \(limit \d+\) in the parent: the value of .* lost", str(failures[0].error)
    )
    assert not failures[0].final
    assert {0: far.make_large(size)} == again.values
    assert before == {worker.pid for worker in engine._supervisor.pool.workers}


def test_a_large_value_for_which_there_is_no_memory_costs_its_own_task(engine, monkeypatch):
    """If this process has no memory to read a large value, its task fails and may be retried; the others go on."""

    def lack(*_):
        raise MemoryError

    monkeypatch.setattr("parallelkit._executors._process._validation._read_whole", lack)
    seen = drive(engine, far.make_large, [1000, 300_002, 1000])
    (ended,) = seen.failures.values()
    assert (1, errno.ENOMEM, False) == (ended.index, ended.error.errno, ended.final)
    assert "the value of task 1 was lost on its way" in str(ended.error)


def test_a_value_for_which_there_is_no_memory_is_not_to_blame(engine):
    """If this process runs out of memory as it unpickles a value, the error says that, and a retry may help."""
    (ended,) = drive(engine, lambda item: far.Vast(), [0]).failures.values()
    assert errno.ENOMEM == ended.error.errno
    assert "Cannot allocate memory in the parent: the value of task 0 was lost" in str(ended.error)
    assert not ended.final


def test_run_goes_on_narrower_where_descriptors_are_short(full_table, monkeypatch):
    """If only one worker can be started, it runs everything, however long there is no other."""
    monkeypatch.setattr(_reserve, "PATIENCE", 0.0)
    engine = ProcessEngine(6)
    try:
        drive(engine, far.nothing, [None])
        with full_table:
            seen = drive(engine, far.give_back, range(100))
            assert 1 == len(engine._supervisor.pool.workers)
    finally:
        engine.close()
    assert {index: index for index in range(100)} == seen.values


def test_an_engine_that_is_first_used_without_descriptors_serves_once_there_are_some(full_table, monkeypatch):
    """An engine whose first run fails for want of descriptors works once there are some."""
    monkeypatch.setattr(_reserve, "PATIENCE", 0.2)
    engine = ProcessEngine(1)
    try:
        with full_table, opened(engine, far.nothing) as port:
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            assert "no worker process can be started: Too many" in str(port.failure)
        assert {0: 7} == drive(engine, far.give_back, [7]).values
    finally:
        engine.close()


def test_lack_of_descriptors_for_the_supervisor_itself_is_told(engine, monkeypatch):
    """If the supervisor lacks descriptors, the run fails with the system's error, and the thread closes what it has opened."""

    def refused(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("parallelkit._executors._process._supervisor.Starter", refused)
    with opened(engine, far.nothing) as port:
        port.start([(0, 1, 0, None)])
        assert [] == port.wait(time.monotonic() + 30)
        assert isinstance(port.failure.__cause__, OSError)
        assert "Too many open files (limit " in str(port.failure)
    engine.close()
    assert not engine._supervisor._wake_up._open


def test_worker_that_the_system_refuses_is_asked_for_again(engine, monkeypatch):
    """If the system refuses a process, the start is soon retried, even if nothing else happens."""
    spawn, refusals = Starter.spawn, []

    def refuse_second(starter):
        if engine._supervisor.pool.workers and not refusals:
            refusals.append(BlockingIOError(errno.EAGAIN, "no more processes"))
            raise refusals[0]
        return spawn(starter)

    monkeypatch.setattr(Starter, "spawn", refuse_second)
    monkeypatch.setattr(
        "parallelkit._executors._process._handle.STANDSTILL", 1000.0
    )  # by which it would look again
    with opened(engine, far.nap) as port:
        port.start([(0, 1, 60, None)])
        wait_until(port.running)
        time.sleep(0.05)  # so that nothing is on its way by which the supervisor would look again
        port.start([(1, 1, 0, None)])
        (block,) = wait(port)
        assert [1] == list(block.indices)
        assert refusals


@pytest.mark.parametrize("refusals", [pytest.param(1, marks=pytest.mark.all), 3])
def test_a_moment_without_processes_fails_no_run(engine, monkeypatch, refusals):
    """Even if the very first worker is refused, others may end soon."""
    spawn, refused = Starter.spawn, []

    def refuse(starter):
        if len(refused) < refusals:
            refused.append(BlockingIOError(errno.EAGAIN, "no more processes"))
            raise refused[-1]
        return spawn(starter)

    monkeypatch.setattr(Starter, "spawn", refuse)
    assert {0: 7} == drive(engine, far.give_back, [7]).values
    assert refusals == len(refused)


def test_what_does_not_pass_fails_a_run_at_once(engine, monkeypatch):
    """An interpreter that is gone will not come back. Only a run that waits for a worker fails, and says why once."""

    def refuse(_):
        raise FileNotFoundError(errno.ENOENT, "no such interpreter")

    monkeypatch.setattr(Starter, "spawn", refuse)
    monkeypatch.setattr(_reserve, "PATIENCE", 1000.0)
    with opened(engine, far.nothing) as idle, opened(engine, far.nothing) as port:
        port.start([(0, 1, 0, None)])
        assert [] == port.wait(time.monotonic() + 30)
        why = "no worker process can be started: FileNotFoundError: [Errno 2] no such interpreter"
        assert why == reason_of(port.failure)
        assert [] == idle.wait(0.0)
        assert idle.failure is None


def test_a_worker_to_which_nobody_could_listen_is_ended_and_another_is_started(engine, monkeypatch):
    """The system may have no room in its epoll; the engine was broken then, and the process outlived it."""
    add, refused = Poller.add, []

    def refuse(poller, worker):
        if not refused:
            refused.append(worker.pid)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        add(poller, worker)

    monkeypatch.setattr(Poller, "add", refuse)
    monkeypatch.setattr(_worker_pool, "PAUSE", 0.001)
    assert {0: 0} == drive(engine, far.give_back, [0]).values
    assert not is_alive(refused[0])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EAGAIN, r"the limit of processes is reached \(ulimit -u"),
        (errno.EFBIG, r"the limit of file sizes is too low \(ulimit -f"),
        (errno.EMFILE, r"Too many open files \(limit \d+\)"),
        (errno.ENFILE, r"Too many open files in system$"),
        (errno.ENOENT, r"FileNotFoundError: \[Errno 2\] No such file"),
    ],
)
def test_what_the_system_lacks_is_said_in_words(number, said):
    """The system's own words for a refused fork are 'Resource temporarily unavailable'; the limits are what a user can look up."""
    assert re.match(said, _reserve.explain(OSError(number, os.strerror(number))))


class Refusing:
    """A worker's socket that refuses messages, for lack of room in the system, ``times`` times."""

    def __init__(self, line, times):
        self.line, self.times = line, times

    def sendmsg(self, *message):
        if self.times > 0:
            self.times -= 1
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return self.line.sendmsg(*message)

    def __getattr__(self, name):
        return getattr(self.line, name)


def test_message_that_the_system_refuses_is_sent_again(monkeypatch):
    """A message that the system refuses is soon sent again to the same worker, even if nothing else happens."""
    monkeypatch.setattr(
        "parallelkit._executors._process._handle.STANDSTILL", 1000.0
    )  # by which it would be replaced
    engine = ProcessEngine(1)
    try:
        drive(engine, far.nothing, [None])
        (worker,) = engine._supervisor.pool.workers
        worker.wire.socket = Refusing(worker.wire.socket, 5)
        assert {0: 7} == drive(engine, far.give_back, [7]).values
        assert [worker] == engine._supervisor.pool.workers
        assert 0 == worker.wire.socket.times
    finally:
        engine.close()


@pytest.mark.all
def test_no_task_is_blamed_for_what_the_system_refuses_to_send(monkeypatch):
    """A worker that gets no message is replaced, and its task is never blamed, however often that happens."""
    monkeypatch.setattr("parallelkit._executors._process._handle.STANDSTILL", 0.05)
    refusing = iter([math.inf] * 4)

    class Starved(Worker):
        def give(self, batch, now):
            self.wire.socket = Refusing(self.wire.socket, next(refusing, 0))
            super().give(batch, now)

    monkeypatch.setattr("parallelkit._executors._process._supervisor.Worker", Starved)
    engine = ProcessEngine(1)
    try:
        assert {0: 7} == drive(engine, far.give_back, [7]).values
    finally:
        engine.close()
    assert [] == list(refusing)


@pytest.mark.parametrize("engine", [1], indirect=True)
def test_a_worker_that_has_idled_for_long_is_not_taken_for_one_that_stands_still(engine, monkeypatch):
    """Ten seconds without progress count only while a worker has work: one that a busy system lets begin a moment late is no fault."""
    before = drive(engine, far.pid_of, [0]).values
    give = Worker.give

    def give_after_a_minute(worker, batch, now):
        os.kill(worker.pid, signal.SIGSTOP)
        give(worker, batch, now + 60)
        worker.watch(now + 61)
        os.kill(worker.pid, signal.SIGCONT)

    monkeypatch.setattr(Worker, "give", give_after_a_minute)
    assert before == drive(engine, far.pid_of, [0]).values


def test_a_supervisor_whose_start_was_broken_off_does_nothing(monkeypatch):
    """If a signal handler raises while the supervisor's thread starts, that thread does nothing: two supervisors would interfere."""

    class BrokenOff(threading.Thread):
        def start(self):
            monkeypatch.setattr("parallelkit._executors._process._actor.Thread", threading.Thread)
            super().start()
            given_up.append(self)
            raise SystemExit

    given_up = []
    monkeypatch.setattr("parallelkit._executors._process._actor.Thread", BrokenOff)
    with ProcessExecutor(1) as executor:
        with pytest.raises(SystemExit):
            run_parallel(abs, [-1], executor=executor)
        given_up[0].join(10)
        assert not given_up[0].is_alive()
        assert [1] == run_parallel(abs, [-1], executor=executor).values()


def test_a_finalizer_may_submit_as_the_supervisor_starts(monkeypatch):
    """A finalizer that submits while the supervisor's thread is being started starts one, too; only one of the two serves."""

    def make(**options):
        monkeypatch.setattr("parallelkit._executors._process._actor.Thread", threading.Thread)
        futures.append(executor.submit(abs, -1))
        return threading.Thread(**options)

    futures = []
    monkeypatch.setattr("parallelkit._executors._process._actor.Thread", make)
    with ProcessExecutor(1) as executor:
        futures.append(executor.submit(abs, -2))
        assert [1, 2] == [future.result(30) for future in futures]
        wait_until(
            lambda: 1 == [thread.name for thread in threading.enumerate()].count("parallelkit-supervisor")
        )


def test_an_eventfd_that_was_not_made_closes_without_a_word():
    """Ctrl-C may come before it has so much as its lock."""
    assert not WakeUp.__new__(WakeUp)._open  # dropped at once: an error in ``__del__`` would fail this test
    gc.collect()


def test_a_finalizer_may_ring_while_its_thread_rings(monkeypatch):
    """A finalizer may call ``set`` while its own thread does; this was once a deadlock."""
    wake_up = WakeUp()
    write = os.eventfd_write

    def collect(fd, number):
        monkeypatch.setattr(os, "eventfd_write", write)
        wake_up.set()
        write(fd, number)

    monkeypatch.setattr(os, "eventfd_write", collect)
    wake_up.set()
    assert 2 == os.eventfd_read(wake_up.fd)
    wake_up.close()


def test_a_bell_that_nobody_closed_is_closed_with_its_last_reference():
    """A wake-up that was never closed, as after Ctrl-C while an engine is made, closes its descriptor when it is collected."""
    wake_up = WakeUp()
    fd = wake_up.fd
    del wake_up
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_bell_that_could_not_be_made_says_only_that(monkeypatch):
    """A wake-up whose descriptor cannot be created raises that error, and no second one when it is collected."""
    monkeypatch.setattr(os, "eventfd", lambda *args: refuse(errno.EMFILE))
    with pytest.raises(OSError, match="Too many"):
        WakeUp()
    gc.collect()


def test_a_bell_that_is_not_made_to_the_end_leaves_no_descriptor():
    """A signal handler may raise at any moment of that: here before each of its instructions."""
    before = set(os.listdir("/proc/self/fd"))
    interrupted = 0
    while is_interrupted(WakeUp, WakeUp.__init__.__code__, after=interrupted):
        interrupted += 1
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == before
    assert interrupted > 10


def is_interrupted(call, code, after):
    """Call it, and raise before one of the instructions of this code, after so many of them; whether there were as many."""
    left = [after]

    def interrupt(frame, event, _):
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left[0] -= 1
            if left[0] < 0:
                raise LookupError("told to end")
        return interrupt

    former = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # else Python 3.12 traces none
    sys.settrace(interrupt)
    try:
        call()
    except LookupError:
        return True
    finally:
        sys.settrace(former)
    return False


def refuse(number):
    raise OSError(number, os.strerror(number))


def test_a_close_that_is_broken_off_is_made_up_for_by_the_next(engine, monkeypatch):
    """If a signal handler interrupts the close of a port, a second close ends its tasks."""
    port = engine.open(Job(time.sleep))
    port.start([(0, 1, 60, None)])
    wait_until(port.running)
    with monkeypatch.context() as patched:
        patched.setattr(Supervisor, "ask", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            port.close()
    (worker,) = engine._supervisor.pool.workers
    port.close()
    assert worker.gone.is_set()
    assert [] == engine._supervisor.pool.lanes


@given_time
@pytest.mark.all
def test_the_end_of_a_run_waits_once_for_all_that_the_system_does_not_let_end(monkeypatch, scale):
    """Closing a port waits once in total for processes that cannot be killed, such as those blocked on a lost drive."""
    engine = ProcessEngine(4)
    kill = Worker.kill
    try:
        port = engine.open(Job(time.sleep))
        port.start([(index, 1, 60, None) for index in range(4)])
        wait_until(lambda: 4 == len(port.running()))
        monkeypatch.setattr("parallelkit._executors._process._endings.PATIENCE", 0.5 * scale)
        monkeypatch.setattr(Worker, "kill", lambda worker, why: None)
        began = time.monotonic()
        port.close()
        assert time.monotonic() - began < 1.5 * scale
    finally:
        monkeypatch.setattr(Worker, "kill", kill)
        engine.close()


def test_initializer_that_cannot_be_sent_is_refused():
    """An initializer that cannot be pickled is refused at once, by a TypeError that names it."""
    with pytest.raises(TypeError, match="initializer"):
        ProcessEngine(1, initializer=threading.Lock().acquire)


@pytest.mark.all
def test_initializer_that_hangs_breaks_the_engine(monkeypatch):
    """An initializer that exceeds the start limit breaks the engine."""
    monkeypatch.setattr("parallelkit._executors._process._handle.LOAD_LIMIT", 0.3)
    engine = ProcessEngine(1, initializer=far.nap, initargs=(1000,))
    try:
        with opened(engine, far.nothing) as port:
            port.start([(0, 1, 0, None)])
            assert [] == port.wait(time.monotonic() + 30)
            assert isinstance(port.failure, BrokenProcessPool)
    finally:
        engine.close()


def test_worker_is_replaced_after_its_share():
    """With ``max_tasks_per_child``, no process runs more tasks than that, and all tasks run."""
    engine = ProcessEngine(2, max_tasks_per_child=3)
    try:
        seen = drive(engine, far.count_runs, range(20))
    finally:
        engine.close()
    assert 20 == len(seen.values)
    assert max(runs for _, runs in seen.values.values()) <= 3


def test_close_ends_everything_at_once(tmp_path):
    """``close`` ends workers, their children and the thread; it may be called from any thread, and twice."""
    path = fifo(tmp_path / "child")
    engine = ProcessEngine(2)
    port = engine_port(engine, far.have_child_and_hang)
    port.start([(0, 1, path, None)])
    child = int(far.hear(path))
    start = time.monotonic()
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join()
    assert time.monotonic() - start < 4
    engine.close()
    wait_until(lambda: not is_alive(child))
    port.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine_port(engine, far.nothing)


def test_a_run_whose_executor_is_closed_before_its_first_task_does_not_wait_for_ever():
    """No worker or thread was ever needed, so none can tell it; its first task may come later, out of a slow input."""
    engine = ProcessEngine(1)
    with opened(engine, far.nothing) as port:
        engine.close()
        port.start([(0, 1, 0, None)])
        assert [] == port.wait(time.monotonic() + 30)
        assert "shut down" in str(port.failure)


def engine_port(engine, fn):
    from parallelkit._executors._contract import Job

    return engine.open(Job(fn))


def test_forgotten_engine_ends_its_workers():
    """An engine that is dropped without ``close`` ends its processes."""
    engine = ProcessEngine(1)
    (pid,) = drive(engine, far.pid_of, [0]).values.values()
    del engine
    wait_until(lambda: not is_alive(pid))


def test_fault_of_ours_ends_the_run(engine, monkeypatch):
    """If the supervisor itself raises, every port fails with that error, and nothing hangs."""

    def fail(now):
        raise AssertionError("a bug")

    monkeypatch.setattr(engine._supervisor.pool, "assign", fail)
    with opened(engine, far.nothing) as port:
        port.start([(0, 1, 0, None)])
        assert [] == port.wait(time.monotonic() + 30)
        assert "a bug" in repr(port.failure.__cause__)


def test_what_cannot_be_packed_for_a_new_worker_leaves_no_process(engine, monkeypatch):
    """A worker that could not be told what it must know would belong to nobody, and outlive its engine."""
    monkeypatch.setattr(sys, "argv", [threading.Lock()])
    with opened(engine, far.nothing) as port:
        port.start([(0, 1, 0, None)])
        assert [] == port.wait(time.monotonic() + 30)
        assert "cannot pickle '_thread.lock' object" in str(port.failure.__cause__)


# Garbage


@pytest.mark.parametrize("what", [pytest.param("head", marks=pytest.mark.all), "frames"])
def test_worker_that_writes_nonsense_is_ended(engine, what):
    """A task that overwrites the memory of its channel costs only itself; the parent neither hangs nor crashes."""
    seen = drive(engine, partial(far.on, {2: (far.scribble_on_ring, what)}), range(20))
    assert [2] == list(seen.failures)
    assert {index: index for index in range(20) if index != 2} == seen.values


@pytest.mark.all
def test_what_was_done_before_the_count_was_overwritten_is_taken(engine, tmp_path):
    """Quick tasks that its worker had committed keep their values, and do not run again, though the parent had not read them."""
    seen = drive(engine, partial(far.note_or_scribble, str(tmp_path)), range(2000))
    assert [700] == list(seen.failures)
    ran = [int(line) for file in tmp_path.iterdir() for line in file.read_text().split()]
    assert [index for index in range(2000) if index != 700] == sorted(ran)


NOISE = random.Random(3000).randbytes(3000)


@pytest.mark.parametrize("junk", [b"\xff" * 100, b"\x00\x00\x00\x00\xfe" + b"\x00" * 8, NOISE])
@pytest.mark.all
def test_worker_that_writes_to_our_socket_is_ended(engine, junk):
    """A task that writes into descriptors that are not its own costs only itself."""

    def write_everywhere(junk):
        for fd in range(3, 30):
            try:
                os.write(fd, junk)
            except OSError:
                pass
        time.sleep(1000)

    with opened(engine, partial(far.on, {2: (write_everywhere, junk)})) as port:
        port.start([(index, 1, index, 1.0 if index == 2 else 30.0) for index in range(20)])
        seen = drive_rest(port, 20)
    assert {index: index for index in range(20) if index != 2} == seen.values


@pytest.mark.all
def test_task_may_close_all_descriptors(engine):
    """A task that closes all descriptors costs at most itself; the others run."""
    seen = drive(engine, partial(far.on, {2: (close_all, None)}), range(20))
    assert {*range(20)} - {2} <= set(seen.values)


def close_all(_):
    os.closerange(3, 256)


# What else a process may do


@pytest.mark.parametrize(
    ("way", "status"), [("returns", 0), pytest.param("raises", 1, marks=pytest.mark.all)]
)
def test_forked_child_that_comes_back_publishes_nothing(engine, way, status):
    """A task that forks, and comes back in both processes, has one outcome: the parent's. The child ends as a program does."""
    seen = drive(engine, partial(far.on, {2: (far.fork_and_wait, way)}), range(20))
    assert 20 == len(seen)
    assert ("parent", status) == seen.values[2]


def test_what_forked_children_log_arrives_and_is_not_counted(engine, caplog):
    """A child that wrote the count of frames could undo its parent's: results that were committed would be lost, and run again."""
    assert {0: 0, 1: 0} == drive(engine, far.log_in_child, [1, 2]).values
    assert 2 == caplog.messages.count("logged by a child")


def test_what_a_child_logs_arrives_whatever_threads_were_doing_as_it_was_forked(engine, caplog):
    """A thread that holds the lock of the socket does not exist in a child that another thread forks: there it is never released."""
    assert {0: 0} == drive(engine, far.log_in_child_amid_a_send, [1]).values
    assert ["logged by a child"] == caplog.messages


@pytest.mark.all
def test_what_a_child_logs_does_not_get_into_a_long_record(engine, caplog):
    """Both write to one socket, and the kernel takes a long record in parts: what came of it made no sense, and its task was killed."""
    assert {0: 0} == drive(engine, far.log_beside_a_child, [20]).values
    assert {"logged by a child", "x" * 300_000} == set(caplog.messages)
    assert 20 == caplog.messages.count("x" * 300_000)


def test_a_log_record_is_of_the_attempt_that_wrote_it():
    """That may be in a batch behind another of which nothing is drained yet; if it has ended, none is told."""
    worker, lane = Holding(), Lane(1, b"", False)
    for first in (0, 2):
        worker.add(Batch(lane, [(index, 1, None, None) for index in (first, first + 1)], None))
    worker.advance(1)
    writers = [worker.ticket(number) for number in range(5)]
    assert [None, 1, 2, 3, None] == [writer and writer[0] for writer in writers]


def test_fork_of_this_process_cannot_use_the_engine(engine):
    """A forked child of the caller can neither use nor end the caller's workers."""
    drive(engine, far.nothing, [0])
    child = os.fork()
    if child == 0:
        try:
            engine_port(engine, far.nothing)
        except RuntimeError:
            engine.close()
            os._exit(0)
        os._exit(1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not drive(engine, far.nothing, range(100)).failures


@pytest.mark.parametrize("executable", [None, ""])
def test_lack_of_an_interpreter_is_told(engine, monkeypatch, executable):
    """Without ``sys.executable``, as in a program that embeds Python, a RuntimeError at once says what to set."""
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(RuntimeError, match=r"sys\.executable"):
        engine_port(engine, far.nothing)


@pytest.mark.all
def test_program_without_arguments_has_workers(engine, monkeypatch):
    """A program without ``sys.argv`` can start workers."""
    monkeypatch.delattr(sys, "argv")
    assert {0: []} == drive(engine, arguments, [None]).values


def arguments(_):
    return sys.argv


@pytest.mark.all
def test_what_a_task_starts_by_the_flags_of_its_interpreter_has_packages(engine):
    """A worker's ``sys.flags`` are its parent's, so that what a task starts with them finds installed packages."""
    names = [name for name in dir(sys.flags) if isinstance(getattr(sys.flags, name), int)]
    assert {0: flags_of(names)} == drive(engine, flags_of, [names]).values


def flags_of(names):
    flags = [getattr(sys.flags, name) for name in names]
    return tuple(sys.flags), flags, subprocess._args_from_interpreter_flags()


def test_what_a_task_starts_inherits_no_channel(engine):
    """A program that a task starts has none of its worker's descriptors, and so does not keep its memory."""
    assert {0: []} == drive(engine, inheritable, [None]).values


def inheritable(_):
    fds = [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}")]
    return [fd for fd in fds if os.get_inheritable(fd)]


def test_options_hold_in_workers(engine, monkeypatch):
    """A worker has the program's -X options, and writes bytecode only where the program would."""
    monkeypatch.setitem(sys._xoptions, "warn_default_encoding", True)
    monkeypatch.setitem(sys._xoptions, "cpu_count", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", "elsewhere")
    options, *bytecode = drive(engine, options_of, [None]).values[0]
    assert sys._xoptions.items() <= options.items()
    assert [True, "elsewhere"] == bytecode


def options_of(_):
    return sys._xoptions, sys.dont_write_bytecode, sys.pycache_prefix


@pytest.mark.all
def test_engine_inside_a_worker(engine):
    """A task may have an engine of its own, and knows how many workers there are around it."""
    assert {0: ([0, 1, 4], 2)} == drive(engine, use_own_engine, [3]).values


def use_own_engine(number):
    from parallelkit._executors._processes import ProcessEngine
    from parallelkit._worker._channel import inherited_width

    sys.path.insert(0, os.path.dirname(far.__file__))
    own = ProcessEngine(2)
    try:
        seen = drive(own, lambda item: item * item, range(number))
    finally:
        own.close()
    return [seen.values[index] for index in range(number)], inherited_width()


def test_ended_entry_is_complete(engine):
    """A failure has its start and end, and the worker's name."""
    with opened(engine, far.fail) as port:
        port.start([(4, 1, KeyError("gone"), None)])
        (ended,) = wait(port)
    assert isinstance(ended, Ended)
    assert (4, "KeyError('gone')", False) == (ended.index, repr(ended.error), ended.final)
    assert ended.started <= ended.ended
    assert ended.worker.startswith("process ")
    assert "KeyError: 'gone'" in ended.traceback


def test_question_is_answered_though_the_thread_ends():
    """Closing ports while the engine is being closed neither hangs nor waits for a timer."""
    engine = ProcessEngine(1)
    drive(engine, far.nothing, [0])
    ports = [engine_port(engine, far.nothing) for _ in range(20)]
    closers = [threading.Thread(target=port.close) for port in ports]
    for closer in closers[:10]:
        closer.start()
    engine.close()
    for closer in closers[10:]:
        closer.start()
    for closer in closers:
        closer.join(10)

    assert not any(closer.is_alive() for closer in closers)


def test_question_comes_at_the_last_moment():
    """If the supervisor has stopped answering questions, the asking thread answers itself."""
    stopped, leave = threading.Event(), threading.Event()

    class Leaving(Actor):
        def _run(self):
            self._end()
            stopped.set()
            leave.wait(10)

    actor = Leaving("leaving")
    actor.poke()
    stopped.wait(10)
    assert 7 == actor.ask(lambda: 7)
    leave.set()
    actor.join()


# Which attempt is blamed when a worker has written garbage


def condemned(lane, started, columns=True):
    """A worker whose ring holds garbage, and whose only attempt is said to have started at ``started``, after one that ended at 5.0."""
    worker = object.__new__(Worker)
    Holding.__init__(worker)
    worker.add(Batch(lane, [(7, 1, None, None)], None))
    worker.why = Why.GARBAGE
    worker.wire = SimpleNamespace(
        ring=SimpleNamespace(starts=[started] * SLOTS), last_end=5.0, has_columns=columns
    )
    return worker


def test_garbage_is_blamed_on_what_had_begun():
    """The attempt that was running is blamed for garbage: an earlier one may have left it, but the running one cannot be run again."""
    assert condemned(Lane(1, b"", False), started=6.0).blamed_since(9.0) == 6.0


def test_garbage_is_not_blamed_on_what_had_not_begun():
    """An attempt that had not begun runs elsewhere; the third time in a row it is blamed, because it must be hiding its start."""
    lane = Lane(1, b"", False)
    assert [condemned(lane, started=4.0).blamed_since(9.0) for _ in range(3)] == [None, None, 9.0]


def test_that_nothing_had_begun_is_not_believed_of_columns_that_are_overwritten():
    """If the start columns themselves are overwritten, the uncommitted attempt is treated as running: it must not run twice."""
    assert condemned(Lane(1, b"", False), started=4.0, columns=False).blamed_since(9.0) == 9.0


@pytest.mark.parametrize(
    ("ends", "ended"),
    [([6.5, 7.0, 2.0], 2), ([6.5, 9.0, 2.0], 1), ([4.0, 7.0, 2.0], 0), ([math.nan, 7.0, 8.0], 0)],
)
def test_what_had_ended_is_told_by_the_columns(ends, ended):
    """If the count of commits is overwritten, an attempt counts as ended if the next one began afterwards; the last to begin does not."""
    worker = condemned(Lane(1, b"", False), started=0.0)
    worker.add(Batch(worker.lane, [(8, 1, None, None), (9, 1, None, None)], None))
    worker.wire.ring.starts[:3], worker.wire.ring.ends = [6.0, 6.5, 8.0], ends
    worker._take_span = lambda head: worker.advance(min(head - worker.done, len(worker.batches[0].tickets)))
    worker.salvage()
    assert ended == worker.done
    assert [6.0, 6.5, 8.0][ended] == worker.blamed_since(9.0)


@pytest.mark.parametrize(("fn", "plain"), [(far.nothing, True), (abs, True), (float, True), (str, False)])
def test_blocks_of_numbers_alone_are_plain(engine, fn, plain):
    """A block of None and numbers is marked plain, so that nobody has to inspect each value."""
    with opened(engine, fn) as port:
        port.start([(0, 1, -5, None)])
        (block,) = wait(port)
    assert isinstance(block, Block)
    assert (type(block) is PlainBlock) is plain


def test_outcomes_may_come_at_any_moment_of_the_wait():
    """What comes while the run looks at what has come already does no harm."""

    def change(frame, event, _):
        if frame.f_code is not ProcessPort.wait.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":  # as when the supervisor's thread adds an event
            events = frame.f_locals["self"]._lane.events
            events.appendleft(None)
            events.popleft()
        return change

    before = sys.gettrace()
    sys.settrace(change)
    try:
        results = run_parallel(abs, [-1], executor="processes")
    finally:
        sys.settrace(before)
    assert [1] == results.values()


def test_an_engine_is_left_alone_as_the_interpreter_goes():
    """Modules may be empty by then, which was told as an ignored exception; and the workers end with the interpreter."""
    engine = ProcessEngine(1)
    engine.__del__(lambda: True)
    assert not engine._supervisor.closing
    engine.__del__()
    assert engine._supervisor.closing
