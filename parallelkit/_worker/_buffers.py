"""Large buffers bypass the channel: they are copied once, into memory that both ends map, and used there in place.

Fresh shared memory costs a page fault for every 4 KiB, which was 95 % of the time that an array took on its
way. So a *block* of shared memory is used again and again. What looks at the memory of its mapping is the reader's lease: arrays
built on a block do, and a block is only written to while nothing does.
"""

from __future__ import annotations

import os
from _pickle import PickleBuffer
from mmap import mmap

from parallelkit._worker import _channel, _leases
from parallelkit._worker._channel import FILLED, FREE, GIVEN_UP, HOLES, frame
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._travel import Apart, pack, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallelkit._worker._classes import Reducer

    Span = tuple[int, int]
    """The place of a buffer in its block: start and length."""

ALIGNED = 64

_REMOVE = getattr(__import__("mmap"), "MADV_REMOVE", 0)  # of Linux; this module is imported elsewhere, too

_TEXTS = (bytes, bytearray, str)
_LASTING = frozenset({bytes, str})
_UTF_8 = ("utf-8", "surrogatepass")


def pack_apart(thing: object, apart: Apart, editions: Reducer) -> bytes:
    """Pickle the thing with its large buffers apart. A large ``bytes`` or text is sent as a buffer too, and copied on arrival."""
    if type(thing) in _TEXTS:
        thing = as_buffer(thing, apart.least)  # type: ignore[arg-type]  # its type was checked
    return pack(thing, apart, editions=editions)


def as_buffer(whole: bytes | bytearray | str, least: int = _channel.LARGE) -> object:
    """The same bytes or text, wrapped so that they travel as a buffer if they are large."""
    return _Copied(whole) if len(whole) >= least else whole


def with_buffers(call: tuple[Any, ...], least: int) -> tuple[Any, ...]:
    """The call with its large ``bytes`` and texts wrapped so, one that comes twice only once. A ``bytearray`` is left: it may change."""
    module, fn, args, kwargs = call
    for one in (*args, *kwargs.values()) if kwargs else args:
        if type(one) in _LASTING and len(one) >= least:
            break
    else:
        return call
    wrapped: dict[int, Any] = {}
    for one in (*args, *kwargs.values()):
        wrapped[id(one)] = as_buffer(one, least) if type(one) in _LASTING else one
    args = tuple([wrapped[id(one)] for one in args])
    return module, fn, args, {name: wrapped[id(one)] for name, one in kwargs.items()}


class _Copied:
    """Travels as a buffer. The other end makes a copy of it, because ``bytes`` and ``str`` must own their memory."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __reduce__(self) -> Any:
        if type(self.whole) is str:
            return str, (PickleBuffer(self.whole.encode(*_UTF_8)), *_UTF_8)
        return type(self.whole), (PickleBuffer(self.whole),)


def layout(buffers: list[memoryview[int]]) -> tuple[list[Span], int]:
    """The places of these buffers in a block, and the size that it must have."""
    spans, end = [], 0
    for buffer in buffers:
        spans.append((end, buffer.nbytes))
        end += -(-buffer.nbytes // ALIGNED) * ALIGNED
    return spans, end


def buffers_in(mapping: mmap | memoryview[int] | bytearray, spans: list[Span]) -> list[memoryview[int]]:
    """The buffers that lie at these places of a mapping or of private memory."""
    whole = memoryview(mapping)
    return [whole[start : start + length] for start, length in spans]


def load_shared(mapping: mmap, own: mmap | None, spans: list[Span]) -> Any:
    """Unpickle a job, on buffers that lie in the mapping; the last span is the pickle.

    The first buffers are the function's own, and lie in ``own``, a private mapping that tasks may write to.
    """
    whole, first = memoryview(mapping), memoryview(b"" if own is None else own)
    *buffers, blob = [
        (first if start < len(first) else whole)[start : start + length] for start, length in spans
    ]
    return unpack(bytes(blob), buffers)


SHARED = "large arrays in args= and kwargs= are shared by all worker processes, and so read-only: copy what you change in the task (array.copy())"

REFUSAL = "read-only", "readonly array", "as readonly", "WRITEABLE flag", "not writable"
"""How numpy, Python, numba, OpenCV and ctypes refuse to write to such an array, or to make it writable."""


def explaining(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a note to the error of a task that writes to a shared array; the error's own text gives no reason."""

    def explaining(item: Any) -> Any:
        try:
            return call(item)
        except Exception as error:
            if _is_refusal(error) or _is_refusal(
                error.__cause__
            ):  # xarray raises an error of its own from numpy's
                error.add_note(SHARED)
            raise

    return explaining


def _is_refusal(error: BaseException | None) -> bool:
    kind = type(error)
    known = kind in (ValueError, TypeError) or kind.__module__ in ("cv2", "numba.core.errors")
    return known and any(part in str(error) for part in REFUSAL)


class Block:
    """A mapped file without a name."""

    __slots__ = ("mapping", "size")

    def __init__(self, mapping: mmap) -> None:
        self.mapping = mapping
        self.size = len(mapping)

    def is_at_rest(self) -> bool:
        """Whether nothing uses what lies in the block."""
        return not _leases.is_used(self.mapping)

    def empty(self) -> None:
        """Give the memory of a block that is at rest back to the system, for both ends."""
        try:
            self.mapping.madvise(_REMOVE)
        except OSError:
            pass  # a system without this keeps the memory until the worker ends

    def fill(self, buffers: list[memoryview[int]], spans: list[Span]) -> None:
        """Copy the buffers into the block, which takes a third of a millisecond for 8 MB."""
        with memoryview(self.mapping) as whole:
            for buffer, (start, length) in zip(buffers, spans, strict=True):
                whole[start : start + length] = buffer


def new_block(buffers: list[memoryview[int]], spans: list[Span], size: int) -> tuple[int, int]:
    """Make a file that holds these buffers; return its descriptor and size. To write to a file causes no page faults."""
    size = -(-size // HOLES) * HOLES
    fd = _channel.new_file(_leases.NAME)
    try:
        os.ftruncate(fd, size)
        for buffer, (start, _) in zip(buffers, spans, strict=True):
            os.lseek(fd, start, os.SEEK_SET)
            _channel.write_all(fd, buffer)
    except BaseException:
        os.close(fd)
        raise
    return fd, size


class OutBlocks:
    """A worker's blocks for results; ``Ring.leases`` tells whose each of them is."""

    def __init__(self, ring: _channel.Ring, outbox: Outbox, limit: int) -> None:
        self._leases = ring.leases
        self._outbox = outbox
        self._limit = limit
        self._blocks: list[Block] = []

    def put(self, buffers: list[memoryview[int]], spans: list[Span], size: int) -> int | None:
        """Copy the buffers into a block and return its number; None if all are taken, because the parent reads slowly."""
        free = [number for number in range(len(self._blocks)) if self._leases[number] == FREE]
        fitting = [number for number in free if self._blocks[number].size >= size]
        if fitting:
            number = min(fitting, key=lambda number: self._blocks[number].size)
            self._blocks[number].fill(buffers, spans)
        elif (number := self._number_for_new(free)) >= 0:
            self._make(number, buffers, spans, size)
        else:
            return None
        self._leases[number] = FILLED
        return number

    def _number_for_new(self, free: list[int]) -> int:
        """The number for a new block, which may replace one that is given up or too small; -1 if all are taken."""
        given_up = bytes(self._leases[: len(self._blocks)]).find(GIVEN_UP)
        if given_up >= 0:
            return given_up
        if len(self._blocks) < self._limit:
            return len(self._blocks)
        return free[0] if free else -1

    def _make(self, number: int, buffers: list[memoryview[int]], spans: list[Span], size: int) -> None:
        fd, size = new_block(buffers, spans, size)
        try:
            block = Block(_channel.map_file(fd, size, at_once=True))
            self._outbox.send(frame(_channel.BLOCK, _channel.WORD.pack(number), file_length=size), fd)
            self._blocks[number : number + 1] = [block]  # only now, when the parent has it, too
        finally:
            os.close(fd)


class InBlocks:
    """A worker's view of the parent's blocks, by number; the parent sends each once."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._blocks: dict[int, Block] = {}

    def add(self, number: int, mapping: mmap) -> None:
        """Take a block that the parent has sent."""
        self._blocks[number] = Block(mapping)
        _leases.note(mapping)

    def parts(
        self, number: int, spans: list[Span], blob: bytes
    ) -> tuple[bytes, list[memoryview[int] | bytearray]]:
        """The pickle of an item, and its buffers. If ``blob`` is empty, the pickle lies in the block, too, behind them.

        Smaller buffers are copied, lest a task that keeps one take the block.
        """
        views = buffers_in(self._blocks[number].mapping, spans)
        blob = blob or bytes(views.pop())
        return blob, [view if len(view) >= _channel.LARGE else bytearray(view) for view in views]

    def give_back(self, number: int) -> None:
        """After the task: if it, or a child of it, has kept part of its item, leave it the block for good, and tell the parent."""
        block = self._blocks[number]
        if not block.is_at_rest() or _leases.is_private(block.mapping):
            del self._blocks[number]
            self._outbox.send(frame(_channel.KEPT, _channel.WORD.pack(number)))

    def forget(self, number: int) -> None:
        """Drop a block that the parent will not use again."""
        self._blocks.pop(number, None)
