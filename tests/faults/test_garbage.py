"""Garbage from a worker ends that worker: never a hang, a crash, unbounded memory, or harm to another task."""

import errno
import os
import resource
import socket
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pickle import PickleBuffer, loads
from unittest import mock

import pytest
import remote_tasks as far
import sabotage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import rarely
from port_driver import Seen, drive

from parallelkit import TaskTimeout, WorkerDied
from parallelkit._executors._contract import Job
from parallelkit._executors._process import _handle, _killable
from parallelkit._executors._process._decode import Decoding
from parallelkit._executors._process._endings import settle
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Batch, Lane, Span, Why
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._spawn import Spawned
from parallelkit._executors._process._wire import READS
from parallelkit._executors._processes import ProcessEngine
from parallelkit._worker import _channel
from parallelkit._worker._channel import WORD, GarbageError, frame, rights
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._slots import Slots

WITHIN = 20.0  # seconds; generous, for busy machines


def in_time(*deeds, timeout=None, count=20):
    """Drive a run in which one task does these deeds; it must end in time, with an outcome for every task."""
    engine = ProcessEngine(2)
    began = time.monotonic()
    try:
        seen = drive(engine, partial(far.on, {sabotage.BAD: (sabotage.do_all, deeds)}), range(count), timeout)
    finally:
        engine.close()
    assert time.monotonic() - began < WITHIN
    assert count == len(seen)
    return seen


def mostly_rare(names, *often):
    """Parameters of a test: ``often`` in every test run, the rest only in ``make test-all``."""
    return [*often, *rarely(*[name for name in names if name not in often])]


def others_are_well(seen: Seen, count=20):
    """Assert that every task but the bad one has its value; the bad one may have a value or have died or timed out."""
    assert all(isinstance(ended.error, (WorkerDied, TaskTimeout)) for ended in seen.failures.values()), seen
    wrong = {index: ended.error for index, ended in seen.failures.items() if index != sabotage.BAD}
    assert {} == wrong
    assert {index: index for index in range(count) if index != sabotage.BAD}.items() <= seen.values.items()


# In a real worker


OVERWRITES = [
    (column, pattern)
    for column in sabotage.COLUMNS
    for pattern in sabotage.PATTERNS
    if (column, pattern) != ("everything", "noise")
]


@pytest.mark.parametrize(
    ("column", "pattern"),
    [
        ("everything", "noise"),
        *[pytest.param(*which, marks=pytest.mark.all) for which in OVERWRITES],
    ],
)
@pytest.mark.parametrize("then", ["return", *rarely("leave", "hang")])
def test_task_that_overwrites_its_ring(column, pattern, then):
    """Whatever part of its ring a task overwrites, and whether it then returns, dies or hangs, the run ends and every task has an outcome."""
    more = {"return": [], "leave": [partial(os._exit, 3)], "hang": [sabotage.hang]}[then]
    seen = in_time(partial(sabotage.overwrite, column, pattern), *more, timeout=1.0)
    if then != "return":
        assert isinstance(seen.failures[sabotage.BAD].error, (WorkerDied, TaskTimeout))
    # Earlier results of its batch, if the parent has not read them yet, may be spoilt as well.
    assert all(
        isinstance(ended.error, (WorkerDied, TypeError, TaskTimeout)) for ended in seen.failures.values()
    )
    assert all(index == value for index, value in seen.values.items() if index >= sabotage.BAD)


WORDS = {
    "too much done": (_channel.HEAD, 1 << 40),
    "too many frames": (_channel.SENT, 1 << 40),
    "some frames too many": (_channel.SENT, 30_000),
    "a phase that there is not": (_channel.PHASE, 1 << 50),
    "no wake-up": (_channel.WAKE_AT, _channel.NEVER),
    "a wake-up for nothing": (_channel.WAKE_AT, 1 << 60),
    "no room": (_channel.TAIL, 12345),
    "a limit": (_channel.LIMIT, 0),
}


@pytest.mark.parametrize("what", mostly_rare(WORDS, "no wake-up"))
def test_task_that_overwrites_a_word_of_the_protocol(what, monkeypatch):
    """A task that overwrites a word of the protocol costs at most itself; a lost wake-up costs only time."""
    monkeypatch.setattr(_handle, "STANDSTILL", 0.5)
    others_are_well(in_time(partial(sabotage.set_word, *WORDS[what])))


@pytest.mark.all
@pytest.mark.parametrize("start", [sabotage.start_in_the_future, sabotage.start_never])
def test_task_that_hides_when_it_began_and_hangs(start, monkeypatch):
    """A hung task that falsifies its start time is still killed, for its start or for inactivity; the others are done."""
    monkeypatch.setattr(_handle, "STANDSTILL", 2.0)
    engine = ProcessEngine(2)
    try:
        with_timeout = partial(far.on, {sabotage.BAD: (sabotage.do_all, [start, sabotage.hang])})
        port = engine.open(Job(with_timeout))
        port.start([(index, 1, index, 2.0) for index in range(20)])
        seen, deadline = Seen(), time.monotonic() + WITHIN
        while len(seen) < 20 and time.monotonic() < deadline:
            seen.add(port.wait(deadline))
        assert isinstance(seen.failures[sabotage.BAD].error, WorkerDied)
        assert {index: index for index in range(20) if index != sabotage.BAD} == seen.values
        port.close()
    finally:
        engine.close()


FRAMES = {
    "noise": partial(sabotage.send_noise, 5000),
    "no such kind": partial(sabotage.send_frame, 200),
    "a kind that only the parent sends": partial(sabotage.send_frame, _channel.BATCH, b"x" * 50),
    "stopped, in one byte": partial(sabotage.send_frame, _channel.STOPPED, b"1"),
    "stopped, unasked": partial(sabotage.send_frame, _channel.STOPPED, b"1" * 8),
    "a record of nothing": partial(sabotage.send_frame, _channel.RECORD),
    "a kept block in no bytes": partial(sabotage.send_frame, _channel.KEPT),
    "a class that is too large": partial(sabotage.send_frame, _channel.CLASS, bytes(70_000)),
    "a block of no number": partial(sabotage.send_frame, _channel.BLOCK, b"", 10),
    "a block of a number too large": partial(sabotage.send_block, 999),
    "a block that did not come": partial(sabotage.send_frame, _channel.BLOCK, b"\0" * 8, 10),
    "a file that did not come": partial(sabotage.send_frame, _channel.BIG_RESULT, b"\0" * 8, 10),
    "a file that is empty": partial(sabotage.send_file, 10),
    "a file of the system": partial(sabotage.send_file, 10, "/proc/self/status"),
    "a folder": partial(sabotage.send_file, 10, "/"),
    "a pipe": sabotage.send_pipe,
    "a hole": sabotage.send_hole,
    "a file that is cut off later": sabotage.send_and_shorten,
    "files without results": sabotage.send_many_files,
    "descriptors without frames": sabotage.send_many_descriptors,
    "half a frame": sabotage.send_half_a_frame,
    "an endless frame": sabotage.send_endless_frame,
    "an end": sabotage.shut_down,
}


@pytest.mark.parametrize("what", mostly_rare(FRAMES, "a hole"))
def test_task_that_writes_to_its_socket(what):
    """Garbage on the socket costs at most its own task; memory stays bounded, and no descriptor is left."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    others_are_well(in_time(FRAMES[what], timeout=3.0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800 << 10


@pytest.mark.all
@pytest.mark.parametrize("kind", [_channel.WAKE, _channel.RECORD, _channel.KEPT])
def test_task_that_floods_its_socket(kind, monkeypatch):
    """While a task floods its socket, its own timeout and that of another task are still enforced."""
    monkeypatch.setattr("logging.raiseExceptions", False)
    table = {0: (sabotage.do_all, [partial(sabotage.flood, kind)]), 1: (time.sleep, 1000)}
    engine = ProcessEngine(2)
    try:
        began = time.monotonic()
        seen = drive(engine, partial(far.on, table), range(2), timeout=1.0)
        took = time.monotonic() - began
    finally:
        engine.close()
    assert {"TaskTimeout"} == {type(ended.error).__name__ for ended in seen.failures.values()}
    assert took < 10.0


@pytest.mark.all
def test_task_that_truncates_its_ring():
    """A task cannot shorten its ring's file, which is sealed, so reading it kills nobody."""
    others_are_well(in_time(sabotage.truncate_ring))


@pytest.mark.all
def test_task_that_swallows_what_is_sent_to_its_worker(tmp_path, monkeypatch):
    """Tasks whose messages another task has swallowed run on a new worker."""
    monkeypatch.setattr(_handle, "STANDSTILL", 0.5)
    engine = ProcessEngine(1)
    try:
        items = range(200)
        seen = drive(engine, partial(far.on, {150: (sabotage.do_all, [sabotage.swallow])}), items)
    finally:
        engine.close()
    assert [] == [index for index in items if index not in seen.values]


# The readers, alone


class Stand(Worker):
    """The parent's side of a worker that consists only of a socket and a ring in this process; ``kill`` kills nothing."""

    def __init__(self, born, reserve):
        super().__init__(born, b"", None, reserve, time.monotonic())
        self.ready = True
        self.wire.ring.head[_channel.PHASE] = _channel.WAITING

    def kill(self, why=Why.ITSELF):
        with mock.patch.object(_killable, "kill"):
            super().kill(why)


@contextmanager
def stand():
    """A ``Stand``, with the far end of its socket and its ring."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    fd = _channel.new_file("test-ring")
    os.ftruncate(fd, _channel.SIZE)
    ring, far_ring = _channel.Ring(fd), _channel.Ring(fd)
    os.close(fd)
    ring.head[_channel.LIMIT] = _channel.UNLIMITED
    ring.head[_channel.MARK] = _channel.MARKED
    born = Spawned(1, -1, ours, ring, -1)
    reserve = Reserve(theirs.fileno())
    with mock.patch.object(_handle, "ask"):
        worker = Stand(born, reserve)
        try:
            yield worker, theirs, far_ring
        finally:
            worker.wire.close()
            reserve.close()
            theirs.close()
            far_ring.close()


def test_who_was_asked_for_its_stack_is_killed_even_if_its_function_has_just_loaded():
    """No commit of it counts any more, so a run would wait for ever for an attempt without a timeout."""
    with stand() as (worker, _, ring):
        worker.taught.lanes[1] = 0
        now = ring.starts[0] = time.monotonic()
        worker.give(Batch(Lane(1, b"", False), [(0, 1, 0, None)], None), now)
        ring.head[_channel.PHASE] = _channel.LOADING_IN_TASK
        late = now + _handle.LOAD_LIMIT
        worker.watch(late)
        worker.watch(late + 1)
        ring.head[_channel.PHASE] = _channel.WAITING
        worker.watch(late + 2)
        assert (True, Why.UNLOADED) == (worker.killed, worker.why)


@contextmanager
def three_given():
    """A ``Stand`` that was given three attempts, with its far side."""
    with stand() as (worker, line, ring):
        worker.taught.lanes[1] = 0
        tickets = [(index, 1, index, None) for index in range(3)]
        worker.give(Batch(Lane(1, b"", False), tickets, None), time.monotonic())
        yield worker, Far(line, ring)


def test_who_is_held_again_when_its_attempts_were_taken_back_has_still_to_stop():
    """It comes to the limit with what it was sent before, and says that it stopped; unexpected, that would be garbage."""
    with three_given() as (worker, far):
        worker.hold(0.0)
        worker.take_back()
        worker.hold(0.0)
        far.commit(1, None)
        worker.drain()
        assert (0, 1) == (worker.pending, worker.held)


def test_what_was_committed_before_the_worker_stopped_is_not_put_back():
    """The stop may be read before the commits are: what is put back then would run twice."""
    with three_given() as (worker, far):
        worker.hold(0.0)
        worker.doomed = True  # so no commit is taken
        far.commit(1, None)
        far.send(_channel.STOPPED, WORD.pack(1), 0, "-")
        worker.drain(READS)
        assert (3, 1) == (worker.pending, worker.held)


def test_an_attempt_whose_result_makes_no_sense_has_begun():
    """It ran, and may not run again unasked: not even if the times in the ring are as they should be."""
    with three_given() as (worker, far):
        far.commit(2, "a text")
        far.ring.heap[:99] = bytes(99)
        with pytest.raises(GarbageError):
            worker.drain()
        worker.condemn()
        assert far.ring.starts[0] == worker.blamed_since(time.monotonic())


def taken_before_a_result_that_did_not_come(worker, far):
    """Have the second of two results claim a file that was not sent; return what is taken: the first, and the second has the blame."""
    (lane,) = {batch.lane for batch in worker.batches}
    far.ring.kinds[1] = _channel.BIG_VALUE
    with pytest.raises(GarbageError, match="did not come"):
        worker.drain()
    worker.condemn()
    settle(worker, None, time.monotonic())
    span, lost = lane.events
    assert ([0], [1]) == tuple([ticket[0] for ticket in event.batch.tickets] for event in (span, lost))
    return span


def test_a_large_result_before_one_that_did_not_come_is_not_lost():
    """Its file is still there when what was committed before the garbage is taken; and not its attempt is to blame, but the next."""
    with three_given() as (worker, far):
        far.commit(1, large := list(range(600_000)))
        far.commit(1, "a text")
        span = taken_before_a_result_that_did_not_come(worker, far)
        assert [_channel.BIG_VALUE] == list(span.columns.kinds)
        assert [large] == [loads(file) for file in span.columns.files]


def test_a_buffer_that_could_not_be_mapped_is_not_lost_either(monkeypatch):
    """It is read at once as it comes, and is still there when what was committed before the garbage is taken."""

    def map_none(*args, at_once=False, **kwargs):
        if not at_once:  # as the worker maps its own
            raise OSError(errno.EMFILE, "Too many open files")
        return map_file(*args, at_once=at_once, **kwargs)

    with three_given() as (worker, far):
        map_file = _channel.map_file
        monkeypatch.setattr(_channel, "map_file", map_none)
        far.commit(1, PickleBuffer(large := b"x" * _channel.LARGE))
        far.commit(1, "a text")
        span = taken_before_a_result_that_did_not_come(worker, far)
        (block,) = Decoding(span, str).finish()
        assert [large] == [bytes(value) for value in block.values]
        assert {} == worker.wire.arrivals._single


def test_a_worker_that_loads_a_function_does_not_stand_still():
    """An import may take longer than a worker may do nothing."""
    with three_given() as (worker, far):
        far.ring.head[_channel.PHASE] = _channel.LOADING + 1
        worker.watch(time.monotonic() + _handle.STANDSTILL + 1)
        assert not worker.killed


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda ring: ring.head.__setitem__(_channel.PHASE, _channel.STARTING),
        lambda ring: ring.map.__setitem__(slice(_channel.SIZE), bytes(_channel.SIZE)),  # its start, too
    ],
)
def test_attempt_that_has_begun_is_not_moved_though_its_worker_says_that_it_loads(overwrite):
    """Else a task that overwrites this word would be given to one worker after another, and break the engine."""
    with stand() as (worker, _, ring):
        now = ring.starts[0] = time.monotonic()
        worker.give(Batch(Lane(1, b"", False), [(0, 1, 0, None), (1, 1, 1, None)], None), now)
        overwrite(ring)
        worker.hold(now)
        assert [[(1, 1, 1, None)]] == [batch.tickets for batch in worker.take_back()]
        assert not worker.is_loading()


CELL = st.integers(0, 40)
COUNTS = st.integers(0, 12)
NUMBERS = st.one_of(COUNTS, st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 31, 1 << 32, 1 << 63]))
INSTANTS = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, 1e300, float("nan"), float("inf")]))
KINDS = st.one_of(st.integers(15, 25), st.integers(0, 255))
ACTS = st.one_of(
    st.tuples(st.just("word"), st.sampled_from([0, 1, 2, 8, 16, 24, 25]), NUMBERS),
    st.tuples(st.just("start"), CELL, INSTANTS),
    st.tuples(st.just("end"), CELL, INSTANTS),
    st.tuples(st.just("cell"), CELL, st.integers(-(1 << 63), (1 << 63) - 1)),
    st.tuples(st.just("kind"), CELL, st.integers(0, 255)),
    st.tuples(st.just("heap"), st.integers(0, 5000), st.binary(min_size=1, max_size=60)),
    st.tuples(st.just("lease"), st.integers(0, 255), st.integers(0, 255)),
    st.tuples(st.just("bytes"), st.binary(max_size=80), st.none()),
    st.tuples(st.just("frame"), KINDS, st.tuples(st.binary(max_size=20), NUMBERS, st.sampled_from("-fp0hs"))),
    st.tuples(
        st.just("commit"),
        st.integers(1, 4),
        st.sampled_from([None, 1, 0.5, "text", {"key": 1}, "x" * 400_000, b"y" * 300_000]),
    ),
    st.tuples(st.just("drain"), st.integers(0, READS), st.none()),
    st.tuples(st.just("watch"), st.sampled_from([0.0, 100.0]), st.none()),
    st.tuples(st.just("hold"), st.none(), st.none()),
)


class Far:
    """A worker gone mad: it commits results as it should, and also does whatever it is told."""

    def __init__(self, line, ring):
        self.line, self.ring = line, ring
        self.slots = Slots(ring, Outbox(line, ring), 4)

    def act(self, what, at, value):
        ring = self.ring
        if what == "word":
            ring.head[at] = value
        elif what in ("start", "end"):
            (ring.starts if what == "start" else ring.ends)[at] = value
        elif what == "cell":
            ring.words[at] = value
        elif what == "kind":
            ring.kinds[at] = value
        elif what == "heap":
            ring.heap[at : at + len(value)] = value
        elif what == "lease":
            ring.leases[at] = value
        elif what == "bytes":
            self.line.send(at)
        elif what == "frame":
            self.send(at, *value)
        else:
            self.commit(at, value)

    def send(self, kind, body, length, file):
        fd = open_file(file)
        try:
            self.line.sendmsg([frame(kind, body, file_length=length)], rights(fd) if fd is not None else [])
        finally:
            if fd is not None:
                os.close(fd)

    def commit(self, count, value):
        ring = self.ring
        for _ in range(count):
            number = ring.head[_channel.HEAD]
            slot = number & _channel.MASK
            ring.starts[slot] = time.monotonic()
            put = self.slots.puts.get(type(value), self.slots.put_object)
            if value is None:
                ring.kinds[slot] = _channel.NONE
            else:
                put(slot, value)
            ring.ends[slot] = time.monotonic()
            ring.head[_channel.HEAD] = min(number + 1, (1 << 64) - 1)


def open_file(which):
    """Open nothing, a whole file, a pipe, an empty file, a sparse file, or a file of the system."""
    if which == "-":
        return None
    if which == "p":
        read, write = os.pipe()
        os.close(write)
        return read
    if which == "s":
        return os.open("/proc/self/status", os.O_RDONLY)
    fd = _channel.new_file("test")
    if which == "h":
        os.ftruncate(fd, 1 << 40)
    elif which == "f":
        os.write(fd, b"x" * 5000)
    return fd


SEVERAL = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def play(acts):
    """Let the parent's side read what such a worker does; return how often each index was reported."""
    lane = Lane(1, b"", exact=len(acts) % 2 == 0)
    reported = Counter()
    with stand() as (worker, line, ring):
        mad = Far(line, ring)
        worker.taught.lanes[1] = 0
        worker.give(Batch(lane, [(index, 1, index, 5.0) for index in range(12)], None), time.monotonic())
        for act in [*acts, ("drain", READS, None)]:
            try:
                one_act(worker, mad, act)
            except GarbageError:
                worker.condemn()
            worker.wire.arrivals.release_blocks()
            reported.update(outcomes_of(lane))
            if worker.killed:
                break
        assert worker.blamed_since(time.monotonic()) is None or worker.batches
    return reported


def one_act(worker, mad, act):
    what, at, value = act
    if what == "drain":
        worker.drain(at)
    elif what == "watch":
        worker.watch(time.monotonic() + at)
    elif what == "hold":
        worker.hold(time.monotonic())
    else:
        try:
            mad.act(what, at, value)
        except BlockingIOError:
            pass  # the socket is full
        except (ValueError, OSError, IndexError):
            pass  # nonsense that is refused where it would be written


def outcomes_of(lane):
    while lane.events:
        event = lane.events.popleft()
        if isinstance(event, Span):
            for entry in Decoding(event, str).finish():
                yield from entry.indices if hasattr(entry, "indices") else [entry.index]


@settings(SEVERAL, max_examples=150)
@given(acts=st.lists(ACTS, max_size=12))
def test_readers_stand_whatever_they_are_given(acts):
    """The readers raise nothing but GarbageError, and report every attempt at most once."""
    assert {*play(acts).values()} <= {1}


@pytest.mark.all
@settings(SEVERAL, max_examples=2_000)
@given(acts=st.lists(ACTS, max_size=25))
def test_readers_stand_whatever_they_are_given_at_length(acts):
    """The same holds for longer and more sequences."""
    assert {*play(acts).values()} <= {1}


@settings(SEVERAL, max_examples=200)
@given(stream=st.binary(max_size=300), step=st.integers(1, 70))
def test_frame_reader_takes_any_stream(stream, step):
    """However a stream of bytes is cut, the frame reader gives whole frames or GarbageError, and never more bytes than came."""
    inbox = _channel.Inbox(Dripping(stream, step))
    taken = 0
    try:
        while inbox.receive():
            while (one := inbox.take()) is not None:
                taken += _channel.HEADER.size + len(one[1])
    except GarbageError:
        return
    assert taken <= len(stream)


class Dripping:
    """A socket that gives a few bytes at a time."""

    def __init__(self, stream, step):
        self.stream, self.step = stream, step

    def recvmsg(self, *_):
        piece, self.stream = self.stream[: self.step], self.stream[self.step :]
        return piece, [], 0, None
