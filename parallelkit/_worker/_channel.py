"""What both ends of a worker's channel share: frames on a socket, and the ring into which results are committed.

A *frame* is a kind, a body, and maybe a file: large data travels as a descriptor. Frames carry what is rare
or large: set-up and batches to the worker; log records, descriptors and wake-ups to the parent. Results go
through the ring, because a store into shared memory costs no system call and outlives its process.
"""

from __future__ import annotations

import os
import sys
from _socket import CMSG_SPACE, MSG_CTRUNC, SCM_RIGHTS, SOL_SOCKET
from _socket import socket as Socket  # noqa: N812  # a class
from _struct import Struct
from _thread import allocate_lock
from collections import deque
from errno import EMFILE, ENOBUFS, ENOMEM, ETOOMANYREFS
from mmap import MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap

from parallelkit._locks import careful
from parallelkit._worker._kernel import memfd_create

# Frames to the worker
SETUP, INITIALIZER, JOB, FORGET, BATCH, RESUME, STOP, FORGET_BLOCK, DEFINITION = range(1, 10)
# Frames to the parent
READY, UNREADY, WAKE, STOPPED, RECORD, BIG_RESULT, BLOCK, KEPT, KEY, RECORD_OF_CHILD, CLASS = range(16, 27)

HEADER = Struct("<IBQ")
"""The head of a frame: length of its body, kind, length of the file that comes with it (0: none)."""
BATCH_HEAD = Struct("<IIB")
"""The head of a batch: number of its job, count of tasks, and how their items are sent, which is one of these:"""
ONE_BY_ONE, TOGETHER, BUFFERED_ITEM = range(3)
"""A pickle for each item; one pickle of all items (``all_atoms`` in _packing.py); one item with its large buffers apart."""
LENGTH = Struct("<I")
WORD = Struct("<Q")
PID = Struct("<q")
"""A zygote's answer: the pid of the new process, or a negative errno; 0: the zygote is ready."""
BORN = Struct("i")
"""In a page that a zygote shares with its parent: the pid of the process that it is forking."""
DEFINITIONS = 64  # at most, of a lane; number n is one of lane n // DEFINITIONS
LONGEST = 1 << 28  # bytes; a longer frame is garbage, since large data travels in a file of its own
CHUNK = 1 << 16
MOST_FDS = 64  # descriptors of frames that are not yet whole; more than two are never expected
NO_ROOM = (ETOOMANYREFS, ENOBUFS, ENOMEM)
"""The errors of a system that has no room for a message or its descriptor."""
PAUSE = 0.01  # seconds, at least, until the next try, for nothing tells when there is room again
LOST = -1  # in place of a descriptor for which there was no room
_CLOEXEC = getattr(__import__("_socket"), "MSG_CMSG_CLOEXEC", 0)
NO_SIGNAL = getattr(__import__("_socket"), "MSG_NOSIGNAL", 0)  # SIGPIPE may be set to end the program
_FD = Struct("i")
_POPULATE, _NO_RESERVE = (getattr(__import__("mmap"), f"MAP_{name}", 0) for name in ("POPULATE", "NORESERVE"))

SLOTS = 8192
MASK = SLOTS - 1
HEAP = 1 << 21
LARGE = 1 << 18  # a result longer than this gets a file of its own; so large a buffer is used where it lies
APART = 1 << 15
"""Bytes from which on a buffer of an item bypasses the socket; one that is not LARGE is copied on arrival."""
HOLES = 1 << 16  # the size of a block is rounded up to this; so many bytes of its file may be unwritten
UNLIMITED = (1 << 63) - 1

# Words of the ring's header. Each side writes to cache lines of its own.
HEAD = 0  # by the worker: how many tasks are committed
SENT = 1  # by the worker: how many frames it has sent to the parent; those of its children do not count
PHASE = 2  # by the worker: STARTING, WAITING, LOADING_IN_TASK, or LOADING plus the number of the job whose function it loads
FDS = 3  # by the worker: how many descriptors it has sent, or is about to send
WAKE_AT = 8  # by the parent: send WAKE once so many tasks are committed; the worker then sets this to NEVER, unless it is EACH
LIMIT = 16  # by the parent: the worker must not begin this task or a later one
TAIL = 24  # by the parent: how far it has read the heap
MARK = 25  # by the parent: always MARKED; any other value means that the header was overwritten

NEVER, EACH = 0, 1  # values of WAKE_AT; one that is to send WAKE at its first commit thereby does so at each
MARKED = 0x706172616C6C656C

STARTING, WAITING, LOADING_IN_TASK, LOADING = range(4)  # a new ring is all zeros
"""WAITING: it takes batches and runs them. LOADING_IN_TASK: it loads what the present attempt's own function needs."""

NONE, TRUE, FALSE, INT, FLOAT, INT64, FLOAT32, FLOAT64, BOOL = range(9)
VALUE, BIG_VALUE, FAILED, BIG_FAILED, BUFFERED, DICT = range(9, 15)
"""The kind of a slot. NONE to BOOL: the slot is the value. VALUE, FAILED: a pickle in the heap; BIG_…: in a file.

BUFFERED: a pickle in the heap, whose large buffers lie in a block. DICT: a part of a pickle, see _dicts.py.
"""

# The fields of a word that refers to the heap: the shift of the place, that of a block's number, the mask of the length.
PLACE, BLOCK_NUMBER, LENGTH_MASK = 32, 24, (1 << 24) - 1
BLOCKS = 256
FREE, FILLED, LEASED, GIVEN_UP = range(4)
"""Whose a block of results is: the worker's; on its way; the parent's, until nobody there uses it; nobody's any more."""

STACK_SIGNAL = 60  # a real-time signal that nobody uses; asks a worker to write down its stack

_HEADER_SIZE = 4096
_COLUMN = SLOTS * 8
STACK = 1 << 14
SIZE = _HEADER_SIZE + 3 * _COLUMN + SLOTS + HEAP + BLOCKS + STACK

WEAKLY_ORDERED = os.uname().machine not in ("x86_64", "i686")
"""Whether another processor may see our stores in an order other than ours."""

_lock = careful(allocate_lock)


def barrier() -> None:
    """Order memory accesses: stores before it are visible, and loads before it done, before any that follow."""
    with _lock:
        pass


class Ring:
    """A file that both ends map: a header, columns with a cell for each slot, a heap for pickles, and a stack.

    Task number n uses slot ``n & MASK``. The worker fills the slot and then increments ``HEAD``, which
    is the commit. ``words`` and ``floats`` are one column: the number itself, or where the pickle is.
    ``stack`` is text: where the worker stood as it crashed or was about to be killed.
    """

    VIEWS = ("head", "starts", "ends", "words", "floats", "kinds", "heap", "leases", "stack")
    __slots__ = ("map", *VIEWS)

    def __init__(self, fd: int) -> None:
        self.map = map_file(fd, SIZE)
        view = memoryview(self.map)
        columns: list[memoryview] = [
            view[_HEADER_SIZE + n * _COLUMN : _HEADER_SIZE + (n + 1) * _COLUMN] for n in range(3)
        ]
        self.head = view[:_HEADER_SIZE].cast("Q")
        self.starts = columns[0].cast("d")
        self.ends = columns[1].cast("d")
        self.words = columns[2].cast("q")
        self.floats = columns[2].cast("d")
        at = _HEADER_SIZE + 3 * _COLUMN
        self.kinds = view[at : at + SLOTS]
        self.heap = view[at + SLOTS : at + SLOTS + HEAP]
        self.leases = view[at + SLOTS + HEAP : at + SLOTS + HEAP + BLOCKS]
        self.stack = view[SIZE - STACK :]

    def close(self) -> None:
        """Unmap; nothing may be read afterwards."""
        for name in self.VIEWS:
            getattr(self, name).release()
        self.map.close()


def new_file(name: str) -> int:
    """A descriptor of a file without a name, which vanishes with its last user; only our user may open it."""
    fd = memfd_create(name)
    os.fchmod(fd, 0o600)
    return fd


def map_file(
    fd: int,
    length: int,
    at_once: bool = False,
    to_read: bool = False,
    own: bool = False,
    keeps_fd: bool = False,
) -> mmap:
    """Map a file; its descriptor may be closed afterwards. The mapping keeps one of its own: always before Python 3.13.

    ``at_once``: fault in all pages now, which takes half as long as one by one, at the first write to each.
    ``to_read``: read-only; a write crashes the process. ``own``: private; a page that is written to is copied.
    """
    flags = MAP_PRIVATE | _NO_RESERVE if own else MAP_SHARED | _POPULATE if at_once else MAP_SHARED
    rights = PROT_READ if to_read else PROT_READ | PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap(fd, length, flags=flags, prot=rights, trackfd=keeps_fd)
    return mmap(fd, length, flags=flags, prot=rights)


def write_all(fd: int, blob: bytes | memoryview) -> None:
    """Write everything; the system takes at most 2 GiB at a time."""
    left = memoryview(blob)
    while left:
        left = left[os.write(fd, left) :]


def place(length: int, tail: int, head: int) -> int:
    """Where in the circular heap ``length`` bytes fit in one piece, or -1.

    ``head`` is where the last ones ended, ``tail`` up to where they have been read. The byte before
    the tail stays free, so that equal means empty.
    """
    if head < tail:
        return head if length < tail - head else -1
    if length < HEAP - head or (length == HEAP - head and tail > 0):
        return head
    return 0 if length < tail else -1


def frame(kind: int, *parts: bytes, file_length: int = 0) -> bytes:
    """A frame with these parts as its body; the descriptor of its file, if it has one, must be sent with it."""
    return b"".join((HEADER.pack(sum(map(len, parts)), kind, file_length), *parts))


def socket_of(fd: int) -> Socket:
    """A blocking socket, whatever ``socket.setdefaulttimeout`` says."""
    socket = Socket(fileno=fd)
    socket.settimeout(None)
    return socket


def rights(fd: int) -> list[tuple[int, int, bytes]]:
    """The ancillary data that sends a descriptor with a frame."""
    return [(SOL_SOCKET, SCM_RIGHTS, _FD.pack(fd))]


def receive(socket: Socket, most: int) -> tuple[bytes, list[int], bool]:
    """Receive at most so many bytes; return them, the descriptors that came along, and whether there was no room for some."""
    got, ancillary, flags, _ = socket.recvmsg(most, CMSG_SPACE(_FD.size * 8), _CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            whole = len(content) - len(content) % _FD.size
            fds += [fd for (fd,) in _FD.iter_unpack(content[:whole])]
    return got, fds, bool(flags & MSG_CTRUNC)


class GarbageError(Exception):
    """The other end wrote nonsense: its memory is corrupt, or a task wrote to our socket."""


class Inbox:
    """Cuts the byte stream of a socket into frames, and keeps the descriptors that come with it, in order."""

    __slots__ = ("_buffer", "_socket", "came", "fds")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._buffer = bytearray()
        self.fds: deque[int] = deque()
        self.came = 0  # count of descriptors, including lost ones

    def receive(self) -> bool:
        """Read once; False at the end of the stream. On a non-blocking socket raises BlockingIOError."""
        got, fds, cut = receive(self._socket, CHUNK)
        if cut and not fds:
            fds.append(LOST)  # a single one: a read never goes past a message with a descriptor
        self.fds.extend(fds)
        self.came += len(fds)
        self._buffer += got
        if len(self.fds) > MOST_FDS:
            raise GarbageError(f"{len(self.fds)} descriptors that nobody asked for")
        return bool(got)

    def take(self) -> tuple[int, bytes, int] | None:
        """The next whole frame: kind, body, length of its file. None if there is none yet."""
        if len(self._buffer) < HEADER.size:
            return None
        length, kind, file_length = HEADER.unpack_from(self._buffer)
        if length > LONGEST:
            raise GarbageError(f"a frame of {length} bytes")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return kind, body, file_length

    def take_fd(self) -> int:
        """The descriptor of the frame just taken; raises OSError if it was lost because there was no room for it."""
        if not self.fds:
            raise GarbageError("a frame without its descriptor")
        fd = self.fds.popleft()
        if fd == LOST:
            raise OSError(EMFILE, os.strerror(EMFILE))
        return fd

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self.fds:
            fd = self.fds.popleft()
            if fd != LOST:
                os.close(fd)


_inherited_width = 0


def is_worker() -> bool:
    """Whether this process is a worker."""
    return _inherited_width > 0


def inherited_width() -> int:
    """The product of the widths of all engines that this worker runs in; 1 outside a worker."""
    return _inherited_width or 1


def set_inherited_width(width: int) -> None:
    """Called once in a worker, with what its parent tells it."""
    global _inherited_width
    _inherited_width = width
