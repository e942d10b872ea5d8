import errno
import gc
import os
import pickle
import random
import resource
from array import array
from functools import partial
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from threading import Lock
from types import SimpleNamespace
from unittest.mock import Mock

import array_tasks as far
import numpy as np
import pytest
from port_driver import drive, drive_port, opened, wait
from remote_tasks import give_back

from parallelkit import ProcessExecutor, run_parallel
from parallelkit._died import WorkerDied
from parallelkit._executors._process import _blocks
from parallelkit._executors._process._arrivals import Arrivals
from parallelkit._executors._process._packing import QUEUED_FILES
from parallelkit._executors._process._payload import File
from parallelkit._executors._process._wire import Wire
from parallelkit._executors._processes import ProcessEngine
from parallelkit._executors._shared import Numbers
from parallelkit._system import read
from parallelkit._worker import _buffers, _channel, _leases
from parallelkit._worker._editions import Editions

LONG = 100_000  # of 8 bytes: beyond what travels inside a pickle


@pytest.fixture
def engine():
    engine = ProcessEngine(2)
    yield engine
    engine.close()


def numbered(number, length=LONG):
    return np.full(length, float(number))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("place", [(_channel, "write_all"), (_blocks, "map_file")])
def test_block_for_which_there_is_no_memory_is_closed(place, monkeypatch):
    """If a block cannot be filled or mapped for want of memory, the caller gets the error, and nothing is left or printed."""

    def lack(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(*place, lack)
    before = descriptors()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        _blocks.BlockPool().put([memoryview(bytes(LONG))], b"")
    assert before == descriptors()


def test_item_for_which_there_is_no_memory_is_told_as_such(engine, monkeypatch):
    """If there is no memory for an item, the error is the system's, and the task may be retried."""

    def lack(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(_blocks, "map_file", lack)
    (ended,) = drive(engine, len, [numbered(1)]).failures.values()

    assert errno.ENOMEM == ended.error.errno
    assert "Cannot allocate memory in the parent: the item of" in str(ended.error)
    assert not ended.final


@pytest.mark.all
def test_item_for_which_a_worker_has_no_memory_costs_its_own_task_alone(capfd):
    """If a new worker, too, has no memory for an item or for the arguments, the task gets the error, and others go on."""
    large = np.zeros(8 << 20)
    engine = ProcessEngine(1, initializer=far.cramp)
    try:
        seen = drive(engine, len, [numbered(1), large, "x" * large.nbytes, numbered(4), numbered(5)])
        assert {0: LONG, 3: LONG, 4: LONG} == seen.values
        argued = drive(engine, far.give_back, [1], kwargs={"more": large})
        after = drive(engine, len, [numbered(6), numbered(7)])
    finally:
        engine.close()
    assert {0: LONG, 1: LONG} == after.values
    assert [1, 2, 0] == [*seen.failures, *argued.failures]
    for ended in [*seen.failures.values(), *argued.failures.values()]:
        assert (errno.ENOMEM, False) == (ended.error.errno, ended.final)
        assert "Cannot allocate memory in a worker process, for 67," in str(ended.error)


def test_items_wait_for_memory_as_long_as_others_are_on_their_way(engine, monkeypatch):
    """An item for which there is no memory waits while others are in flight, whose blocks will be free."""
    made, make = [], _blocks.map_file

    def scarce(*args, **kwargs):
        if len(made) == 2:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(_blocks, "map_file", scarce)
    seen = drive(engine, len, [numbered(number) for number in range(10)])

    assert dict.fromkeys(range(10), LONG) == seen.values
    assert 2 == len(made)


# Values


ARRAYS = {
    "plain": np.arange(200_000.0),
    "matrix": np.arange(200_000.0).reshape(400, 500),
    "fortran": np.asfortranarray(np.arange(200_000.0).reshape(400, 500)),
    "strided": np.arange(400_000.0)[::2],
    "cut": np.arange(200_000.0).reshape(400, 500)[:, 3:],
    "short": np.arange(900_000, dtype="i2"),
    "objects": np.array([{"any": "object"}] * 50_000),
    "small": np.arange(40_000.0),
    "empty": np.empty((0, 3)),
}


def test_an_array_comes_back_as_it_is(engine):
    """An array arrives with its contents, type, shape and order, both ways, and is writable at both ends."""
    backs = drive(engine, far.give_back, ARRAYS.values()).values
    facts = drive(engine, far.facts, ARRAYS.values()).values
    for index, (name, here) in enumerate(ARRAYS.items()):
        back, there = backs[index], facts[index]
        assert np.array_equal(here, back), name
        copy = here.copy(order="K")
        assert (copy.dtype.str, copy.shape) == there[:2], name
        assert there[4], name
        assert back.flags.writeable, name
        if here.flags.forc:
            assert (copy.flags.c_contiguous, copy.flags.f_contiguous) == there[2:4], name


@pytest.mark.parametrize("times", [20_000, pytest.param(500_000, marks=pytest.mark.all)])
def test_large_bytes_and_texts_come_back_as_they_are(engine, times, monkeypatch):
    """They arrive with their type, in a block; they are copied, because they own their memory."""
    put, blocks = _blocks.BlockPool.put, []
    monkeypatch.setattr(_blocks.BlockPool, "put", lambda *args: blocks.append(1) or put(*args))
    for whole in (b"ab", bytearray(b"ab"), "ab", "é\ud800\0"):
        (back,) = drive(engine, far.give_back, [whole * times]).values.values()
        assert (type(whole), whole * times) == (type(back), back)
        assert [1] == blocks, whole
        blocks.clear()


def test_large_texts_among_the_arguments_of_a_call_travel_in_a_block(monkeypatch):
    """As fast as items do, by position or name; one that comes twice is one object there, too, and a bytearray stays shared."""
    put, blocks = _blocks.BlockPool.put, []
    monkeypatch.setattr(_blocks.BlockPool, "put", lambda *args: blocks.append(1) or put(*args))
    text, many, data = "é" * 40_000, b"x" * 300_000, bytearray(40_000)
    with ProcessExecutor(1) as executor:
        made = executor.submit(far.call_back, text, many, [data], data, again=text, last=1)
        args, kwargs, same = made.result(20)
    assert ((text, many, [data], data), {"again": text, "last": 1}) == (args, kwargs)
    assert same == (True, True)
    assert [1] == blocks


def test_several_buffers_in_one_item(engine):
    """An item may be a dict with several buffers, small and large."""
    item = {"a": numbered(1), "b": numbered(2, 10), "c": numbered(3, 77_777), "d": b"x" * 300_000}
    (told,) = drive(engine, far.parts, [item]).values.values()
    (back,) = drive(engine, far.give_back, [item]).values.values()

    assert {name: (type(part).__name__, len(part)) for name, part in item.items()} == told
    assert all(np.array_equal(item[name], back[name]) for name in "abc")
    assert item["d"] == back["d"]


def test_what_cannot_be_pickled_leaves_no_array_to_the_next(engine):
    """If an item or a value cannot be sent, the arrays in it are not taken for those of the next."""
    items = [numbered(number) for number in range(20)]
    items[1] = [items[1], Lock()]
    seen = drive(engine, partial(far.add_lock_at, 3), items)
    assert [1, 3] == sorted(seen.failures)
    assert all(index == array[0] == array[-1] for index, array in seen.values.items())


def test_classes_of_tests_with_arrays_come_back(engine):
    """Objects of classes that are sent by value may hold arrays."""

    class Holder:
        def __init__(self, array):
            self.array = array

    (back,) = drive(engine, lambda holder: Holder(holder.array + 1), [Holder(numbered(1))]).values.values()
    assert isinstance(back, Holder)
    assert (2.0, 2.0) == (back.array[0], back.array[-1])


def test_arrays_around_what_is_sent_by_value_come_back(engine):
    """An array after a lambda is not taken for the one before, though plain pickle has come as far as the lambda."""
    (back,) = drive(engine, far.give_back, [(numbered(1), lambda: 0, numbered(2))]).values.values()
    assert (1.0, 2.0) == (back[0][0], back[2][0])


# Whose memory it is


def test_item_of_the_caller_is_not_written(engine):
    """A task that overwrites its item changes neither the caller's array nor another task's."""
    array = numbered(7)
    drive(engine, far.spoil, [array] * 10)
    assert 7.0 == array.min() == array.max()
    assert {7.0 * LONG} == set(drive(engine, far.total, [array] * 10).values.values())


def test_kept_item_is_the_tasks_for_good(engine):
    """A part of an item that a task keeps stays unchanged, however many items follow."""
    own = ProcessEngine(1)
    try:
        seen = drive(own, far.keep, [numbered(number) for number in range(20)])
    finally:
        own.close()
    assert {index: [float(number) for number in range(index + 1)] for index in range(20)} == seen.values


def test_middling_items_bypass_the_socket_and_are_copied_on_arrival(monkeypatch):
    """That takes a third of the time; and what a task keeps of them takes neither a block nor a descriptor, however many it keeps."""
    alone, send = [], Wire._send_alone
    monkeypatch.setattr(Wire, "_send_alone", lambda *args: alone.append(1) or send(*args))
    engine = ProcessEngine(1)
    try:
        seen = drive(engine, far.keep_whole, [numbered(number, 6_000) for number in range(100)])
    finally:
        engine.close()
    counts = [count for count, _ in seen.values.values()]
    assert [float(number) for number in range(100)] == seen.values[99][1]
    assert max(counts) <= counts[0] + 2 * QUEUED_FILES
    assert len(alone) >= 100


def test_long_pickles_of_items_bypass_the_socket(monkeypatch):
    """Alone or beside buffers: they would take longer there, and a message of a quarter of a GiB counts as garbage."""
    lengths, send = [], Wire.send
    monkeypatch.setattr(
        Wire, "send", lambda wire, message, *rest: lengths.append(len(message)) or send(wire, message, *rest)
    )
    engine = ProcessEngine(1)
    try:
        for item in ([0.5] * 10_000, [np.zeros(10_000), "x" * 100_000], [np.zeros(50_000), ["y"] * 50_000]):
            seen = drive(engine, give_back, [item] * 3)
            assert all(str(item) == str(value) for value in seen.values.values())
            assert len(seen.values) == 3
            assert max(lengths) < 10_000
    finally:
        engine.close()


def test_result_may_be_a_view_of_the_item(engine):
    """A result that is a view of the item is copied before the item's memory is reused."""
    seen = drive(engine, far.rows, [numbered(number) for number in range(30)])
    for number, (some, half) in seen.values.items():
        assert {float(number)} == set(some) == set(half)


def test_memory_of_many_results_goes_back_to_the_system(monkeypatch):
    """A worker keeps some free blocks for its next results; the memory of the others is freed once nothing uses them."""
    monkeypatch.setattr("parallelkit._executors._process._arrivals.SPARE_BYTES", 3_000_000)
    engine = ProcessEngine(1)
    try:
        before = shared_memory()
        for _ in range(2):
            values = drive(engine, far.make, range(20)).values
            assert {number: float(number) for number in range(20)} == {
                number: array.min() for number, array in values.items()
            }
            held = shared_memory() - before
            del values
            drive(engine, far.make, [0])
            assert held > 12_000_000
            assert shared_memory() - before < 6_000_000
    finally:
        engine.close()


def test_memory_that_the_system_does_not_take_back_is_kept():
    """Nothing fails where there is no such call, or it is not for this memory."""
    block = _buffers.Block(mmap(-1, 4096, flags=MAP_PRIVATE | MAP_ANONYMOUS))
    block.mapping[:1] = b"x"
    block.empty()
    assert b"x" == block.mapping[:1]


def shared_memory():
    """Bytes of shared memory that this process has mapped."""
    lines = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    return int(lines["RssShmem"].split()[0]) * 1024


def test_worker_lets_go_of_a_value_once_it_is_sent(engine):
    """A value does not take memory in its worker while the next task runs, or none."""
    values = drive(engine, far.count_earlier, range(6)).values.values()
    assert [0.0] * 6 == [value[0] for value in values]


@pytest.mark.all
def test_results_that_are_kept_stay_as_they_are(engine):
    """Many more results than there are blocks can be kept, unchanged, and without a descriptor each."""
    before = descriptors()
    seen = drive(engine, far.make, range(300))
    assert all(number == array.min() == array.max() for number, array in seen.values.items())
    assert descriptors() - before < 150


def test_more_leases_than_allowed_are_copied_out(engine, monkeypatch):
    """Beyond the allowed number of leases, a value is copied into memory of its own."""
    monkeypatch.setattr(_blocks, "MOST_LEASES", 2)
    gc.collect()
    before = len(_leases.in_use())
    seen = drive(engine, far.make, range(40))
    assert len(_leases.in_use()) <= max(before, 3)
    assert all(number == array.min() == array.max() for number, array in seen.values.items())


@pytest.mark.all
def test_results_get_a_share_of_the_descriptors(engine):
    """However many results are kept or unread, they take an eighth of the descriptors that a process may have, here and in workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        arrays = []
        for _ in range(3):
            arrays += run_parallel(far.make, range(20), executor="processes", max_workers=1).values()
        kept = len(_leases.in_use())
        with opened(engine, far.make) as port:
            drive_port(port, list(range(20)))  # now several are handed over at once
            unread = start_unread(engine, port)
            blocks = [len(worker.wire.arrivals._blocks) for worker in workers_of(engine)]
            read_rest(port, unread)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kept <= 1 + 128 // 8
    assert sum(blocks) <= 128 // 8
    assert all(array.min() == array.max() for array in arrays)


def test_results_wait_unread_without_harm(engine):
    """Values stay correct if the caller takes them late."""
    with opened(engine, far.make) as port:
        drive_port(port, list(range(20)))  # now several are handed over at once
        seen = read_rest(port, start_unread(engine, port))
    assert all(number == array.min() == array.max() for number, array in seen.items())


def start_unread(engine, port):
    """Have as many tasks run as there is room for, and their results wait; return how many."""
    count = min(port.room(), 200)
    port.start([(number, 1, number, None) for number in range(count)])
    while engine._supervisor.ask(lambda: port._lane.waiting() + sum(w.pending for w in workers_of(engine))):
        pass
    return count


def read_rest(port, count):
    seen = {}
    while len(seen) < count:
        for block in wait(port):
            seen.update(zip(block.indices, block.values, strict=True))
    return seen


def workers_of(engine):
    return engine._supervisor.pool.workers


def test_blocks_are_used_again(engine, monkeypatch):
    """If neither side keeps anything, a stream of arrays needs few blocks."""
    made = []

    def count_block(buffers, spans, size):
        made.append(size)
        return _buffers.new_block(buffers, spans, size)

    monkeypatch.setattr(_blocks, "new_block", count_block)
    with opened(engine, far.total) as port:
        seen = drive_port(port, [numbered(number) for number in range(200)])
    assert {number: number * float(LONG) for number in range(200)} == seen.values
    assert len(made) < 50


def test_free_blocks_do_not_pile_up(monkeypatch):
    """Except for a few spare ones, blocks of items are freed, by the workers, too."""
    monkeypatch.setattr(_blocks, "SPARE_BYTES", 1_000_000)
    own = ProcessEngine(1)
    try:
        drive(own, far.total, [numbered(number) for number in range(50)])
        for _ in range(2):  # with the first task, the worker is told of the last that were given up
            (mapped,) = drive(own, far.count_blocks, [0]).values.values()
        assert sum(block.size for block in own._supervisor.blocks._free) < 3_000_000
    finally:
        own.close()
    assert mapped < 5


def test_a_closed_pool_keeps_no_block():
    """What an executor that was closed had for items is given back, though somebody may still refer to it."""
    before = descriptors()
    pool = _blocks.BlockPool()
    free, used = [pool.put([memoryview(bytes(LONG))], b"") for _ in range(2)]
    del free
    pool.close()
    del used
    assert before == descriptors()


def test_a_handler_that_raises_as_a_block_gets_its_number_leaves_no_file(monkeypatch):
    """What a signal handler raises there comes out, and the block's descriptor is closed."""

    class Stop(Exception):
        pass

    before = descriptors()
    monkeypatch.setattr(Numbers, "draw", Mock(side_effect=Stop))
    with pytest.raises(Stop):
        _blocks.BlockPool().put([memoryview(bytes(LONG))], b"")
    assert before == descriptors()


@pytest.mark.parametrize("kind", [_blocks.ItemBlock, _blocks.Buffered, File])
def test_what_a_handler_that_raises_keeps_from_being_made_prints_nothing(kind, monkeypatch):
    """A signal handler may raise at the beginning of ``__init__``; Python drops the object then."""
    printed = []
    monkeypatch.setattr("sys.unraisablehook", lambda trouble: printed.append(trouble.exc_type))
    kind.__new__(kind)
    assert not printed


def test_sizes_may_vary(engine):
    """A block that is too small is replaced by a larger one."""
    lengths = [random.Random(1).randrange(1, 400_000) for _ in range(60)]
    seen = drive(engine, far.double, [numbered(length, length) for length in lengths])
    for index, length in enumerate(lengths):
        assert (length, 2.0 * length) == (len(seen.values[index]), seen.values[index][-1])


# Death


def test_death_costs_its_own_task(engine):
    """Arrays that were queued behind a dead worker's task arrive correctly where they run then."""
    seen = drive(engine, partial(far.die_at, 13.0), [numbered(number) for number in range(40)])

    assert [13] == list(seen.failures)
    assert isinstance(seen.failures[13].error, WorkerDied)
    assert {number: float(number) for number in range(40) if number != 13} == seen.values


def test_values_outlive_their_worker():
    """Values stay valid after their worker, and the engine, have ended."""
    engine = ProcessEngine(1)
    try:
        seen = drive(engine, far.make, range(5))
    finally:
        engine.close()
    assert all(number == array.min() == array.max() for number, array in seen.values.items())


# Blocks


def test_lease_ends_with_the_last_user():
    """A block is in use as long as any array or slice refers to its mapping."""
    apart = _buffers.Apart()
    blob = _buffers.pack_apart(numbered(1), apart, Editions())
    buffers = apart.take()
    spans, size = _buffers.layout(buffers)
    fd, size = _buffers.new_block(buffers, spans, size)
    block = _buffers.Block(_channel.map_file(fd, size))
    os.close(fd)
    del buffers

    assert block.is_at_rest()
    array = _buffers.unpack(blob, _buffers.buffers_in(block.mapping, spans))
    assert not block.is_at_rest()
    part = array[5:7]
    del array
    assert not block.is_at_rest()
    assert [1.0, 1.0] == part.tolist()
    del part
    assert block.is_at_rest()


def test_a_free_block_that_is_too_small_is_replaced():
    """Where no more blocks are allowed, a value that is larger than those before still travels in a block."""
    sent, ring = [], SimpleNamespace(leases=bytearray(1))
    blocks = _buffers.OutBlocks(ring, SimpleNamespace(send=lambda frame, fd: sent.append(frame)), limit=1)
    for value in (bytes(LONG), bytes(100 * LONG)):
        buffers = [memoryview(value)]
        assert 0 == blocks.put(buffers, *_buffers.layout(buffers))
        ring.leases[0] = _channel.FREE

    assert 2 == len(sent)


def test_a_block_that_cannot_be_received_is_not_taken_for_the_one_before():
    """If there is no descriptor for a block that replaces another, its value is an error, and not what the other holds."""
    fd, size = _buffers.new_block([memoryview(bytes(LONG))], [(0, LONG)], LONG)
    inbox = SimpleNamespace(take_fd=Mock(side_effect=[fd, lack := OSError(errno.EMFILE, "none is left")]))
    arrivals = Arrivals(inbox, memoryview(bytearray(1)))
    for _ in range(2):
        arrivals.accept(_channel.BLOCK, _channel.WORD.pack(0), size, most=1)

    assert [lack] == arrivals.take(0, bytes([_channel.BUFFERED]), memoryview(array("q", [0])))


def test_medium_buffers_are_not_searched():
    """To see what a pickle refers to, all of it is searched but the buffers of medium size that stay in it."""
    fixed = np.arange(2_000.0)
    fixed.flags.writeable = False
    apart = _buffers.Apart()
    blob = pickle.dumps(
        ["before", np.arange(1_000.0), fixed, np.arange(3.0), np.ones(5_000), bytes(10), "after"],
        5,
        buffer_callback=apart,
    )
    bare = apart.bare(blob)
    assert len(blob) - len(bare) == sum(len(head) + length for head, length in apart.left)
    assert [8_000, 16_000, 40_000] == [length for _, length in apart.left]
    assert all(part in bare for part in (b"before", np.arange(3.0).tobytes(), b"after"))


def test_what_stands_beside_a_medium_buffer_is_found():
    """An object of the script's that comes after an array of medium size arrives, and comes back from a task."""
    own = type("Own", (), {"__module__": "__main__"})
    array, thing = run_parallel(lambda item: item, [(np.ones(5_000), own())], executor="processes")[0]
    assert (5_000, own) == (array.sum(), type(thing))


def test_layout_aligns_and_does_not_overlap():
    """Each buffer begins at a multiple of 64, after the previous one."""
    buffers = [memoryview(bytes(length)) for length in (1, 64, 65, 1000)]
    spans, end = _buffers.layout(buffers)
    assert [(0, 1), (64, 64), (128, 65), (256, 1000)] == spans
    assert end == 1280
    assert _channel.LARGE >= 1 << 16
