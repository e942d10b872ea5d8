"""The parent's side of large buffers: blocks for items, and leases on the workers' blocks for results.

A block for items belongs to the engine: any worker may be given it, and it is used again when it is free.
"""

from __future__ import annotations

import os
from _pickle import loads
from collections import deque
from typing import Any

from parallelkit._executors._process._reserve import fd_share
from parallelkit._executors._shared import Numbers, snapshot
from parallelkit._worker import _leases
from parallelkit._worker._buffers import Block, buffers_in, layout, new_block
from parallelkit._worker._channel import map_file
from parallelkit._worker._travel import unpack

SPARE_BYTES = 64 << 20
"""Bytes of free blocks that are kept for the next items."""


MOST_LEASES = 64
"""Results that may be used in place, up to their share: each mapping keeps a descriptor open."""


def load_leased(told: bytes, content: memoryview[int] | bytes) -> Any:
    """Load a result whose buffers lie in a worker's block: in place, or copied if too many such results are in use.

    ``content`` is a view of the block's mapping, or bytes if it could not be mapped.
    """
    spans, blob = loads(told)
    if isinstance(content, bytes) or _leases.more_than(min(MOST_LEASES, fd_share())):
        return unpack(blob, buffers_in(bytearray(content), spans))
    return unpack(blob, buffers_in(content, spans))


class ItemBlock(Block):
    """A block for items; it keeps its descriptor, to be sent to workers that have not mapped it."""

    __slots__ = ("fd", "number", "spoiled")

    def __init__(self, fd: int, size: int, number: int) -> None:
        self.fd = fd  # set first: __del__ closes it, also if mapping fails
        super().__init__(map_file(fd, size, at_once=True))
        self.number = number
        self.spoiled = False
        """Whether a task has kept what lies in it, so that it must not be used again."""

    def __del__(self) -> None:
        if hasattr(self, "fd"):  # else a signal handler has raised before it was set
            os.close(self.fd)


class BlockPool:
    """The blocks for items. One comes back, in any thread, when the last reference to its item's payload goes."""

    def __init__(self) -> None:
        self._free: deque[ItemBlock] = deque()  # several threads use it and the next, each by atomic steps
        self.lent: set[int] = set()
        """Numbers of the blocks that hold an item."""
        self._numbers = Numbers()
        self.dropped: deque[int] = deque()
        """Numbers of blocks that were given up; the supervisor tells the workers."""
        self._closed = False

    def put(self, buffers: list[memoryview[int]], blob: bytes) -> Buffered:
        """Copy an item's buffers into a block."""
        spans, size = layout(buffers)
        block = self._take(size)
        if block is None:
            # First, as a signal handler may raise in it, and nobody would close the file.
            number = self._numbers.draw()
            block = ItemBlock(*new_block(buffers, spans, size), number)
        else:
            block.fill(buffers, spans)
        return Buffered(self, block, blob, spans, size)

    def _take(self, size: int) -> ItemBlock | None:
        """Take a free block that is large enough, but not more than four times as large."""
        for _ in range(len(self._free)):
            try:
                block = self._free.popleft()
            except IndexError:
                return None
            if size <= block.size <= 4 * size:
                return block
            self._free.append(block)
        return None

    def give_back(self, block: ItemBlock) -> None:
        """Take a block back from a payload that is being finalized, in any thread."""
        self.lent.discard(block.number)
        if block.spoiled or self._closed:
            self.dropped.append(block.number)
            return
        self._free.append(block)
        while sum([free.size for free in snapshot(self._free)]) > SPARE_BYTES + block.size:
            try:
                self.dropped.append(self._free.popleft().number)
            except IndexError:
                return

    def close(self) -> None:
        """Give up all blocks that are free, or that come back, as there will be no more workers."""
        self._closed = True
        self._free.clear()


class Buffered:
    """A packed item whose buffers lie in a block."""

    __slots__ = ("_pool", "blob", "block", "size", "spans")

    def __init__(self, pool: BlockPool, block: ItemBlock, blob: bytes, spans: list[Any], size: int) -> None:
        self._pool = pool
        self.block = block
        self.blob = blob
        self.spans = spans
        self.size = size
        pool.lent.add(block.number)

    def __len__(self) -> int:
        return self.size + len(self.blob)

    def __del__(self) -> None:
        if hasattr(self, "block"):  # else a signal handler has raised before it was set
            self._pool.give_back(self.block)
