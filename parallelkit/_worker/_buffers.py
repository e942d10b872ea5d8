"""Large buffers past the channel: copied once into memory that both ends have mapped, and used there in place.

Fresh shared memory costs a page fault for every 4 KiB, which is 95 % of the time that an array takes on
its way. So a *block* is used again and again. Whoever reads it holds a lease by reference count: arrays
built on a block keep its mapping alive, and while anything but the block itself refers to the mapping,
the block is not written.
"""

from __future__ import annotations

import os
import sys
from _pickle import PickleBuffer, loads
from mmap import mmap

from parallelkit._worker import _channel
from parallelkit._worker._channel import BLOCKS, FILLED, FREE, frame
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._travel import Apart, pack, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    from parallelkit._worker._classes import Reducer

    Span = tuple[int, int]
    """Where a buffer lies in its block."""

ALIGNED = 64
ROUNDED = _channel.HOLES

AT_REST = 3
"""Of a mapping that only its block refers to: the attribute, and the two names of ``is_at_rest``."""


_BYTES = (bytes, bytearray)


def pack_apart(thing: object, apart: Apart, editions: Reducer | None = None) -> bytes:
    """The thing as bytes, its large buffers apart. A large ``bytes`` is one itself, and arrives as a copy."""
    if type(thing) in _BYTES:
        thing = as_buffer(thing)  # type: ignore[arg-type]  # its type was looked at
    if apart.buffers:
        apart.buffers.clear()  # those of one that could not be packed
    return pack(thing, apart, editions=editions)


def as_buffer(whole: bytes | bytearray) -> object:
    """A large one as what travels as a buffer."""
    return _Copied(whole) if len(whole) >= _channel.LARGE else whole


class _Copied:
    """Travels as a buffer; at the other end a copy is made of it, for such an object owns its memory."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __reduce__(self) -> Any:
        return type(self.whole), (PickleBuffer(self.whole),)


def layout(buffers: list[memoryview[int]]) -> tuple[list[Span], int]:
    """Where in a block the buffers go, and how long it must be."""
    spans, end = [], 0
    for buffer in buffers:
        spans.append((end, buffer.nbytes))
        end += -(-buffer.nbytes // ALIGNED) * ALIGNED
    return spans, end


def load_apart(blob: bytes, mapping: mmap | bytearray, spans: list[Span]) -> Any:
    """What ``pack_apart`` was given; its buffers are those of the mapping, or private ones."""
    whole = memoryview(mapping)
    buffers = [whole[start : start + length] for start, length in spans]
    if b"cloudpickle" in blob:
        return unpack(blob, buffers)
    return loads(blob, buffers=buffers)


def load_shared(mapping: mmap, own: mmap | None, spans: list[Span]) -> Any:
    """A job; its large arrays are those of the mapping, in place, the last span is the pickle. What comes first is the function's own."""
    whole, first = memoryview(mapping), memoryview(b"" if own is None else own)
    *buffers, blob = [
        (first if start < len(first) else whole)[start : start + length] for start, length in spans
    ]
    return unpack(bytes(blob), buffers)


class Block:
    """A mapped file without a name."""

    __slots__ = ("mapping", "size")

    def __init__(self, mapping: mmap) -> None:
        self.mapping = mapping
        self.size = len(mapping)

    def is_at_rest(self) -> bool:
        """Whether nobody uses what lies in it."""
        mapping = self.mapping
        return sys.getrefcount(mapping) <= AT_REST

    def fill(self, buffers: list[memoryview[int]], spans: list[Span]) -> None:
        """Copy into memory that is known, which takes a third of a millisecond for 8 MB."""
        with memoryview(self.mapping) as whole:
            for buffer, (start, length) in zip(buffers, spans, strict=True):
                whole[start : start + length] = buffer


def new_block(buffers: list[memoryview[int]], spans: list[Span], size: int) -> tuple[int, int]:
    """A file that holds these buffers, and its size; written, not copied, for that faults in no page."""
    size = -(-size // ROUNDED) * ROUNDED
    fd = _channel.new_file("parallelkit-block")
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
    """A worker's blocks for results. In the ring stands whose each of them is now."""

    def __init__(self, ring: _channel.Ring, outbox: Outbox, limit: int) -> None:
        self._leases = ring.leases
        self._outbox = outbox
        self._limit = min(limit, BLOCKS)
        self._blocks: list[Block] = []

    def put(self, buffers: list[memoryview[int]]) -> tuple[int, list[Span]] | None:
        """Copy the buffers into a block and say which; None where all are taken: what is read slowly goes another way."""
        spans, size = layout(buffers)
        number = self._find(size)
        if number is None:
            return None
        if number < len(self._blocks) and self._blocks[number].size >= size:
            self._blocks[number].fill(buffers, spans)
        else:
            self._make(number, buffers, spans, size)
        self._leases[number] = FILLED
        return number, spans

    def take_back(self, number: int) -> None:
        """The parent will not hear of what was put there."""
        self._leases[number] = FREE

    def _find(self, size: int) -> int | None:
        """The smallest free block that fits, else the number of one to be made, in place of a smaller one if need be."""
        free = [number for number in range(len(self._blocks)) if self._leases[number] == FREE]
        fitting = [number for number in free if self._blocks[number].size >= size]
        if fitting:
            return min(fitting, key=lambda number: self._blocks[number].size)
        if len(self._blocks) < self._limit:
            return len(self._blocks)
        return free[0] if free else None

    def _make(self, number: int, buffers: list[memoryview[int]], spans: list[Span], size: int) -> None:
        fd, size = new_block(buffers, spans, size)
        try:
            self._blocks[number : number + 1] = [Block(_channel.map_file(fd, size, at_once=True))]
            self._outbox.send(frame(_channel.BLOCK, _channel.WORD.pack(number), size), fd)
        finally:
            os.close(fd)


class InBlocks:
    """A worker's view of the parent's blocks, by number; the parent makes sure that each is sent once."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._blocks: dict[int, Block] = {}

    def add(self, number: int, mapping: mmap) -> None:
        """The parent has sent a block."""
        self._blocks[number] = Block(mapping)

    def load(self, number: int, blob: bytes, spans: list[Span]) -> Any:
        """The item whose buffers lie in the block."""
        return load_apart(blob, self._blocks[number].mapping, spans)

    def give_back(self, number: int) -> None:
        """After the task: if it kept some of its item, the block is the task's for good, and the parent is told."""
        if not self._blocks[number].is_at_rest():
            del self._blocks[number]
            self._outbox.send(frame(_channel.KEPT, _channel.WORD.pack(number)))

    def forget(self, number: int) -> None:
        """The parent has no more use for the block."""
        self._blocks.pop(number, None)
