"""Locks that a ``with`` gives back, whatever is raised as it takes them."""

import _thread
import os
import signal
import sys
import threading
import time
from functools import partial

import pytest
from patience import wait_until

from parallelkit import ThreadExecutor, _conditions, _locks
from parallelkit._conditions import Condition, Event, Semaphore, Thread
from parallelkit._executors._submit._future import PoolFuture
from parallelkit._locks import CarefulLock, careful

FILES = (_locks.__file__, _conditions.__file__, threading.__file__)

PATIENCE = 20.0  # seconds for a thread to begin
STARTS = [
    getattr(_thread, name) for name in ("start_new_thread", "start_joinable_thread") if hasattr(_thread, name)
]


class StrayError(BaseException):
    """An exception that nobody expects."""


def strike(number, spared=()):
    """A profile function that raises at the n-th event within the code of locks at which a signal handler may do so, too."""

    def profile(frame, event, argument):
        nonlocal number
        code = frame.f_code
        if code.co_filename in FILES and code.co_name not in spared and event in ("call", "c_return"):
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


def is_struck(act, number, spared=()):
    """Do it, with an exception at the n-th event; whether there were so many."""
    before = sys.getprofile()
    sys.setprofile(strike(number, spared))
    try:
        act()
    except StrayError:
        return True
    finally:
        sys.setprofile(before)
    return False


def take(lock):
    """Take it, and give it back."""
    with lock:
        pass


@pytest.mark.parametrize("nested", [False, True])
def test_wherever_an_exception_strikes_the_lock_is_given_back(nested):
    """Whatever is raised while a lock is being taken, this thread holds it afterwards as often as before."""
    for number in range(1, 100):
        lock = CarefulLock()
        if nested:
            lock.acquire()
        struck = is_struck(partial(take, lock), number)
        if nested:
            assert not is_free(lock), number
            lock.release()
        assert is_free(lock), number
        if not struck:
            break
    assert number > 3  # as it begins, has counted, has taken the lock


def test_wherever_an_exception_strikes_a_future_is_not_left_locked():
    """That of Python is, where it strikes as ``Condition.__exit__`` begins: then the thread that makes calls would wait for ever."""
    for number in range(1, 100):
        condition = PoolFuture(None)._condition
        struck = is_struck(partial(take, condition), number)
        assert is_free(condition), number
        if not struck:
            break
    assert number > 2  # as each of its methods is looked up


def wait(condition):
    """Wait where it is held twice, as ``result`` of a future does."""
    with condition, condition:
        condition.wait(0)


@pytest.mark.parametrize(
    ("make", "act", "lock", "fewest"),
    [
        (Condition, wait, lambda it: it, 8),
        (Event, lambda it: (it.wait(0), it.set()), lambda it: it._cond, 12),
        (
            partial(Semaphore, 1),
            lambda it: (it.acquire(), it.acquire(timeout=0.001), it.release()),
            lambda it: it._cond,
            20,
        ),
    ],
)
def test_wherever_an_exception_strikes_who_waits_gets_it_and_leaves_nothing_locked(make, act, lock, fewest):
    """With Python's own, it became a RuntimeError of the lock, or who wakes those that wait then waited for ever."""
    for number in range(1, 100):
        it = make()
        struck = is_struck(partial(act, it), number)
        assert is_free(lock(it)), number
        assert not lock(it)._waiters, number
        if not struck:
            break
    assert number > fewest


def test_wherever_an_exception_strikes_its_starter_a_thread_begins():
    """It tells its starter that it has begun, and did so for ever if that had left the lock taken."""
    for number in range(1, 100):
        begun = threading.Lock()
        begun.acquire()
        thread = Thread(target=begun.release)
        struck = is_struck(thread.start, number, spared=("start", "is_set", "daemon"))
        assert begun.acquire(timeout=20), number
        thread.join()
        if not struck:
            break
    assert number > 8


def test_a_condition_is_as_that_of_python():
    """Who waits is woken, waits no longer than its timeout, and must hold the lock."""
    condition = Condition()
    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        condition.wait()
    with condition:
        assert not condition.wait(0)
        assert not condition.wait(0.001)
        assert not condition._waiters

        def notify():
            with condition:
                condition.notify()

        thread = threading.Thread(target=notify)
        thread.start()
        assert condition.wait()
    thread.join()


def test_wherever_an_exception_strikes_the_first_call_the_next_ones_are_made():
    """The executor's thread tells the first that it has begun, and would never get to any call."""
    for number in range(1, 100):
        with ThreadExecutor(1) as executor:
            struck = is_struck(
                partial(executor.submit, int), number, spared=("start", "is_set", "daemon", "__init__")
            )
            assert 0 == executor.submit(int).result(20), number
        if not struck:
            break
    assert number > 8


def test_an_exception_that_strikes_its_starter_after_a_thread_has_begun_comes_out():
    """Python's own start would raise a KeyError in its place."""
    begun = threading.Event()

    def profile(frame, event, argument):
        if event == "c_return" and argument in STARTS:
            sys.setprofile(None)
            assert begun.wait(PATIENCE)
            raise LookupError("told to end")

    thread = Thread(target=begun.set)
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        with pytest.raises(LookupError, match="told to end"):
            thread.start()
    finally:
        sys.setprofile(before)
    thread.join()


def test_wherever_an_exception_strikes_who_asks_or_joins_a_thread_that_runs_is_alive():
    """Else a stream that is closed would leave its thread waiting, and a supervisor's work be done beside it."""
    go_on = threading.Event()
    thread = Thread(target=go_on.wait, args=(PATIENCE,))
    thread.start()
    try:
        for act in (thread.is_alive, partial(thread.join, 0.0)):
            number = 1
            while is_struck(act, number):
                assert thread.is_alive()
                number += 1
            assert number > 1
    finally:
        go_on.set()
    thread.join()
    wait_until(lambda: not thread.is_alive())


def test_wherever_an_exception_strikes_who_asks_for_a_thread_that_has_ended_it_can_be_joined():
    """Nobody would release a lock that was taken to ask for it."""
    struck, number = True, 0
    while struck:
        number += 1
        thread = Thread(target=int)
        thread.start()
        wait_until(lambda ended=f"/proc/self/task/{thread.native_id}": not os.path.exists(ended))
        struck = is_struck(thread.is_alive, number)
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert number > 1


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
