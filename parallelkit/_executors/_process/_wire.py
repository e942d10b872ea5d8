"""The parent's end of a worker's channel: frames out, frames in, and results out of the ring.

What the worker writes is checked, as far as it can be, before it is used (_validation.py).
"""

from __future__ import annotations

from _pickle import dumps
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import groupby, islice, takewhile
from math import inf
from typing import Any

from parallelkit._executors._process._arrivals import Arrivals
from parallelkit._executors._process._blocks import Buffered, ItemBlock
from parallelkit._executors._process._lane import Batch, RawColumns
from parallelkit._executors._process._payload import File, file_of
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._validation import check_instants, check_kinds
from parallelkit._executors._process._words import Words
from parallelkit._executors._tickets import items_of
from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import HEAP, MARK, MARKED, SENT, SLOTS, TAIL, GarbageError

READS = 4  # of the socket of a worker that sent something: a flood must not delay other workers
LAST_READS = 64  # of a dead worker's socket: a child of it may hold the other end open
MOST_AT_ONCE = 64  # messages in one write
UNREAD = 1 << 16  # frames; more than fit into a socket


class Wire(Words):
    """Never blocks: what the socket does not take waits here."""

    def __init__(self, socket: Any, ring: _channel.Ring, reserve: Reserve) -> None:
        super().__init__(ring)
        self.socket = socket
        self.at_end = False  # nothing more will come out of the socket
        self.again_at = inf  # when to flush again, if the system had no room for what waits
        self._refused_at = inf  # since when it has had none
        self._inbox = _channel.Inbox(socket)
        self._reserve = reserve
        self.arrivals = Arrivals(self._inbox, ring.leases)
        self._out: deque[tuple[memoryview, File | ItemBlock | None]] = deque()
        self._frames = 0
        self._heap_tail = 0
        self._last_slot, self.last_end = SLOTS - 1, monotonic()
        self._last_start = ring.starts[SLOTS - 1] = ring.ends[SLOTS - 1] = self.last_end
        self._known: dict[int, ItemBlock] = {}  # our blocks that the worker has mapped

    def close(self) -> None:
        self._known.clear()
        self._out.clear()
        self.arrivals.close()
        self._inbox.close()
        self.socket.close()
        self.ring.close()

    # Out

    def send(self, message: bytes, file: File | ItemBlock | None = None) -> None:
        """Queue a message for the next ``flush``: each write to the socket may wake the worker."""
        self._out.append((memoryview(message), file))

    def send_payload(self, kind: int, head: bytes, payload: bytes | File) -> None:
        if isinstance(payload, File):
            self.send(_channel.frame(kind, head, payload.header, file_length=payload.length), payload)
        else:
            self.send(_channel.frame(kind, head, payload))

    def send_batch(self, batch: Batch) -> None:
        """Send a batch as frames; an item in a file or a block has a frame of its own."""
        number, payloads = batch.lane.number, batch.payloads
        if payloads is None:
            self._send_together(number, items_of(batch.tickets))
            return
        for alone, group in groupby(payloads, lambda payload: not isinstance(payload, bytes)):
            some: list[Any] = list(group)
            if alone:
                for payload in some:
                    self._send_alone(number, payload)
            else:
                head = _channel.BATCH_HEAD.pack(number, len(some), _channel.ONE_BY_ONE)
                lengths = array("I", map(len, some)).tobytes()
                self.send(_channel.frame(_channel.BATCH, head, lengths, *some))

    def _send_together(self, number: int, items: list[Any]) -> None:
        """Send items as one pickle; each by itself if huge integers make it too long for a frame, such an integer in a file."""
        packed = dumps(items, 5)
        if len(packed) <= _channel.LONGEST // 2:
            head = _channel.BATCH_HEAD.pack(number, len(items), _channel.TOGETHER)
            self.send(_channel.frame(_channel.BATCH, head, packed))
        elif len(items) > 1:
            for item in items:
                self._send_together(number, [item])
        else:
            self._send_alone(number, file_of(dumps(items[0], 5)))

    def _send_alone(self, number: int, payload: File | Buffered) -> None:
        if isinstance(payload, File):
            head = _channel.BATCH_HEAD.pack(number, 1, _channel.ONE_BY_ONE)
            self.send_payload(_channel.BATCH, head, payload)
            return
        block = payload.block
        head = _channel.BATCH_HEAD.pack(number, 1, _channel.BUFFERED_ITEM)
        item = dumps((block.number, payload.spans, payload.blob), 5)
        if block.number in self._known:
            self.send(_channel.frame(_channel.BATCH, head, item))
        else:
            self._known[block.number] = block
            self.send(_channel.frame(_channel.BATCH, head, item, file_length=block.size), block)

    def forget_block(self, number: int) -> None:
        """Have the worker unmap one of our blocks."""
        if self._known.pop(number, None) is not None:
            self.send(_channel.frame(_channel.FORGET_BLOCK, _channel.WORD.pack(number)))

    def flush(self) -> None:
        """Write what the socket takes; the rest waits, also for room in the system (descriptors in flight, memory).

        That a worker is gone is noticed by its pidfd, not here.
        """
        self.again_at = inf
        while self._out:
            messages, file = self._first_out()
            try:
                rights = _channel.rights(file.fd) if file is not None else []
                done = self.socket.sendmsg(messages, rights, _channel.NO_SIGNAL)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._out.clear()
                return
            except OSError as error:
                if error.errno not in _channel.NO_ROOM:
                    raise
                self._refused_at = min(self._refused_at, now := monotonic())
                self.again_at = now + max(_channel.PAUSE, now - self._refused_at)  # ever more seldom
                return
            self._refused_at = inf
            for message in messages:
                if done < len(message):
                    self._out[0] = (message[done:], None)
                    break
                done -= len(message)
                self._out.popleft()

    def _first_out(self) -> tuple[list[memoryview], File | ItemBlock | None]:
        """What one write may send: a message with a file, or several without."""
        message, file = self._out[0]
        if file is not None:
            return [message], file
        bare = takewhile(lambda entry: entry[1] is None, islice(self._out, MOST_AT_ONCE))
        return [message for message, _ in bare], None

    @property
    def is_full(self) -> bool:
        """Whether something waits for the socket to take more."""
        return bool(self._out) and self.again_at == inf

    # In

    def frames(self, reads: int) -> Iterator[tuple[int, bytes, int]]:
        """The frames that so many reads of the socket bring; at least all that the worker sent before the commits that we see."""
        _channel.barrier()
        promised = self.ring.head[SENT]
        if promised > self._frames + UNREAD:
            raise GarbageError(f"it says that it sent {promised} frames")
        try:
            while (reads > 0 or self._frames < promised) and self._receive():
                reads -= 1
                while (taken := self._inbox.take()) is not None:
                    self._frames += taken[0] != _channel.RECORD_OF_CHILD
                    yield taken
        finally:
            self._reserve.refill()
        if self._frames < promised:
            raise GarbageError(f"it says that it sent {promised} frames, of which {self._frames} came")

    def _receive(self) -> bool:
        if self.at_end:
            return False
        if self.ring.head[_channel.FDS] != self._inbox.came:
            self._reserve.lend()
        try:
            self.at_end = not self._inbox.receive()
        except BlockingIOError:
            return False
        except OSError:
            self.at_end = True
        return not self.at_end

    @property
    def has_frames(self) -> bool:
        """Whether the worker has sent frames that we have not read."""
        return self.ring.head[SENT] > self._frames

    def check(self) -> None:
        """Raise GarbageError if something has overwritten the words that only we write, or the last drained slot."""
        head = self.ring.head
        if head[MARK] != MARKED or head[TAIL] != self._heap_tail:
            raise GarbageError("the header of its ring is overwritten")
        if not self.has_columns:
            raise GarbageError("the columns of its ring are overwritten")

    @property
    def has_columns(self) -> bool:
        """Whether the start and end in the last drained slot are as they were, so that nothing has overwritten them."""
        starts, ends, last = self.ring.starts, self.ring.ends, self._last_slot
        return bool(starts[last] == self._last_start and ends[last] == self.last_end)

    def take(self, slot: int, count: int, each: bool) -> RawColumns:
        """Copy the results of these slots, and free their room in the heap; ``each``: check the times of every attempt."""
        ring, end = self.ring, slot + count
        kinds = bytes(ring.kinds[slot:end])
        started = array("d", ring.starts[slot:end].tobytes())
        ended = array("d", ring.ends[slot:end].tobytes())
        check_kinds(kinds)
        check_instants(started, ended, self.last_end, monotonic(), each)
        if kinds.strip(b"\0"):
            columns = self._take_things(slot, end, started, ended, kinds)
        else:  # nothing but None
            columns = RawColumns(started, ended, kinds, b"", b"", 0, [], b"")
        # Only now: if a result makes no sense, the first of these attempts is the one that had begun and is not taken.
        self._last_slot, self._last_start, self.last_end = end - 1, started[-1], ended[-1]
        return columns

    def _take_things(
        self, slot: int, end: int, started: array[float], ended: array[float], kinds: bytes
    ) -> RawColumns:
        ring, arrivals, heap_from = self.ring, self.arrivals, self._heap_tail
        words = ring.words[slot:end].tobytes()
        last = max(map(kinds.rfind, _IN_HEAP))
        heap = self._take_heap(ring.words[slot + last]) if last >= 0 else b""
        files = arrivals.take(slot, kinds, ring.words[slot:end])
        return RawColumns(
            started, ended, kinds, words, heap, heap_from, files, arrivals.keys, arrivals.classes
        )

    def _take_heap(self, last: int) -> bytes:
        """Copy the pickles up to the last, which lie one after another in the circular heap, and free their room."""
        place, heap = last >> _channel.PLACE, self.ring.heap
        start, end = self._heap_tail, place + (last & _channel.LENGTH_MASK)
        if not 0 <= place < end <= HEAP or heap[place] != _BEGIN or heap[end - 1] not in _ENDS:
            raise GarbageError(f"no result from {place} to {end} of {HEAP}")
        piece = bytes(heap[start:end]) if end > start else bytes(heap[start:]) + bytes(heap[:end])
        self._heap_tail = self.ring.head[TAIL] = end
        return piece

    def spoil_block(self, number: int) -> None:
        """Never use a block again: a task has kept something of its item, which lies in there."""
        if (block := self._known.pop(number, None)) is not None:
            block.spoiled = True


_IN_HEAP = (_channel.VALUE, _channel.FAILED, _channel.BUFFERED, _channel.DICT)
_BEGIN, _ENDS = 0x80, b".su"  # of a pickle, and of a dict's, which breaks off before its end
