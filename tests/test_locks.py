"""Locks that a ``with`` gives back, whatever is raised as it takes them."""

import signal
import sys
import threading
import time

import pytest

from parallelkit import _locks
from parallelkit._executors._submit import _future
from parallelkit._locks import CarefulLock, careful

FILES = (_locks.__file__, _future.__file__, threading.__file__)


class StrayError(BaseException):
    """An exception that nobody expects."""


def strike(number):
    """A profile function that raises at the n-th event within the code of locks, other than the return from it."""

    def profile(frame, event, argument):
        nonlocal number
        if frame.f_code.co_filename in FILES and event != "return":
            number -= 1
            if number == 0:
                raise StrayError  # and Python takes this function off

    return profile


def is_free(lock):
    """Whether another thread could take it."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken[0]


def is_struck(lock, number):
    """Take a lock and give it back, with an exception at the n-th event; whether there were so many."""
    before = sys.getprofile()
    sys.setprofile(strike(number))
    try:
        with lock:
            pass
    except StrayError:
        return True
    finally:
        sys.setprofile(before)
    return False


@pytest.mark.parametrize("nested", [False, True])
def test_wherever_an_exception_strikes_the_lock_is_given_back(nested):
    """Whatever is raised while a lock is being taken, this thread holds it afterwards as often as before."""
    for number in range(1, 100):
        lock = CarefulLock()
        if nested:
            lock.acquire()
        struck = is_struck(lock, number)
        if nested:
            assert not is_free(lock), number
            lock.release()
        assert is_free(lock), number
        if not struck:
            break
    assert number > 4  # as it begins, before and after it counts, before and after it takes the lock


def test_wherever_an_exception_strikes_a_future_is_not_left_locked():
    """That of Python is, where it strikes as ``Condition.__exit__`` begins: then the thread that makes calls would wait for ever."""
    for number in range(1, 100):
        condition = _future.PoolFuture(None)._condition
        struck = is_struck(condition, number)
        assert is_free(condition), number
        if not struck:
            break
    assert number > 2  # as each of its methods is looked up


def test_it_excludes_other_threads():
    """While one thread holds it, no other can take it; a second time, the same thread can."""
    with CarefulLock() as taken:
        assert taken
    lock = CarefulLock()
    with lock, lock:
        assert not is_free(lock)
    assert is_free(lock)


@pytest.mark.parametrize("loses", [False, True])
def test_only_pythons_own_locks_are_replaced_and_only_where_they_are_lost(loses, monkeypatch):
    """Where ``with`` loses no lock, and of other libraries, the lock is the one that was asked for."""

    class Foreign:
        pass

    monkeypatch.setattr(_locks, "LOSES", loses)
    for make in (threading.Lock, threading.RLock):
        assert loses == isinstance(careful(make), CarefulLock)
    assert isinstance(careful(Foreign), Foreign)


@pytest.mark.all
def test_a_storm_of_signals_leaves_it_free():
    """A handler that raises, thousands of times, at any moment of ``with``."""

    def raise_it(*event):
        raise StrayError

    before = signal.signal(signal.SIGALRM, raise_it)
    raised, end = 0, time.monotonic() + 2
    try:
        while time.monotonic() < end:
            lock = careful(threading.Lock)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                while True:
                    with lock:
                        pass
            except StrayError:
                raised += 1
            assert is_free(lock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised > 100
