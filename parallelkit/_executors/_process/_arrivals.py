"""Receives the parts of results that come outside of the ring: files of their own, the worker's blocks, keys of dicts, classes.

Their descriptors arrive before the slots that refer to them. If there is no room for a descriptor or a mapping, the
content is read at once. If even the descriptor was dropped on its way, an error takes the result's place; the worker
is not to blame, and goes on.
"""

from __future__ import annotations

from mmap import mmap
from typing import TypeAlias

from parallelkit._executors._process._validation import content_of, word_of
from parallelkit._worker import _channel, _leases
from parallelkit._worker._buffers import Block
from parallelkit._worker._channel import FREE, GIVEN_UP, LEASED, GarbageError, Inbox
from parallelkit._worker._dicts import KEYS, LONGEST, as_known
from parallelkit._worker._result_classes import SMALL, TOLD

Content: TypeAlias = "bytes | mmap | memoryview[int] | OSError"
"""The content of a file, or of a block (a view of its mapping), or why it could not be received."""

SPARE_BYTES = 256 << 20
"""Bytes that a worker's free blocks may have: to fill fresh memory takes three times as long."""


class Arrivals:
    """The parts that have come from one worker."""

    def __init__(self, inbox: Inbox, leases: memoryview[int]) -> None:
        self._inbox = inbox
        self._leases = leases
        self._files: dict[int, Content] = {}  # by the slot of their result
        self._blocks: dict[int, Block] = {}  # the worker's, by number
        self._emptied: set[int] = set()  # blocks that have no memory until the worker fills them again
        self._single: dict[int, Content] = {}  # blocks that could not be mapped; each serves one result
        self._told: list[bytes] = []  # the keys, each pickled into its place
        self.keys = b""
        """The pickled keys, to be put before the pickles of small dicts."""
        self.classes: list[bytes] = []
        """The packed classes, to which results refer by number."""

    def accept(self, kind: int, body: bytes, length: int, most: int) -> None:
        """Take in what a frame brings; at most ``most`` results can be on their way."""
        if kind == _channel.BIG_RESULT:
            self._files[word_of(body)] = self._receive(length, False)
            if len(self._files) > most:
                raise GarbageError(f"more than {most} large results")
        elif kind == _channel.BLOCK:
            self._accept_block(word_of(body), length)
        elif kind == _channel.KEY:
            self._accept_key(word_of(body), body[_channel.WORD.size :])
        elif kind == _channel.CLASS:
            self._accept_class(word_of(body), body[_channel.WORD.size :])
        else:
            raise GarbageError(f"a frame of kind {kind}")

    def _accept_block(self, number: int, size: int) -> None:
        """Take in a block for results; it replaces the one that had its number."""
        if number >= _channel.BLOCKS:
            raise GarbageError(f"a block of number {number}")
        content = self._receive(size, True)
        if isinstance(content, mmap):
            self._blocks[number] = Block(content)
            _leases.note(content)
        else:
            self._blocks.pop(number, None)
            self._single[number] = content

    def _accept_key(self, number: int, key: bytes) -> None:
        """Take in a key to which dicts will refer; none refers to one that had its number."""
        if number > len(self._told) or number >= KEYS or len(key) > LONGEST:
            raise GarbageError(f"key {number} of dicts, of {len(key)} bytes")
        self._told[number : number + 1] = [as_known(number, key)]
        self.keys = b"".join(self._told)

    def _accept_class(self, number: int, packed: bytes) -> None:
        """Take in a class to which results will refer; no result refers to one that had its number."""
        if number > len(self.classes) or number >= TOLD or len(packed) > SMALL:
            raise GarbageError(f"class {number} of results, of {len(packed)} bytes")
        self.classes[number : number + 1] = [packed]

    def _receive(self, length: int, to_keep: bool) -> Content:
        try:
            return content_of(self._inbox.take_fd(), length, to_keep)
        except OSError as error:
            return error

    def take(self, slot: int, kinds: bytes, words: memoryview[int]) -> list[Content]:
        """The contents to which the slots from this one on refer, in their order."""
        files: list[Content] = []
        if any(map(kinds.count, OUTSIDE)):
            for at, (kind, word) in enumerate(zip(kinds, words, strict=True), slot):
                try:
                    if kind == _channel.BUFFERED:
                        files.append(self._take_block(word >> _channel.BLOCK_NUMBER & 0xFF))
                    elif kind in OUTSIDE:
                        files.append(self._files[at])
                except LookupError:
                    raise GarbageError("a large result that did not come") from None
            for number in [number for number in self._single if self._leases[number] == LEASED]:
                del self._single[number]
        # Only now: what was before one that did not come may be taken by itself. A task that failed after all has left one, too.
        for at in [at for at in self._files if slot <= at < slot + len(kinds)]:
            del self._files[at]
        return files

    def _take_block(self, number: int) -> Content:
        """Lease a block. One that is not mapped stays leased for good: the worker will not use it again."""
        block = self._blocks.get(number)
        content = self._single[number] if block is None else memoryview(block.mapping)
        self._leases[number] = LEASED
        self._emptied.discard(number)
        return content

    def release_blocks(self) -> None:
        """Give blocks back to the worker that nothing here refers to any more: no span, no array of the user's.

        If it has many that are free, most of them without their memory, which goes back to the system.
        """
        spare = 0
        for number, block in self._blocks.items():
            if self._leases[number] == LEASED and block.is_at_rest():
                is_private = _leases.is_private(block.mapping)
                if spare + block.size > SPARE_BYTES and not is_private:
                    block.empty()
                    self._emptied.add(number)
                self._leases[number] = GIVEN_UP if is_private else FREE
            if self._leases[number] == FREE and number not in self._emptied:
                spare += block.size

    def close(self) -> None:
        for held in (self._files, self._blocks, self._single):
            held.clear()


OUTSIDE = (_channel.BIG_VALUE, _channel.BIG_FAILED, _channel.BUFFERED)
