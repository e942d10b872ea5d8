"""What is said of worker processes that end without an attempt that could be blamed."""

import os
import re
import time
from signal import SIGKILL
from types import SimpleNamespace

import pytest

from parallelkit import ProcessExecutor, run_parallel
from parallelkit._executors._process import _handle
from parallelkit._executors._process._deaths import Deaths
from parallelkit._executors._process._lane import Lane, Why


class Heavy:
    """A function that loads for ever."""

    def __call__(self, item):
        return item

    def __reduce__(self):
        return time.sleep, (1000,)


@pytest.mark.all
def test_an_initializer_that_hangs_is_named_by_the_limit_that_it_overran(monkeypatch):
    """The reason says that it was the package which killed the worker, and when it does so."""
    monkeypatch.setattr(_handle, "LOAD_LIMIT", 0.3)
    with ProcessExecutor(1, initializer=time.sleep, initargs=(1000,)) as executor:
        error = executor.submit(abs, -1).exception()
    assert "worker processes do not start: worker process" in str(error)
    assert "took more than 0.3 s, and was killed" in str(error)


def test_an_initializer_that_exits_is_told_with_its_code():
    """No error of its own says anything then."""
    with ProcessExecutor(1, initializer=os._exit, initargs=(3,)) as executor:
        error = executor.submit(abs, -1).exception()
    assert "worker processes do not start: worker process" in str(error)
    assert "exited with code 3" in str(error)


@pytest.mark.parametrize("max_workers", [1, 2])
@pytest.mark.all
def test_a_function_that_takes_too_long_to_load_is_told_so(monkeypatch, max_workers):
    """A SIGKILL of ours looks like that of the system, which would send whoever reads it looking for memory."""
    monkeypatch.setattr(_handle, "LOAD_LIMIT", 2.0)  # enough for a worker to start, on a busy machine too
    with ProcessExecutor(max_workers) as executor:
        results = [run_parallel(Heavy(), [1], executor=executor)]
        assert [1] == run_parallel(abs, [-1], executor=executor).values()
        results.append(run_parallel(Heavy(), [1], executor=executor))  # by a worker that has done something
    for stopped in [each.stopped for each in results]:
        assert "end while they load the function: worker process" in stopped
        assert "took more than 2 s, and was killed" in stopped


WIDTH = 3
MANY = 2 * WIDTH + 8


def judge(*ends):
    """What is said of the last of these ends, each of a worker as described: why the engine is broken, ``load`` for its run, or nothing."""
    deaths, lane = Deaths(WIDTH), Lane(1, b"", False)
    for status, blamed, what in ends:
        usual = {"pid": 7, "done": 0, "ready": False, "refusal": None, "loads": None}
        usual |= {"why": Why.ITSELF, **what}
        worker = SimpleNamespace(**usual, wire=SimpleNamespace(loads=usual["loads"]))
        broken, fatal = deaths.take(worker, status, [lane], blamed)
    return broken.reason if broken else "load" if fatal else ""


def end(status, blamed=False, **what):
    return status, blamed, what


KILLED = -SIGKILL


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([end(3)], ""),
        ([end(3)] * 2, "worker processes do not start: .* code 3"),
        ([end(3), end(KILLED, loads=1), end(3)], ""),
        ([end(3), end(3, done=1, ready=True), end(3)], ""),
        ([end(3), end(3, blamed=True, ready=True), end(3)], ""),
        ([end(3, ready=True)] * 2, ""),
        ([end(3), end(3, why=Why.DISMISSED)], ""),
        ([end(KILLED)] * (MANY - 1), ""),
        ([end(KILLED)] * MANY, "worker processes end before they run anything: .* SIGKILL, which .*"),
        ([end(KILLED, why=Why.GARBAGE)] * 2, "worker processes do not start: .* SIGKILL, which .*"),
        ([end(KILLED, why=Why.UNLOADED)], "worker processes do not start: .* took more than 300 s.*"),
        ([end(3, loads=1)], ""),
        ([end(3, loads=1)] * 2, "load"),
        ([end(3, loads=2)] * 2, ""),
        ([end(3, loads=1), end(3, loads=1, why=Why.DISMISSED)], ""),
        ([end(3, loads=1), end(3, loads=1, blamed=True)], ""),
        ([end(KILLED, loads=1)] * (MANY - 1), ""),
        ([end(KILLED, loads=1)] * MANY, "load"),
        ([end(KILLED, loads=1, why=Why.UNLOADED)] * 2, "load"),
    ],
)
def test_which_ends_are_too_many(ends, said):
    """Ends in a row that tell of the engine, or of a run's function, are counted; those that anything explains are not."""
    assert re.fullmatch(said, judge(*ends))
