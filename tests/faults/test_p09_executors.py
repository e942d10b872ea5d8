"""Promise 9 for calls by ``submit`` and ``map``: one Ctrl-C ends a ``ProcessExecutor`` and the program that uses it."""

import os
import signal
import threading
import time

import acts
import pytest
from outside import GRACE, program, soon

from parallelkit import ProcessExecutor, RunInterrupted, TaskCancelled, ThreadExecutor

HANG = "partial(acts.hang_if, bad=range(9), path=path + 'here'), range(6)"

SCRIPT = """
import sys
from functools import partial
import acts
from parallelkit import *

path = sys.argv[1]
{setup}
"""

WAYS = {
    "in a with block": f"with ProcessExecutor(2) as pool:\n    list(pool.map({HANG}))",
    "at exit": f"pool = ProcessExecutor(2)\nlist(pool.map({HANG}))",
    "at exit, beside calls that nobody waits for": (
        "pool, other = ProcessExecutor(1), ProcessExecutor(1)\nlist(map(partial(other.submit, acts.nap), [3600] * 3))\n"
        f"list(pool.map({HANG}))"
    ),
    "at exit, beside threads that wait for such calls": (
        "pools = [make(2) for _ in range(4) for make in (ProcessExecutor, ThreadExecutor)]\n"
        "for pool, threads in zip(pools[::2], pools[1::2]):\n"
        "    threads.submit(lambda pool=pool: pool.submit(acts.nap, 3600).result())\n"
        f"list(pool.map({HANG}))"
    ),
    "in a run on the executor": f"with ProcessExecutor(2) as pool:\n    run_parallel({HANG}, executor=pool)",
}


@pytest.mark.parametrize("way", WAYS)
def test_one_interrupt_ends_a_program_whose_calls_hang(way, tmp_path):
    """In a terminal the workers of a standard pool get the signal, too; ours get none, and are killed by the program."""
    path = str(tmp_path / "play-")
    with program("-", path, script=SCRIPT.format(setup=WAYS[way])) as started:
        acts.wait_for_lines(path + "here", 1)
        began = time.monotonic()
        os.kill(started.pid, signal.SIGINT)
        finished = started.wait(20)
        took = time.monotonic() - began
        assert [] == soon(started.descendants, [])
    assert finished.code in (-signal.SIGINT, 1), finished.err
    assert took < GRACE


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunInterrupted({})])
def test_calls_that_an_interrupt_cuts_off_are_cancelled(error):
    """Whoever still holds a future is told; calls that were done keep their values."""
    with pytest.raises(KeyboardInterrupt), ProcessExecutor(1) as pool:
        done = pool.submit(abs, -1)
        assert 1 == done.result()
        hangs, waits = pool.submit(time.sleep, 3600), pool.submit(abs, -2)
        raise error

    assert 1 == done.result()
    for future in (hangs, waits):
        assert TaskCancelled is type(future.exception(0))
        assert "Ctrl-C" in str(future.exception(0))
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, -3)


def test_calls_that_were_done_before_an_interrupt_keep_their_values(tmp_path):
    """Even where a callback has kept the executor from telling so."""
    told, release = threading.Event(), threading.Event()

    def hold_up(done):
        told.set()
        release.wait(30)

    with pytest.raises(KeyboardInterrupt), ProcessExecutor(2) as pool:
        pool.submit(abs, -1).result()
        held, late = pool.submit(time.sleep, 0.1), pool.submit(acts.abs_later, -2, tmp_path)
        held.add_done_callback(hold_up)
        assert told.wait(30)
        (tmp_path / "go").touch()
        while not (tmp_path / "gone").exists():
            time.sleep(0.01)
        time.sleep(0.2)  # until it has ended: nobody will say so
        threading.Timer(0.1, release.set).start()
        raise KeyboardInterrupt
    assert 2 == late.result(0)


def test_other_errors_wait_for_calls_as_the_standard_pools_do():
    """Only Ctrl-C is meant to end what is under way."""
    with pytest.raises(SystemExit), ProcessExecutor(1) as pool:
        calls = [pool.submit(abs, -1), pool.submit(abs, -2)]
        raise SystemExit
    assert [1, 2] == [call.result(0) for call in calls]


def test_threads_go_on():
    """They cannot be killed, and to end amid a write is worse than to wait, so calls are waited for as in the standard pool."""
    with pytest.raises(KeyboardInterrupt), ThreadExecutor(1) as pool:
        calls = [pool.submit(time.sleep, 0.1), pool.submit(abs, -2)]
        raise KeyboardInterrupt
    assert [None, 2] == [call.result(0) for call in calls]
