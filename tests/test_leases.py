"""Forks of a process that uses large results, or items, in place."""

import gc
import mmap
import os
import pickle

import array_tasks as far
import numpy as np
import pytest
from port_driver import drive

from parallelkit._executors._processes import ProcessEngine
from parallelkit._worker import _leases

LONG = 100_000  # of 8 bytes: beyond what travels inside a pickle


@pytest.fixture
def engine():
    engine = ProcessEngine(1)
    yield engine
    engine.close()


class Child:
    """A forked child that calls ``act`` when it is told to go on, and sends back what that returns."""

    def __init__(self, act):
        go_on, self._tell = os.pipe()
        self._answer, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.read(go_on, 1)
            os.write(answer, str(act()).encode())
            os._exit(0)
        os.close(go_on)
        os.close(answer)

    def go_on(self):
        os.write(self._tell, b"x")
        told = os.read(self._answer, 100).decode()
        os.waitpid(self._pid, 0)
        os.close(self._tell)
        os.close(self._answer)
        return told


def spoil(arrays):
    for array in arrays:
        array *= -1


def test_a_mapping_knows_whether_it_is_used():
    """As long as an array, a view or a buffer looks at it, however indirectly, and no longer; it keeps its size."""
    fd = os.memfd_create("mapped")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        mapping = mmap.mmap(fd, mmap.PAGESIZE)
    finally:
        os.close(fd)
    assert not _leases.is_used(mapping)
    for make in (
        memoryview,
        pickle.PickleBuffer,
        np.frombuffer,
        lambda it: np.frombuffer(memoryview(it)[8:80])[2:4],
    ):
        user = make(mapping)
        assert _leases.is_used(mapping)
        del user
        assert not _leases.is_used(mapping)
    assert len(mapping) == mmap.PAGESIZE


def test_results_are_not_shared_with_a_forked_child(engine):
    """What a forked child, or this process, writes into the arrays that both have is not seen by the other."""
    arrays = list(drive(engine, far.make, [1, 2, 3]).values.values())
    arrays[1][0] = 20
    child = Child(lambda: (spoil(arrays), [float(array.sum()) for array in arrays])[1])
    arrays[2][0] = 30

    assert str([-1.0 * LONG, -2.0 * LONG - 18, -3.0 * LONG]) == child.go_on()
    assert [1, 20, 30] == [array[0] for array in arrays]
    assert [1, 2, 3] == [array[1] for array in arrays]


def test_a_forked_child_keeps_results_that_its_parent_has_dropped(engine):
    """The worker does not write further results into memory of which a forked child still has arrays."""
    arrays = list(drive(engine, far.make, [1, 2]).values.values())
    child = Child(lambda: [float(array.sum()) for array in arrays])
    arrays.clear()
    for _ in range(3):
        drive(engine, far.make, range(10, 20))

    assert str([1.0 * LONG, 2.0 * LONG]) == child.go_on()


@pytest.mark.all
def test_forks_use_up_no_blocks_and_descriptors(engine):
    """After each fork the worker makes new blocks for what it had to give up, and the old ones are freed."""
    most = 0
    for number in range(60):
        arrays = drive(engine, far.make, [number, number + 1]).values
        assert {0: number, 1: number + 1} == {index: array[-1] for index, array in arrays.items()}
        Child(list).go_on()
        most = max(most, len(os.listdir("/proc/self/fd")))
        if number == 3:
            before = most

    assert most <= before + 2


def test_items_are_not_shared_with_a_forked_child(engine):
    """What forked children of a task write into the item does not change the task's; nor does any of that change a later one."""
    items = [np.full(LONG, float(number)) for number in range(10)]
    for _ in range(2):
        assert {n: 2 * n * float(LONG) for n in range(10)} == drive(engine, far.fork_and_spoil, items).values


def test_only_what_is_used_counts_as_in_use(engine):
    """Results count against the allowed number as long as somebody has them, whether or not their worker lives."""
    gc.collect()
    before = len(_leases.in_use())
    arrays = drive(engine, far.make, range(5)).values
    assert before + 5 == len(_leases.in_use())
    del arrays[0], arrays[1]
    assert before + 3 == len(_leases.in_use())
    engine.close()
    assert before + 3 == len(_leases.in_use())
    del arrays[2]
    assert before + 2 == len(_leases.in_use())
