"""Workers that a zygote has forked behave like any others."""

import errno
import fcntl
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path

import pytest
import remote_tasks as far
from patience import wait_until
from port_driver import Seen, drive, opened, wait
from test_processes import is_alive

from parallelkit._errors import TaskTimeout
from parallelkit._executors._process import _prestart, _spawn, _starter, _zygote
from parallelkit._executors._process._starter import AT_ONCE, Starter
from parallelkit._executors._process._zygote import Zygote
from parallelkit._executors._processes import ProcessEngine
from parallelkit._worker._channel import BORN

WIDE = 6


@pytest.fixture
def engine():
    engine = ProcessEngine(WIDE)
    yield engine
    engine.close()


def look(path):
    """What a worker finds around it, once the file is unlocked."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "directory": os.getcwd(),
        "variable": os.environ.get("PARALLELKIT_TEST"),
        "random": random.random(),
        "umask": os.umask(0o77),
        "main": sys.modules["__main__"].__name__,
        "threads": threading.active_count(),
    }


@contextmanager
def crowd(engine, path):
    """Have all workers of the engine in ``look`` at once; after the block they go on, and their reports are read."""
    seen = Seen()
    with open(path, "w") as file, opened(engine, look) as port:
        fcntl.flock(file, fcntl.LOCK_EX)
        port.start([(index, 1, str(path), None) for index in range(engine.max_workers)])
        wait_until(lambda: len(port.running()) == engine.max_workers, 30.0)
        yield seen
        fcntl.flock(file, fcntl.LOCK_UN)
        while len(seen) < engine.max_workers:
            seen.add(wait(port))


def zygote_of(engine):
    starter = vars(engine._supervisor).get("_starter")  # the thread makes it
    return None if starter is None else starter._zygote


def is_forked(worker):
    """A fork has the command line of its zygote."""
    return b"\0zygote\0" in Path(f"/proc/{worker.pid}/cmdline").read_bytes()


@pytest.mark.all
def test_forked_workers_are_children_of_the_engine(engine, tmp_path):
    """Each forked worker has its own process group and random numbers, and this process as its parent."""
    with crowd(engine, tmp_path / "gate") as seen:
        forked = [worker for worker in engine._supervisor.pool.workers if is_forked(worker)]
        kept = os.listdir(f"/proc/{zygote_of(engine)._process.pid}/fd")
    found = list(seen.values.values())

    assert WIDE - 1 == len(forked), "all but the first were forked"
    assert len(kept) < 10, "the zygote keeps no descriptor of a worker"
    assert WIDE == len({facts["pid"] for facts in found}) == len({facts["random"] for facts in found})
    assert {os.getpid()} == {facts["parent"] for facts in found}
    assert [facts["pid"] for facts in found] == [facts["group"] for facts in found]
    assert {("__main__", 1)} == {(facts["main"], facts["threads"]) for facts in found}


def test_few_workers_have_no_zygote(tmp_path):
    """For few workers no zygote is started: it would take longer than starting them."""
    engine = ProcessEngine(2)
    with crowd(engine, tmp_path / "gate"):
        assert zygote_of(engine) is None
    engine.close()


def test_the_first_worker_does_not_wait_for_the_zygote(engine, monkeypatch):
    """The first worker starts without the zygote: short tasks may be done before that is ready."""
    monkeypatch.setattr(_zygote, "start", hung_zygote)

    assert dict.fromkeys(range(WIDE)) == drive(engine, far.nothing, range(WIDE)).values
    assert not zygote_of(engine).ready, "it is waited for still"


def hung_zygote(fds, args):
    """A process that keeps its descriptors open and says nothing."""
    return subprocess.Popen(["sleep", "1000"], process_group=0, pass_fds=fds)


def test_who_is_ready_is_not_kept_waiting_for_all(monkeypatch):
    """The supervisor forks a few workers per turn, so that those already there are served in between."""
    monkeypatch.setattr(_starter, "Zygote", ReadyZygote)
    with select.epoll() as poll, closing(Starter(16, poll, set)) as starter:
        left, turns = 16, []
        while left:
            starter.check(0.0)
            turns.append(starter.startable(left, 16 - left, deaths=False))
            left -= turns[-1]
            assert 0 == starter.startable(0, 16, deaths=False), "no spare is wanted"
            assert starter.deadline == (-inf if left else inf)
        starter.check(0.0)

    assert [AT_ONCE] * (16 // AT_ONCE) == turns
    assert inf == starter.deadline


class ReadyZygote:
    """A stand-in for a zygote that is ready to fork."""

    ready = True

    def __init__(self, modules=()):
        self.socket, self.other = socket.socketpair()

    def fits(self):
        return True

    def close(self):
        self.socket.close()
        self.other.close()


class UnreadyZygote(ReadyZygote):
    """A stand-in for a zygote that is still starting."""

    ready = False
    deadline = inf


def test_one_that_was_started_ahead_is_waited_for_a_moment(monkeypatch):
    """A zygote that was started ahead is waited for briefly, because it forks faster than an interpreter starts."""
    assert _starter.EXPECTED < 1
    monkeypatch.setattr(_starter, "EXPECTED", 30.0)
    _prestart._ahead.append((os.getpid(), UnreadyZygote()))
    with select.epoll() as poll, closing(Starter(2, poll, set)) as starter:
        starter.check(now := time.monotonic())
        assert 0 == starter.startable(2, 0, deaths=False)
        late = starter.deadline
        assert now < late <= now + 30
        starter.check(late)
        assert 1 == starter.startable(2, 0, deaths=False)


@pytest.mark.all
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_end_of_a_forked_worker_is_told_exactly(engine, tmp_path, number):
    """Signals and exit codes of forked workers are exact, because they come from the system."""
    with crowd(engine, tmp_path / "gate"):
        pass
    failures = drive(engine, far.end_by, [number] * 3).failures
    left = drive(engine, far.leave, [7]).failures

    assert [(number, None)] * 3 == [(ended.error.signal, ended.error.exitcode) for ended in failures.values()]
    assert 7 == left[0].error.exitcode


@pytest.mark.all
@pytest.mark.parametrize(("variable", "umask"), [("new", 0o22), (None, 0o22), ("new", 0o31)])
def test_forked_worker_finds_what_is_there_when_it_starts(engine, tmp_path, monkeypatch, variable, umask):
    """A forked worker has the environment, directory and umask of its own start, not of the zygote's."""
    old = os.umask(0o22)
    try:
        monkeypatch.setenv("PARALLELKIT_TEST", "old")
        with crowd(engine, tmp_path / "gate"):
            first = zygote_of(engine)
        monkeypatch.delenv("PARALLELKIT_TEST")
        if variable is not None:
            monkeypatch.setenv("PARALLELKIT_TEST", variable)
        monkeypatch.chdir(tmp_path)
        os.umask(umask)
        pids = {worker.pid for worker in engine._supervisor.pool.workers}
        drive(engine, far.end_by, [signal.SIGKILL] * WIDE)
        with crowd(engine, tmp_path / "gate") as seen:
            is_other = zygote_of(engine) is not first
        assert is_other or umask == 0o22, "a umask cannot be sent: so another zygote takes over"
    finally:
        os.umask(old)
    fresh = [facts for facts in seen.values.values() if facts["pid"] not in pids]

    assert fresh
    assert {(variable, str(tmp_path), umask)} == {
        (facts["variable"], facts["directory"], facts["umask"]) for facts in fresh
    }


@pytest.mark.all
def test_zygote_may_die(engine, tmp_path):
    """If the zygote dies, its workers go on, and a new zygote is started when more are wanted."""
    with crowd(engine, tmp_path / "gate") as seen:
        pid = zygote_of(engine)._process.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: zygote_of(engine) is None)
    assert WIDE == len(seen.values)
    drive(engine, far.end_by, [signal.SIGKILL] * 3)
    with crowd(engine, tmp_path / "gate") as seen:
        wait_until(lambda: zygote_of(engine) is not None and zygote_of(engine).ready)

    assert WIDE == len(seen.values)


def test_zygote_whose_parent_hangs_up_says_nothing(capfd):
    """A zygote whose parent closes the connection, even with unread data, which resets it, ends without an error."""
    with closing(Zygote(())) as zygote:
        select.select([zygote.socket], [], [], 30)
        zygote.socket.close()
        assert 0 == zygote._process.wait(30)

    assert ("", "") == capfd.readouterr()


@pytest.mark.all
def test_frozen_zygote_delays_no_deadline(engine, tmp_path):
    """A frozen zygote is soon given up: no overdue attempt is delayed, and workers are started without it."""
    with crowd(engine, tmp_path / "gate"):
        zygote = zygote_of(engine)._process
        os.kill(zygote.pid, signal.SIGSTOP)
    with opened(engine, die_or_hang) as port:
        port.start([(0, 1, "hang", 0.4), *[(index, 1, "die", None) for index in range(1, 4)]])
        seen = Seen()
        while len(seen) < 4:
            seen.add(wait(port))
    began, ended = seen.times[0]

    assert isinstance(seen.failures[0].error, TaskTimeout)
    assert ended - began < 8, "it used to be ten seconds"
    assert -signal.SIGKILL == zygote.returncode


def die_or_hang(what):
    """End the worker shortly before the other one is overdue."""
    time.sleep(1000 if what == "hang" else 0.3)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.all
def test_worker_of_which_the_zygote_did_not_tell_is_ended(engine, tmp_path, monkeypatch):
    """A worker whose pid the zygote did not report is found as our child and ended, without leaving a zombie."""
    late = []

    def hear_nothing(zygote):
        wait_until(lambda: BORN.unpack_from(zygote._born)[0])
        late.extend(BORN.unpack_from(zygote._born))
        raise TimeoutError

    monkeypatch.setattr(Zygote, "fork", partial_answer(hear_nothing))
    with crowd(engine, tmp_path / "gate") as seen:
        assert 1 == len(late)
        with pytest.raises(ChildProcessError):
            os.waitpid(late[0], os.WNOHANG)

    assert WIDE == len(seen.values)


def partial_answer(hear):
    """A fork request that is sent as usual, but whose answer is lost."""
    fork = Zygote.fork

    def forked(zygote, fds, environ):
        zygote._answer = lambda: hear(zygote)
        return fork(zygote, fds, environ)

    return forked


def refuse(*args, **kwargs):
    raise OSError("refused")


@pytest.mark.all
def test_engine_does_without_a_zygote_that_cannot_start(engine, tmp_path, monkeypatch):
    """If no zygote can be started, workers are started without one."""
    monkeypatch.setattr(_zygote, "start", refuse)
    with crowd(engine, tmp_path / "gate") as seen:
        pass

    assert WIDE == len(seen.values)


@pytest.mark.all
def test_engine_does_without_a_zygote_that_does_not_answer(engine, tmp_path, monkeypatch):
    """A zygote that does not answer is given up after its time."""
    hung = []
    monkeypatch.setattr(_zygote, "start", lambda fds, args: hung.append(hung_zygote(fds, args)) or hung[0])
    monkeypatch.setattr(_zygote, "PATIENCE", 0.1)
    with crowd(engine, tmp_path / "gate") as seen:
        pass

    assert WIDE == len(seen.values)
    assert [-signal.SIGKILL] == [process.returncode for process in hung]


@pytest.mark.all
def test_engine_does_without_a_zygote_that_cannot_fork(engine, tmp_path, monkeypatch):
    """If the system refuses the zygote's fork, workers are started without it."""
    monkeypatch.setattr(Zygote, "fork", refuse)
    with crowd(engine, tmp_path / "gate") as seen:
        assert all(not is_forked(worker) for worker in engine._supervisor.pool.workers)

    assert WIDE == len(seen.values)


@pytest.mark.all
def test_a_process_that_a_debugger_has_given_threads_forks_no_worker(engine, tmp_path, monkeypatch):
    """A fork would lack them: it would stop at a breakpoint, and nobody could tell it to go on."""
    script = tmp_path / "debugger.py"  # runs the process's file, as the one of VS Code and PyCharm does
    script.write_text(
        "import runpy, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"runpy.run_path({_spawn.ENTRY!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(_spawn, "ENTRY", str(script))
    with crowd(engine, tmp_path / "gate") as seen:
        assert all(not is_forked(worker) for worker in engine._supervisor.pool.workers)

    assert WIDE == len(seen.values)


@pytest.mark.all
def test_zygote_that_cannot_be_compared_is_done_without(engine, tmp_path, monkeypatch):
    """If /proc cannot be read, for want of a descriptor, workers are started without a zygote."""
    with crowd(engine, tmp_path / "gate"):
        monkeypatch.setattr(_zygote, "inheritance", lack)
    drive(engine, far.end_by, [signal.SIGKILL] * 3)
    with crowd(engine, tmp_path / "gate") as seen:
        assert any(not is_forked(worker) for worker in engine._supervisor.pool.workers)

    assert WIDE == len(seen.values)


def test_a_thread_of_any_name_can_have_a_zygote():
    """A zygote works whatever its thread's name, which the system cuts after 15 bytes, possibly within a character."""
    with open("/proc/thread-self/comm", "r+b", buffering=0) as comm:
        name = comm.read().rstrip(b"\n")
        kept = _zygote.inheritance()
        comm.write("auswertungs_grüße.py".encode()[:15])
        try:
            assert kept == _zygote.inheritance()
        finally:
            comm.write(name)


def lack():
    raise OSError(errno.EMFILE, "Too many open files")


def test_first_death_brings_a_zygote(tmp_path):
    """Two workers alone need no zygote; when some die, one is started for their replacements."""
    engine = ProcessEngine(2)
    seen = drive(engine, far.end_by, [signal.SIGKILL] * 12)
    with crowd(engine, tmp_path / "gate"):
        wait_until(lambda: zygote_of(engine) is not None and zygote_of(engine).ready)
    engine.close()

    assert 12 == len(seen.failures)


@pytest.mark.all
def test_zygote_that_was_late_once_is_replaced(tmp_path, monkeypatch):
    """A zygote that was late once is replaced by a new one, so that a long run does not go on with slow starts."""
    engine = ProcessEngine(2)
    drive(engine, far.end_by, [signal.SIGKILL] * 12)
    with crowd(engine, tmp_path / "gate"):
        wait_until(lambda: zygote_of(engine) is not None and zygote_of(engine).ready)
    first, answer = zygote_of(engine), Zygote._answer

    def be_late(zygote):
        if zygote is first and zygote.ready:
            raise TimeoutError
        return answer(zygote)

    monkeypatch.setattr(Zygote, "_answer", be_late)
    seen = drive(engine, far.end_by, [signal.SIGKILL] * 12)
    with crowd(engine, tmp_path / "gate"):
        wait_until(lambda: zygote_of(engine) not in (None, first) and zygote_of(engine).ready)
    engine.close()

    assert 12 == len(seen.failures)


@pytest.mark.all
def test_closed_engine_leaves_no_zygote(tmp_path):
    """The zygote ends with its engine, even while it is still starting."""
    engine = ProcessEngine(WIDE)
    with crowd(engine, tmp_path / "gate"):
        ready = zygote_of(engine)._process.pid
    engine.close()
    other = ProcessEngine(WIDE)
    with opened(other, far.nothing) as port:
        port.start([(index, 1, None, None) for index in range(WIDE)])
        wait_until(lambda: zygote_of(other) is not None)
        early = zygote_of(other)._process.pid
    other.close()

    assert not is_alive(ready)
    assert not is_alive(early)


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
import remote_tasks as far
from port_driver import opened
from parallelkit._executors._processes import ProcessEngine
engine = ProcessEngine(6)
with opened(engine, far.nap) as port:
    port.start([(index, 1, 1000, None) for index in range(6)])
    while len(port.running()) < 6:
        pass
    starter = engine._supervisor._starter
    print(starter._zygote._process.pid, *[worker.pid for worker in engine._supervisor.pool.workers], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_zygote_and_its_workers_end_with_the_engines_process():
    """When the engine's process is killed, the kernel ends the zygote and its workers."""
    script = KILLED.format(tests=os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    pids = [int(pid) for pid in done.stdout.split()]

    assert 7 == len(pids), done.stderr
    wait_until(lambda: not any(map(is_alive, pids)))
