"""Pauses of the garbage collector: it is off while any thread needs that, and never longer."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading

import pytest

from parallelkit import ProcessExecutor, _collector, iter_parallel
from parallelkit._collector import without_collector


class Seen:
    """Tells whether the collector was on as it was unpickled."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def __reduce__(self) -> object:
        return unpickled, ()


def unpickled() -> Seen:
    return Seen(gc.isenabled())


def log_and_give(item: int) -> list[Seen]:
    logging.getLogger("pauses").warning("task %d", item)
    return [Seen()]


def give(item: int) -> list[Seen]:
    return [Seen()]


def test_off_during_the_work_and_on_afterwards() -> None:
    """The collector is off while the work is done, and on again when it has returned."""
    assert without_collector(gc.isenabled) is False
    assert gc.isenabled()


def test_off_before_is_off_afterwards() -> None:
    """A program that has switched the collector off finds it off."""
    gc.disable()
    try:
        without_collector(int)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_on_after_an_error() -> None:
    """Work that raises leaves the collector on."""
    with pytest.raises(ValueError, match="invalid literal"):
        without_collector(lambda: int("x"))
    assert gc.isenabled()


def test_two_threads() -> None:
    """The end of one thread's work does not switch it on for that of another: Python 3.11 may crash as stacks are walked."""
    begun, go_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    def work() -> None:
        begun.set()
        assert go_on.wait(10)
        seen.append(gc.isenabled())

    other = threading.Thread(target=lambda: without_collector(work))

    def first() -> None:
        other.start()
        assert begun.wait(10)

    without_collector(first)
    assert not gc.isenabled(), "the other thread needs it off"
    go_on.set()
    other.join()
    assert seen == [False]
    assert gc.isenabled()


def test_an_error_of_a_signal_handler_as_the_pause_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is on again even if a signal handler raises just after it was switched off."""
    disable = gc.disable

    def interrupted() -> None:
        disable()
        raise KeyboardInterrupt

    monkeypatch.setattr(gc, "disable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        without_collector(int)
    assert gc.isenabled()


def test_an_error_of_a_signal_handler_as_the_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is on again even if a signal handler raises at that moment."""
    enable, calls = gc.enable, []

    def interrupted() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        enable()

    monkeypatch.setattr(gc, "enable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        without_collector(int)
    assert gc.isenabled()
    assert without_collector(gc.isenabled) is False
    assert gc.isenabled()


def test_a_fork_meanwhile() -> None:
    """A child that another thread forks in the midst of a pause collects its garbage, and can pause again."""
    status: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                good = gc.isenabled() and not without_collector(gc.isenabled) and gc.isenabled()
            finally:
                os._exit(0 if good else 1)
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def work() -> None:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()

    without_collector(work)
    assert status == [0]
    assert gc.isenabled()


def test_a_fork_as_another_thread_begins_its_pause() -> None:
    """A child that is forked at that very moment can pause, though that thread holds the lock for ever there."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with _collector._pause._lock:
            held.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        without_collector(int)
        os._exit(0)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_results_are_unpickled_in_a_pause() -> None:
    """A run unpickles values while the collector is off, so that it does not go over them again and again."""
    with ProcessExecutor(2) as executor:
        outcomes = list(iter_parallel(give, range(20), executor=executor))
    assert [outcome.unwrap()[0].enabled for outcome in outcomes] == [False] * 20
    assert gc.isenabled()


def test_log_records_are_handled_outside_of_pauses() -> None:
    """The handlers of the program run while the collector is on."""
    seen: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(gc.isenabled())

    logger, handler = logging.getLogger("pauses"), Handler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with ProcessExecutor(2) as executor:
            outcomes = list(iter_parallel(log_and_give, range(20), executor=executor))
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    assert len(outcomes) == 20
    assert seen == [True] * 20
