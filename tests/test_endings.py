"""Workers that do not end when they are killed: the system holds them in a call to a driver or a lost drive."""

import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
import remote_tasks as far
from patience import wait_until
from port_driver import drive

from parallelkit import ProcessExecutor, TaskTimeout, iter_parallel, run_parallel
from parallelkit._executors._process import _killable
from parallelkit._executors._process._poller import Poller
from parallelkit._executors._processes import ProcessEngine


@pytest.fixture
def undying(monkeypatch):
    """The pids of workers that no kill ends before the test does; ``undying.number`` of those that are killed are kept so."""
    monkeypatch.setattr(_killable, "PATIENCE", 0.05)
    kill, undying = _killable.kill, Undying()

    def try_to_kill(pid, pidfd):
        if pid not in undying and len(undying) < undying.number:
            undying.append(pid)
        return pid in undying or kill(pid, pidfd)

    monkeypatch.setattr(_killable, "kill", try_to_kill)
    yield undying
    undying.end()


class Undying(list):
    number = 1

    def end(self):
        """Let them end, and reap those that nobody else does."""
        pids, self.number = self.copy(), 0
        self.clear()
        for act, how in ((os.killpg, signal.SIGKILL), (os.waitpid, 0)):
            for pid in pids:
                try:
                    act(pid, how)
                except (ProcessLookupError, ChildProcessError):
                    pass  # the engine was faster


def test_a_run_goes_on_without_a_worker_that_does_not_end(undying):
    """The failure comes a little late, and says so; the others run, the worker is replaced, and reaped when it ends at last."""
    with ProcessExecutor(1) as executor:
        results = run_parallel(far.nap, [1000, 0, 0], executor=executor, timeout=0.1)
        assert [0] == [*results.failures]
        error = results.failures[0].error
        assert (TaskTimeout, True, True) == (type(error), error.killed, error.abandoned)
        assert "its process was killed, and is still there 5 s later: it probably hangs in a call" in str(
            error
        )

        (pid,) = undying
        assert [pid] != run_parallel(far.pid_of, [0], executor=executor).values()
        os.killpg(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())  # it was reaped
        undying.clear()


def test_a_worker_is_not_given_up_that_has_ended(monkeypatch):
    """Where C code of the program holds the interpreter, it may be time to give up a worker before its end is seen."""
    kill, wait, unseen = _killable.kill, Poller.wait, []

    def kill_unseen(pid, pidfd):
        done = kill(pid, pidfd)
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        unseen.extend(ended.poll())
        return done

    def wait_blindly(poller, seconds):
        events = wait(poller, seconds)
        return events if not unseen else unseen.clear() or []

    monkeypatch.setattr(_killable, "PATIENCE", 0)
    monkeypatch.setattr(_killable, "kill", kill_unseen)
    monkeypatch.setattr(Poller, "wait", wait_blindly)
    engine = ProcessEngine(1)
    try:
        error = drive(engine, far.nap, [1000, 0], 0.05).failures[0].error
        assert (True, False) == (error.killed, error.abandoned)
    finally:
        engine.close()


def test_the_end_does_not_wait_again_for_a_worker_that_was_given_up(undying, monkeypatch):
    """Closing an executor does not begin to wait anew, and leaves no descriptor of that worker."""
    with ProcessExecutor(2) as executor:
        run_parallel(far.nap, [1000, 0], executor=executor, timeout=0.1)
        monkeypatch.setattr(_killable, "PATIENCE", 20)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    undying.end()


def test_a_stop_does_not_wait_for_longer_than_the_patience(undying):
    """A run that is stopped ends although a worker does not, and the next run has the full width."""
    with ProcessExecutor(1) as executor:
        stopped = run_parallel(far.nap, [1000], executor=executor, run_timeout=0.1)
        assert "run_timeout of 0.1 s" == stopped.stopped
        assert [0] == run_parallel(far.give_back, [0], executor=executor).values()


def test_too_many_that_do_not_end_break_the_engine(undying):
    """Workers that do not end are not replaced for ever: processes would pile up."""
    undying.number = 100
    engine = ProcessEngine(1)
    try:
        with pytest.raises(
            BrokenProcessPool, match="worker processes hang in calls that no signal interrupts"
        ):
            drive(engine, far.nap, [1000] * 9, 0.05)
        assert len(undying) <= 4, "three, and perhaps one that was to replace them"
    finally:
        engine.close()


def test_memory_that_a_worker_may_still_write_to_is_not_used(undying):
    """The call in which it hangs may write into its item, so no other item may lie there until it has ended."""
    engine = ProcessEngine(1)
    try:
        assert [0] == [*drive(engine, lambda item: time.sleep(1000), [bytearray(1 << 20)], 0.1).failures]
        assert not engine._supervisor.blocks._free
        undying.end()
        wait_until(lambda: engine._supervisor.blocks._free)  # the block is not lost
    finally:
        engine.close()


@pytest.fixture
def freezer():
    """A control group in which even SIGKILL waits: that of the freezer of version 1."""
    group = Path(f"/sys/fs/cgroup/freezer/parallelkit-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer of version 1 here: {error.strerror}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    until = time.monotonic() + 10
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.01)


def freeze(group):
    """Stop this process as the system does that waits for a drive."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    (group / "freezer.state").write_text("FROZEN")
    time.sleep(1000)


@pytest.mark.all  # takes six seconds, and needs the right to make a control group
def test_a_process_that_the_system_holds(freezer):
    """A worker that really does not end on SIGKILL costs its task, and ends when the system lets it."""
    results = run_parallel(
        [partial(freeze, freezer), *[time.monotonic] * 9], executor="processes", timeout=0.5
    )
    assert [0] == [*results.failures]
    assert results.failures[0].error.abandoned


SEIZE = """
import ctypes, sys, time
seized = ctypes.CDLL(None, use_errno=True).ptrace(0x4206, int(sys.argv[1]), 0, 0)
print(seized, flush=True)
time.sleep(60)
"""
"""A debugger that is attached to a process, and does not look at what becomes of it."""


def be_debugged(told):
    """Tell who should be debugged, and hang once that is so."""
    Path(told).write_text(str(os.getpid()))
    time.sleep(1000)


@pytest.mark.all
def test_a_process_that_a_debugger_holds(tmp_path):
    """A worker to which a debugger is attached cannot be reaped before that lets go: nobody waits for it until then."""
    told, debuggers = tmp_path / "pid", []

    def items():
        yield str(told)
        while not (told.exists() and told.read_text()):
            time.sleep(0.001)
        command = [sys.executable, "-c", SEIZE, told.read_text()]
        debuggers.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        if debuggers[0].stdout.readline() != b"0\n":
            pytest.skip("no debugger may be attached here")

    try:
        [outcome] = iter_parallel(be_debugged, items(), executor="processes", max_workers=1, timeout=2)
        assert debuggers[0].poll() is None
    finally:
        for debugger in debuggers:
            debugger.kill()
            debugger.communicate()
    assert isinstance(outcome.error, TaskTimeout)
    run_parallel(far.pid_of, [0], executor="processes")
    assert not Path(f"/proc/{told.read_text()}").exists(), "it was not reaped when the debugger had gone"


ORPHANS = """
import ctypes, os, subprocess, time
from parallelkit import run_parallel
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to process 1 of a container
def start(_):
    subprocess.run(["sleep", "60"])
run_parallel(start, range(4), executor="processes", max_workers=2, timeout=0.3)
until = time.monotonic() + 10
while (left := open(f"/proc/self/task/{os.getpid()}/children").read()) and time.monotonic() < until:
    run_parallel(abs, [1], executor="processes", max_workers=1)
print(left or "none")
"""


@pytest.mark.all
def test_orphans_of_workers_are_reaped():
    """What a killed task has started leaves no zombie in a program that is process 1 of its container, at the latest after the next run."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=55, check=True
    )
    assert "none\n" == done.stdout
