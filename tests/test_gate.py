"""The gate, on which everything waits: no opening is ever slept through."""

import signal
import threading
from collections import deque
from itertools import count
from time import monotonic

import pytest

from parallelkit._executors import _gate
from parallelkit._executors._gate import Gate

LONG = 30  # seconds: a wait that takes so long has lost its wake-up


def nothing():
    return False


@pytest.mark.parametrize("free", [False, True])
def test_no_wake_up_is_lost(restless, monkeypatch, free):
    """However putting and waiting interleave, the waiter gets every item, and never sleeps while one is there."""
    monkeypatch.setattr(_gate, "FREE_THREADED", free or _gate.FREE_THREADED)
    gate, items, senders, each = Gate(), deque(), 4, 5_000

    def send():
        for number in range(each):
            items.append(number)
            gate.open()

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    seen = 0
    while seen < senders * each:
        if items:
            items.popleft()
            seen += 1
        else:
            assert gate.wait(lambda: items, LONG), f"slept although {len(items)} items were there"
    for thread in threads:
        thread.join()


def test_no_wake_up_is_lost_between_two_that_answer_each_other(restless):
    """Two threads that pass a ball to and fro never both sleep."""
    gates, ball, rounds = (Gate(), Gate()), [0], 5_000
    lost = []

    def play(me):
        while ball[0] < rounds:
            if ball[0] % 2 == me:
                ball[0] += 1
                gates[1 - me].open()
            elif not gates[me].wait(lambda: ball[0] % 2 == me or ball[0] >= rounds, LONG):
                lost.append(me)
                return

    threads = [threading.Thread(target=play, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([], rounds) == (lost, ball[0])


def test_no_wake_up_is_lost_when_the_wait_runs_out_at_that_moment(restless):
    """If a wait times out at the moment of an opening, the gate still works for the next wait."""
    gate, end = Gate(), threading.Event()

    def open_again_and_again():
        while not end.is_set():
            gate.open()

    opener = threading.Thread(target=open_again_and_again)
    opener.start()
    try:
        for pause in range(2_000):
            gate.wait(nothing, pause % 5 * 1e-5)
    finally:
        end.set()
        opener.join()
    assert not gate.wait(nothing, 0.0)
    assert not gate.wait(nothing, 0.001)


def test_what_is_ready_is_not_waited_for():
    """If the condition is already true, the wait returns at once and leaves nothing behind."""
    gate = Gate()
    assert gate.wait(lambda: True)
    assert not gate.wait(nothing, 0.0)


def test_an_opening_that_comes_while_the_waiter_looks_is_used_up():
    """An opening while the waiter checks the condition does not open the next wait."""
    gate = Gate()
    assert gate.wait(lambda: gate.open() or True)
    assert not gate.wait(nothing, 0.0)


def test_opening_without_a_waiter_is_not_remembered():
    """An opening without a waiter is not remembered: the condition must show what it was for."""
    gate = Gate()
    gate.open()
    gate.open()
    assert not gate.wait(nothing, 0.0)


def test_a_wait_ends_in_its_time():
    """A wait that nothing ends returns False after its time, and not before."""
    gate, began = Gate(), monotonic()
    assert not gate.wait(nothing, 0.02)
    assert monotonic() - began >= 0.02


@pytest.mark.parametrize("timeout", [-1.0, -0.0])
def test_a_time_that_is_past_does_not_block(timeout):
    """A negative timeout does not block."""
    assert not Gate().wait(nothing, timeout)


def test_a_very_long_time_is_taken():
    """A timeout beyond the maximum of a lock, even infinity, waits until the gate opens."""
    gate, laid_down = Gate(), threading.Event()

    def ready():
        laid_down.set()  # after the token: whoever opens from now on finds it

    opener = threading.Thread(target=lambda: (laid_down.wait(), gate.open()))
    opener.start()
    assert gate.wait(ready, float("inf"))
    opener.join()


def test_a_signal_handler_may_open():
    """A signal handler may open the gate at which its own thread waits."""
    gate, woken = Gate(), []

    def handle(signum, frame):
        woken.append(signum)
        gate.open()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        assert gate.wait(lambda: woken, LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [signal.SIGALRM] == woken


def test_a_signal_handler_that_raises_leaves_the_gate_whole():
    """After an exception has interrupted a wait, the next wait works."""

    def handle(signum, frame):
        raise InterruptedError

    gate, numbers = Gate(), count()
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(3):
            with pytest.raises(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                gate.wait(nothing, LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    gate.open()  # nobody waits any more
    assert not gate.wait(nothing, 0.0)

    laid_down = threading.Event()

    def ready():
        laid_down.set()
        next(numbers)

    opener = threading.Thread(target=lambda: (laid_down.wait(), gate.open()))
    opener.start()
    assert gate.wait(ready, LONG)
    opener.join()
    assert 1 == next(numbers)


class SeenThrough:
    """A lock that records how it was waited for, and may interrupt its waiter."""

    def __init__(self, lock, interrupts=0):
        self.lock, self.interrupts = lock, interrupts
        self.waits = []

    def acquire(self, blocking=True, timeout=-1):
        self.waits.append(timeout if blocking else 0)
        got = self.lock.acquire(blocking, 0 if timeout > 0 else timeout if blocking else -1)
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return got

    def release(self):
        self.lock.release()


@pytest.mark.parametrize(
    ("timeout", "waits"),
    [(0.02, [0.02]), (0.5, [0.05, 0.45]), (9, [0.05, 1.0, 7.95]), (1e30, [0.05, 1.0, threading.TIMEOUT_MAX])],
)
def test_long_wait_comes_up_for_a_signal_that_nobody_noticed(timeout, waits):
    """A long wait wakes up twice, and no more, because Python misses a signal that comes just as a thread begins to block."""
    gate = Gate()
    gate._lock = SeenThrough(gate._lock)
    assert not gate.wait(nothing, timeout)
    assert waits == pytest.approx(gate._lock.waits)


class Interrupted(deque):
    """Tokens; Ctrl-C comes as soon as one has been taken."""

    def pop(self):
        super().pop()
        raise KeyboardInterrupt


def test_who_is_interrupted_as_he_opens_lets_the_waiter_through_all_the_same():
    """An interrupted opening still lets the waiter through: its token is taken, so nobody else could."""
    gate, passed = Gate(), []
    gate._tokens = Interrupted()
    waiter = threading.Thread(target=lambda: passed.append(gate.wait(nothing, LONG)))
    waiter.start()
    while not gate._tokens:
        threading.Event().wait(0.001)
    with pytest.raises(KeyboardInterrupt):
        gate.open()
    waiter.join()
    assert [True] == passed


@pytest.mark.parametrize("times", [1, 2, 3])
def test_signal_as_the_gate_opens_blocks_nobody(times):
    """A handler that raises just after the waiter was let through leaves a working gate for both sides."""
    gate = Gate()
    gate._lock = SeenThrough(gate._lock)

    def open_and_interrupt():
        gate.open()
        gate._lock.interrupts = 1
        return False

    for _ in range(times):
        with pytest.raises(KeyboardInterrupt):
            gate.wait(open_and_interrupt)
    for _ in range(times + 1):
        gate.open()
    come = threading.Event()
    opener = threading.Thread(target=lambda: (come.set(), gate.open()))
    opener.start()
    while not come.is_set():  # it may be let through early
        gate.wait(come.is_set, LONG)
    opener.join()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_signal_before_the_wait_leaves_no_token_that_hurts(times):
    """A handler that raises while the waiter checks for the last time leaves a working gate."""
    gate = Gate()

    def interrupt():
        raise KeyboardInterrupt

    for _ in range(times):
        with pytest.raises(KeyboardInterrupt):
            gate.wait(interrupt)
    for _ in range(times + 1):
        gate.open()  # raises nothing
    assert not gate.wait(nothing, 0.01)
