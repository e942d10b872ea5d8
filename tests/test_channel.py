import errno
import fcntl
import os
import signal
import socket
from collections import deque
from contextlib import contextmanager
from math import inf
from pickle import PickleBuffer, loads
from threading import Thread
from time import monotonic
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit._executors._process._actor import WakeUp
from parallelkit._executors._process._decode import Decoding
from parallelkit._executors._process._lane import Batch, Span
from parallelkit._executors._process._payload import File
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._wire import READS, Wire
from parallelkit._worker import _channel
from parallelkit._worker._channel import HEAP, GarbageError, Inbox, Ring, frame, place
from parallelkit._worker._outbox import LONG, Outbox
from parallelkit._worker._slots import Slots


@pytest.fixture
def broken_pipes():
    """The SIGPIPE signals that came."""
    came = []
    before = signal.signal(signal.SIGPIPE, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def ring():
    fd = _channel.new_file("test-ring")
    os.ftruncate(fd, _channel.SIZE)
    ring = Ring(fd)
    os.close(fd)
    yield ring
    ring.close()


@given(st.lists(st.one_of(st.integers(1, _channel.LARGE), st.none()), max_size=60))
def test_heap_never_overwrites_what_is_unread(steps):
    """Pieces in the heap stay inside it and never overlap unread ones, in any order of writing and reading."""
    tail = head = 0
    unread = deque()
    for length in steps:
        if length is None:
            if unread:
                _start, end = unread.popleft()
                tail = end
            continue
        at = place(length, tail, head)
        if at < 0:
            assert sum(end - start for start, end in unread) + 2 * length > HEAP - _channel.LARGE
            continue
        assert 0 <= at <= at + length <= HEAP
        assert all(at + length <= start or end <= at for start, end in unread)
        unread.append((at, at + length))
        head = at + length
    assert not unread or head == unread[-1][1]


def test_a_heap_that_is_full_does_not_look_empty():
    """A piece fits if the next would not begin where the unread ones do."""
    assert (20, -1) == (place(9, 30, 20), place(10, 30, 20))
    assert (HEAP - 10, -1) == (place(10, 5, HEAP - 10), place(10, 0, HEAP - 10))
    assert (0, -1) == (place(99, 100, HEAP - 10), place(100, 100, HEAP - 10))


@pytest.mark.parametrize("value", [("y" * 300,), {"y": "y" * 300}], ids=["tuple", "dict"])
def test_a_value_overwrites_nothing_unread(ring, value):
    """Where the heap has begun again and the parent is slow, a value that would reach what is unread goes into a file."""
    slots = Slots(ring, SimpleNamespace(send=lambda *_: None), blocks=1)
    slots._heap_head, ring.head[_channel.TAIL] = HEAP - 10, 500
    slots.put_object(0, ("x" * 300,))
    slots.dicts.fit = slots.dicts.looked = True  # as after another small dict
    slots.puts.get(type(value), slots.put_object)(1, value)
    assert [_channel.VALUE, _channel.BIG_VALUE] == list(ring.kinds[:2])
    assert not any(ring.heap[400:1000])


def test_empty_heap_takes_the_largest_piece():
    """An empty heap takes a piece of the maximum size, wherever the last one ended."""
    for head in range(0, HEAP + 1, 4099):
        assert place(_channel.LARGE, head, head) >= 0


@given(st.lists(st.tuples(st.integers(1, 30), st.binary(max_size=300)), max_size=20), st.integers(1, 50))
def test_frames_come_out_as_they_went_in(frames, step):
    """Frames come out as they went in, however the stream is cut."""
    stream = b"".join(frame(kind, body) for kind, body in frames)
    inbox = Inbox(Dripping(stream, step))
    taken = []
    while inbox.receive():
        while (one := inbox.take()) is not None:
            taken.append(one[:2])
    assert frames == taken


class Dripping:
    """A socket that gives a few bytes at a time."""

    def __init__(self, stream, step):
        self.stream = stream
        self.step = step

    def recvmsg(self, *_):
        piece, self.stream = self.stream[: self.step], self.stream[self.step :]
        return piece, [], 0, None


def test_descriptors_come_with_their_frames(pair):
    """Descriptors come with their frames, in order, and are closed on exec."""
    ours, theirs = pair
    files = [_channel.new_file(f"test-{number}") for number in range(3)]
    for number, fd in enumerate(files):
        os.write(fd, b"%d" % number)
        ours.sendmsg([frame(_channel.BIG_RESULT, b"%d" % number, file_length=1)], _channel.rights(fd))
        os.close(fd)
    inbox = Inbox(theirs)
    for number in range(3):
        while (taken := inbox.take()) is None:
            inbox.receive()
        fd = inbox.take_fd()
        assert (_channel.BIG_RESULT, b"%d" % number, 1) == taken
        assert not os.get_inheritable(fd)
        assert b"%d" % number == os.pread(fd, 10, 0)
        os.close(fd)


def test_descriptors_that_nobody_takes_are_closed(pair):
    """Descriptors that come with a frame and are not taken are closed."""
    ours, theirs = pair
    fd = _channel.new_file("test")
    ours.sendmsg([b"x"], _channel.rights(fd))
    os.close(fd)
    inbox = Inbox(theirs)
    inbox.receive()
    (came,) = inbox.fds
    os.fstat(came)  # it is open
    inbox.close()
    assert not inbox.fds
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(came)


def test_frame_that_cannot_be_is_garbage(pair):
    """A frame of an impossible length, or without its descriptor, is garbage."""
    ours, theirs = pair
    ours.send(b"\xff" * 20)
    inbox = Inbox(theirs)
    inbox.receive()
    with pytest.raises(GarbageError):
        inbox.take()
    with pytest.raises(GarbageError):
        inbox.take_fd()


def test_descriptor_without_room_is_told(pair, full_table):
    """If there is no room for a descriptor, the system drops it: its frame comes and says so, and later frames have theirs."""
    ours, theirs = pair
    inbox = Inbox(theirs)
    with full_table:
        ours.sendmsg([frame(7, b"first", file_length=1)], _channel.rights(0))
        inbox.receive()
    ours.sendmsg([frame(7, b"second", file_length=1)], _channel.rights(0))
    inbox.receive()

    assert (7, b"first", 1) == inbox.take()
    with pytest.raises(OSError, match="Too many open files"):
        inbox.take_fd()
    assert (7, b"second", 1) == inbox.take()
    os.close(inbox.take_fd())
    assert 2 == inbox.came


def test_columns_of_the_ring_do_not_overlap(ring):
    """The cells of the ring do not overlap, except that a number has one cell with two names."""
    ring.starts[0] = ring.starts[_channel.MASK] = 1.5
    ring.ends[0] = ring.ends[_channel.MASK] = 2.5
    ring.words[0] = ring.words[_channel.MASK] = -7
    ring.kinds[0] = ring.kinds[_channel.MASK] = 9
    ring.heap[0] = ring.heap[HEAP - 1] = 255
    ring.head[0] = ring.head[_channel.TAIL] = 1 << 63

    assert [1.5, 2.5, -7, 9, 255] == [
        column[at]
        for column, at in zip(
            (ring.starts, ring.ends, ring.words, ring.kinds, ring.heap), (0,) * 5, strict=True
        )
    ]
    ring.floats[0] = 0.25
    assert ring.words[0] != -7


def test_new_ring_says_that_its_worker_starts(ring):
    """A new ring, which is all zeros, means that its worker is starting."""
    assert _channel.STARTING == ring.head[_channel.PHASE]
    assert 0 == ring.head[_channel.HEAD] == ring.head[_channel.SENT]


# What a turn has for a worker


@pytest.fixture
def wire_and_far(pair, ring):
    """The parent's end of a channel, and the socket of the other end."""
    ours, far = pair
    ours.setblocking(False)
    wake_up = WakeUp()
    reserve = Reserve(wake_up.fd)
    wire = Wire(ours, ring, reserve)
    yield wire, far
    wire.arrivals.close()
    reserve.close()
    wake_up.close()


def received(far, count, wire, files=None):
    """Read frames as the worker does, while the parent writes on; return them. What files have goes to ``files``."""
    inbox, found = _channel.Inbox(far), []
    while len(found) < count:
        while (taken := inbox.take()) is not None:
            found.append(taken)
            if taken[2]:
                fd = inbox.take_fd()
                if files is not None:
                    files.append(os.pread(fd, taken[2], 0))
                os.close(fd)
        wire.flush()
        if len(found) < count:
            inbox.receive()
    assert not inbox.fds
    return found


def test_what_is_sent_waits_for_the_flush(wire_and_far):
    """Messages are sent together at the flush, because each write may wake the worker."""
    wire, far = wire_and_far
    wire.send(_channel.frame(_channel.FORGET, b"one"))
    wire.send(_channel.frame(_channel.BATCH, b"two"))
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    wire.flush()
    assert len(far.recv(1000)) == 2 * (_channel.HEADER.size + 3)
    assert not wire.is_full


def test_a_message_to_a_worker_that_is_gone_is_no_signal_to_the_program(wire_and_far, broken_pipes):
    """Writing to a dead worker raises no SIGPIPE, which would end a script that has its default action."""
    wire, far = wire_and_far
    far.close()
    wire.send(_channel.frame(_channel.FORGET, b"one"))
    wire.flush()
    assert not wire.is_full
    assert not broken_pipes


def test_frames_and_files_come_in_order_however_little_the_socket_takes(wire_and_far):
    """Hundreds of frames, large and small, some with a file, arrive in order, although one write cannot take them all."""
    wire, far = wire_and_far
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent = []
    for number in range(300):
        body = bytes([number % 256]) * (number * 37 % 9000)
        file = None
        if number % 50 == 7:
            file = File(_channel.new_file("test"), 5)
            os.ftruncate(file.fd, 5)
        sent.append((_channel.BATCH, body, 5 if file else 0))
        wire.send(_channel.frame(_channel.BATCH, body, file_length=5 if file else 0), file)
    wire.flush()
    assert wire.is_full
    assert received(far, len(sent), wire) == sent
    assert not wire.is_full


class Refusing:
    """A socket that at first refuses messages, for lack of room in the system."""

    def __init__(self, line, errors):
        self.line, self.errors = line, errors

    def sendmsg(self, *message):
        if self.errors:
            raise OSError(self.errors.pop(), "refused")
        return self.line.sendmsg(*message)

    def __getattr__(self, name):
        return getattr(self.line, name)


def test_what_the_system_has_no_room_for_waits_for_the_next_flush(wire_and_far):
    """A message that the system has no room for waits for the next flush: the lack is temporary, and no fault of the worker."""
    wire, far = wire_and_far
    wire.socket = Refusing(wire.socket, [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
    frame = _channel.frame(_channel.FORGET, b"one")
    wire.send(frame)
    for _ in range(3):
        wire.flush()
        assert wire.again_at < inf
        assert not wire.is_full  # the socket would take it: to listen for that would be to spin
    wire.flush()
    assert frame == far.recv(1000)
    assert inf == wire.again_at


def test_a_lack_that_lasts_is_looked_at_ever_more_rarely(wire_and_far, monkeypatch):
    """A lasting lack is retried ever more rarely, a dozen times in a minute; the next one starts anew."""
    wire, _ = wire_and_far
    now, tries = [100.0], 0
    monkeypatch.setattr("parallelkit._executors._process._wire.monotonic", lambda: now[0])
    wire.socket = Refusing(wire.socket, [errno.ENOBUFS] * 100)
    wire.send(_channel.frame(_channel.FORGET, b"one"))
    while now[0] < 160:
        wire.flush()
        assert 0.01 <= wire.again_at - now[0] <= max(0.011, now[0] - 100)
        now[0], tries = wire.again_at, tries + 1
    assert tries < 20
    wire.socket.errors.clear()
    wire.flush()
    wire.socket.errors.append(errno.ENOBUFS)
    wire.send(_channel.frame(_channel.FORGET, b"two"))
    wire.flush()
    assert wire.again_at - now[0] < 0.011


def test_what_else_the_system_says_is_no_lack_of_room(wire_and_far):
    """Any other error, such as a descriptor that other code has closed, is not retried."""
    wire, _ = wire_and_far
    wire.socket = Refusing(wire.socket, [errno.EBADF])
    wire.send(_channel.frame(_channel.FORGET, b"one"))
    with pytest.raises(OSError, match="refused"):
        wire.flush()


def test_a_worker_tries_again_where_the_system_has_no_room(pair, ring):
    """A worker, too, retries if the system has no room; each message is sent and counted once."""
    near, far = pair
    outbox = Outbox(Refusing(near, [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM]), ring)
    fd = _channel.new_file("test")
    outbox.send(frame(_channel.BIG_RESULT, file_length=1), fd)
    outbox.send(frame(_channel.WAKE))
    os.close(fd)
    inbox = Inbox(far)
    inbox.receive()
    assert (_channel.BIG_RESULT, b"", 1) == inbox.take()
    os.close(inbox.take_fd())
    if (wake := inbox.take()) is None:
        inbox.receive()
        wake = inbox.take()
    assert (_channel.WAKE, b"", 0) == wake
    assert (2, 1) == (ring.head[_channel.SENT], ring.head[_channel.FDS])


def test_what_the_socket_takes_in_parts_is_sent_whole(pair, ring):
    """A send that a signal interrupts has sent a part; the rest follows, and the frame counts once."""
    near, far = pair
    parts = SimpleNamespace(sendmsg=lambda messages, rights: near.send(bytes(messages[0])[:7]))
    Outbox(parts, ring).send(message := frame(_channel.RECORD, bytes(range(30))))
    assert (message, 1) == (far.recv(100), ring.head[_channel.SENT])


@contextmanager
def struck(end, then):
    """As soon as something arrives at this end, have a signal's handler do this, and raise in who sent it."""

    def strike(*_):
        fcntl.fcntl(end, fcntl.F_SETFL, flags)
        then()
        raise RuntimeError("struck")

    flags = fcntl.fcntl(end, fcntl.F_GETFL)
    before = signal.signal(signal.SIGIO, strike)
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, fcntl.F_SETFL, flags | os.O_ASYNC)
    with pytest.raises(RuntimeError, match="struck"):
        yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["in one piece", "in parts"])
def test_a_frame_that_was_begun_is_ended_and_counted_though_a_signal_raises(pair, ring, size):
    """Half a frame would make no sense of what follows; and of frames not counted, the last before a commit might not be read."""
    near, far = pair
    message, came = frame(_channel.RECORD, bytes(size)), []
    reader = Thread(target=lambda: came.append(far.recv(len(message), socket.MSG_WAITALL)))
    with struck(far, reader.start):
        Outbox(near, ring).send(message)
    near.close()
    reader.join(30)
    assert ([message], 1) == (came, ring.head[_channel.SENT])


def test_a_signal_that_raises_just_after_a_lock_does_not_leave_the_file_locked(pair, ring, monkeypatch):
    """A child for which the task then waits could never log."""

    def lock(file, how):
        lockf(file, how)
        if strikes:
            raise strikes.pop()

    strikes, lockf = [RuntimeError("struck")], fcntl.lockf
    monkeypatch.setattr(fcntl, "lockf", lock)
    outbox = Outbox(pair[0], ring)
    outbox._file = file = _channel.new_file("test")
    with pytest.raises(RuntimeError, match="struck"):
        outbox.send(frame(_channel.RECORD, bytes(LONG)))
    pid = os.fork()
    if pid == 0:
        try:
            lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    os.close(file)
    assert status == 0


def test_what_a_signal_handler_logs_while_its_thread_sends_is_sent_next(pair, ring):
    """The handler of a task may log in the midst of a send: it does not wait for the lock, and the record does not wait for the next send."""
    near, far = pair

    class Interrupted:
        def sendmsg(self, messages, rights):
            if messages != [logged]:
                outbox.post(logged)
            return near.sendmsg(messages, rights)

    logged = frame(_channel.RECORD, b"logged")
    outbox = Outbox(Interrupted(), ring)
    outbox.send(frame(_channel.WAKE))
    assert frame(_channel.WAKE) + logged == far.recv(100)


def test_a_frame_that_was_sent_is_not_reported_as_unsent(pair, ring):
    """If what was posted meanwhile finds no room, that is not the sender's error: another would take the place of the result that it sent."""
    near, far = pair

    class Interrupted:
        def sendmsg(self, messages, rights):
            if messages == [logged] and refusals:
                raise refusals.pop()
            if messages != [logged] and refusals:
                outbox.post(logged)
            return near.sendmsg(messages, rights)

    refusals = [OSError(errno.EBADF, "refused")]
    logged = frame(_channel.RECORD, b"logged")
    outbox = Outbox(Interrupted(), ring)
    outbox.send(frame(_channel.WAKE))
    assert frame(_channel.WAKE) == far.recv(100)
    outbox.send(frame(_channel.WAKE))
    assert frame(_channel.WAKE) + logged == far.recv(100)


@pytest.mark.parametrize(("number", "patience"), [(errno.EBADF, 10.0), (errno.ENOBUFS, 0.0)])
def test_a_worker_does_not_try_for_ever(pair, ring, monkeypatch, number, patience):
    """A worker gives up after a while, and at once if retrying would be in vain."""
    monkeypatch.setattr("parallelkit._worker._outbox.PATIENCE", patience)
    refusing = Refusing(pair[0], [number] * 9)
    with pytest.raises(OSError, match="refused"):
        Outbox(refusing, ring).send(frame(_channel.WAKE))
    assert 8 == len(refusing.errors)
    assert 0 == ring.head[_channel.SENT]


def test_what_a_forked_child_sends_is_not_counted(wire_and_far, ring):
    """A task's child must not write the count, which its parent would overwrite. What it logs arrives all the same."""
    wire, far = wire_and_far
    outbox = Outbox(far, ring)
    outbox.send(frame(_channel.WAKE))
    pid = os.fork()
    if pid == 0:
        try:
            outbox.post(frame(_channel.RECORD_OF_CHILD, b"logged"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert not outbox.is_of_child()
    assert [b"", b"logged"] == [body for _, body, _ in wire.frames(READS)]
    assert 1 == ring.head[_channel.SENT]
    outbox.send(frame(_channel.WAKE))
    assert wire.has_frames


def test_a_turn_reads_what_was_promised_and_no_flood(wire_and_far, ring):
    """Frames that the worker counts are read at once; of those that it does not count, no more than so many reads bring."""
    wire, far = wire_and_far
    body = bytes(_channel.CHUNK - _channel.HEADER.size)
    for _ in range(3):
        far.sendall(frame(_channel.RECORD_OF_CHILD, body))
    assert [] == [*wire.frames(0)]
    assert 1 == len([*wire.frames(1)])
    Outbox(far, ring).send(frame(_channel.WAKE))
    kinds = [kind for kind, _, _ in wire.frames(0)]
    assert [_channel.RECORD_OF_CHILD] * 2 + [_channel.WAKE] == kinds


def test_huge_integers_are_sent_in_files(wire_and_far, monkeypatch):
    """Atoms are sent together, as many as take little time. A frame that is too long would end each worker that gets it."""
    wire, far = wire_and_far
    monkeypatch.setattr(_channel, "LONGEST", 400)
    items = [1, 1 << 2000, 2, 1 << 2001]
    wire.send_batch(
        Batch(SimpleNamespace(number=3), [(n, 1, item, None) for n, item in enumerate(items)], None)
    )
    wire.flush()
    frames = received(far, 4, wire, files := [])
    heads = [_channel.BATCH_HEAD.unpack_from(body) for _, body, _ in frames]
    assert [(3, 1, _channel.TOGETHER), (3, 1, _channel.ONE_BY_ONE)] * 2 == heads
    assert [[1], [2]] == [loads(frames[n][1][_channel.BATCH_HEAD.size :]) for n in (0, 2)]
    assert [1 << 2000, 1 << 2001] == list(map(loads, files))


def test_what_nobody_will_read_is_dropped(wire_and_far):
    """Messages to a worker that is gone or has closed its end are dropped; its pidfd reports its end."""
    wire, far = wire_and_far
    far.close()
    wire.send(_channel.frame(_channel.FORGET, b"one"))
    wire.flush()
    assert inf == wire.again_at
    assert not wire.is_full


def commit_one(ring, value):
    """Commit a result as a worker does; return where its pickle lies."""
    slots = Slots(ring, Outbox(None, ring), 4)
    slots.dicts.fit = True
    ring.starts[0] = monotonic()
    slots.puts.get(type(value), slots.put_object)(0, value)
    ring.ends[0] = monotonic()
    return ring.words[0] >> _channel.PLACE, ring.words[0] & _channel.LENGTH_MASK


@pytest.mark.parametrize("value", ["text", {"key": 1}, {"key": 1, "other": [2]}])
@pytest.mark.parametrize("where", ["first", "last", "beyond", None])
def test_results_that_are_overwritten_are_garbage(wire_and_far, ring, value, where):
    """A result that does not begin or end as a pickle does, or lies outside the heap, is garbage."""
    wire, _ = wire_and_far
    place, length = commit_one(ring, value)
    if where == "beyond":
        ring.words[0] = HEAP - 1 << _channel.PLACE | length
    elif where is not None:
        ring.heap[place if where == "first" else place + length - 1] = 0
    if where is None:
        assert bytes(ring.heap[place : place + length]) == wire.take(0, 1, True).heap
    else:
        with pytest.raises(GarbageError, match=r"^no result from \d+ to \d+ of \d+$"):
            wire.take(0, 1, True)


def passed_on(wire, ring, slots, value):
    """Have a worker put a value into the first slot, as its only result, and the parent read it."""
    ring.starts[0] = monotonic()
    slots.put_object(0, value)
    ring.ends[0] = monotonic()
    for kind, body, length in wire.frames(0):
        wire.arrivals.accept(kind, body, length, 1)
    span = Span(Batch(None, [(0, 1, None, None)], None), wire.take(0, 1, True), "")
    (entry,) = Decoding(span, str).finish()
    return entry


def test_a_result_is_not_what_a_block_held_before(wire_and_far, ring, monkeypatch):
    """A block that the parent cannot map is read once. If the result found no room in the heap, it must not serve the next."""
    wire, far = wire_and_far
    slots = Slots(ring, Outbox(far, ring), 1)

    def map_few(*args, at_once=False, **kwargs):
        if not at_once:  # as the worker maps its own
            raise OSError(errno.EMFILE, "Too many open files")
        return map_file(*args, at_once=at_once, **kwargs)

    map_file = _channel.map_file
    monkeypatch.setattr(_channel, "map_file", map_few)
    ring.head[_channel.TAIL] = 1  # the heap is full
    first = passed_on(wire, ring, slots, PickleBuffer(bytes([1]) * _channel.LARGE))
    ring.head[_channel.TAIL] = 0
    second = passed_on(wire, ring, slots, PickleBuffer(bytes([2]) * _channel.LARGE))
    assert [{1}, {2}] == [set(bytes(entry.values[0])) for entry in (first, second)]


@pytest.mark.parametrize("is_full", [False, True])
def test_a_large_result_that_a_signal_kept_from_being_used_is_nobody_elses(wire_and_far, ring, is_full):
    """A task's alarm may raise just after a file was sent: the task has failed then, and the next large result has a file of its own."""
    wire, far = wire_and_far

    class Struck(Outbox):
        def send(self, message, fd=None):
            super().send(message, fd)
            if alarms:
                raise alarms.pop()

    alarms, large = [RuntimeError("an alarm")], [str(number) * 60_000 for number in range(40)]
    ring.head[_channel.TAIL] = int(is_full)  # of the heap
    slots = Slots(ring, Struck(far, ring), 1)
    assert "an alarm" in str(passed_on(wire, ring, slots, large).error)
    assert [large[1:]] == passed_on(wire, ring, slots, large[1:]).values


def test_a_block_that_could_not_be_sent_is_not_used(wire_and_far, ring, monkeypatch):
    """If the system has no room for a block, its task has the error. The next result is sent with another."""
    wire, far = wire_and_far
    outbox = Outbox(far, ring)
    slots = Slots(ring, outbox, 1)

    def send(message, fd):
        raise OSError(errno.ETOOMANYREFS, "Too many references")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "send", send)
        failed = passed_on(wire, ring, slots, PickleBuffer(bytes([1]) * _channel.LARGE))
    assert errno.ETOOMANYREFS == failed.error.errno
    assert ["the value of the task could not be sent"] == failed.error.__notes__
    entry = passed_on(wire, ring, slots, PickleBuffer(bytes([2]) * _channel.LARGE))
    assert {2} == set(bytes(entry.values[0]))


def test_an_error_that_finds_no_room_is_told_by_another(wire_and_far, ring, monkeypatch):
    """A large error for which there is no descriptor costs its task alone: the worker goes on, and the note tells of the error."""
    wire, far = wire_and_far
    slots = Slots(ring, Outbox(far, ring), 1)

    def refuse(name):
        raise OSError(errno.EMFILE, "Too many open files")

    class Refusing:
        def __reduce__(self):
            raise ValueError("x" * _channel.LARGE)

    monkeypatch.setattr(_channel, "new_file", refuse)
    failed = passed_on(wire, ring, slots, Refusing())
    assert errno.EMFILE == failed.error.errno
    (note,) = failed.error.__notes__
    assert note.startswith("there was no room for the error of the task: returned a ")
    assert "Refusing, which cannot be pickled (ValueError: xxx" in note
    assert len(note) < 1100
