"""What one thread looks through while others change it is first copied in one step.

``list`` does that, of deques only where there is a global lock (``snapshot``). ``tuple`` does not on Python 3.11: it allocates
between taking the iterator and using it, garbage may be collected there, and a finalizer lets another thread run.
"""

import gc
import itertools
import threading
import time
from collections import deque
from contextlib import contextmanager

import pytest

from parallelkit._executors._process._blocks import BlockPool
from parallelkit._executors._process._lane import Batch, Lane
from parallelkit._executors._shared import Numbers, snapshot
from parallelkit._executors._thread._queue import TicketQueue
from parallelkit._executors._thread._slots import Slots

MANY = 50  # from twenty on tuples are allocated anew


class Slow:
    """Garbage that only the collector finds, and whose end lets another thread run."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


@contextmanager
def changing(change):
    """Another thread does that all the time, in two steps; the collector is always about to come."""
    over = threading.Event()

    def go_on():
        while not over.is_set():
            for _ in change():
                time.sleep(0)

    thread = threading.Thread(target=go_on)
    before = gc.get_threshold()
    thread.start()
    try:
        gc.set_threshold(3)
        yield
    finally:
        gc.set_threshold(*before)
        over.set()
        thread.join()


def look_again_and_again(look):
    end = time.monotonic() + 0.2
    turn = 0
    while turn < 300 or time.monotonic() < end:
        turn += 1
        Slow()
        _ = [[] for _ in range(turn % 5)]  # the collector comes a little later each time
        look()


def a_lane():
    lane = Lane(1, b"", False)
    lane.queue.extend(Batch(lane, [(index, 1, None, None)], None) for index in range(MANY))

    def change():
        lane.queue.append(lane.queue.popleft())
        yield

    return lane.waiting, change


def a_queue():
    queue = TicketQueue()
    queue.queue.extend((index, 1, None, None) for index in range(MANY))

    def change():
        queue.queue.append(queue.queue.popleft())
        yield

    return lambda: queue.move_forward(-1), change


def some_loans(look):
    slots = Slots(1, (), ())
    for index in range(MANY):
        slots.lend(object(), [float(index)])
    claim = [0.0]

    def change():
        slots.lend("borrower", claim)
        yield
        slots.repay("borrower")
        yield

    return lambda: look(slots), change


def a_pool():
    class Freed:
        size, spoiled, number = 1, False, 0

    pool = BlockPool()
    pool._free.extend(Freed() for _ in range(MANY))

    def change():
        pool._free.append(pool._free.popleft())
        yield

    def look():
        pool.give_back(Freed())
        pool._free.pop()

    return look, change


@pytest.mark.parametrize(
    "things",
    [
        a_lane,
        a_queue,
        lambda: some_loans(Slots.lent),
        lambda: some_loans(lambda slots: slots.free(None)),
        lambda: some_loans(lambda slots: slots.repay("nobody")),
        a_pool,
    ],
    ids=["lane", "queue", "lent", "free", "repaid", "pool"],
)
def test_nobody_stumbles_over_what_another_thread_changes(things):
    """A supervisor that did so would end all that runs on its executor."""
    look, change = things()
    with changing(change):
        look_again_and_again(look)


class Changing(deque):
    """A deque that another thread changes while it is gone through, as interpreters without a global lock allow."""

    tries = 0

    def __iter__(self):
        self.tries += 1
        if self.tries < 3:
            raise RuntimeError("deque mutated during iteration")
        return super().__iter__()


def test_a_copy_is_made_again_if_another_thread_interferes():
    """Each try that fails is another thread's progress."""
    things = Changing("abc")
    assert ["a", "b", "c"] == snapshot(things)
    assert things.tries == 3


def test_no_number_is_drawn_twice():
    """Drawing from ``count`` is no single step in interpreters without a global lock, nor is it from this."""

    def in_steps():
        for number in range(1, 802):
            time.sleep(0)
            yield number

    numbers, drawn = Numbers(), [[], [], [], []]
    numbers._next = in_steps()

    def draw(into):
        into.extend(numbers.draw() for _ in range(200))

    threads = [threading.Thread(target=draw, args=(into,)) for into in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(range(1, 801)) == sorted(itertools.chain(*drawn))
