"""Writes results into the slots of the ring, by whichever way suits their type and size."""

from __future__ import annotations

import os
from _pickle import dumps
from collections.abc import Callable
from sys import modules

from parallelkit._raised import add_note, in_short
from parallelkit._worker import _channel, _connections, _faults
from parallelkit._worker._buffers import OutBlocks, as_buffer, layout
from parallelkit._worker._by_name import dump_by_name
from parallelkit._worker._channel import (
    BLOCK_NUMBER,
    BUFFERED,
    CLASS,
    DICT,
    FAILED,
    FALSE,
    FLOAT,
    HEAP,
    INT,
    KEY,
    LARGE,
    PLACE,
    TAIL,
    TRUE,
    VALUE,
    frame,
)
from parallelkit._worker._dicts import MOST, Dicts
from parallelkit._worker._global_generators import HINT, may_have_global
from parallelkit._worker._numpy_numbers import puts_for
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._result_classes import ResultClasses
from parallelkit._worker._script import MARK, is_meant
from parallelkit._worker._storages import STORAGES
from parallelkit._worker._travel import Apart, pack, pack_by_value

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    Put = Callable[[int, Any], None]


class Slots:
    """Fills slots. It does not commit them: ``_serve`` increments ``HEAD``."""

    def __init__(self, ring: _channel.Ring, outbox: Outbox, blocks: int) -> None:
        self._ring = ring
        self._head, self._heap, self._kinds = ring.head, ring.heap, ring.kinds
        self._words, self._floats = ring.words, ring.floats
        self._outbox = outbox
        self._heap_head = 0
        self._blocks = OutBlocks(ring, outbox, blocks)
        self._apart = Apart()
        self.classes = ResultClasses(
            lambda number, packed: outbox.send(frame(CLASS, _channel.WORD.pack(number), packed))
        )
        self.dicts = Dicts(lambda number, key: outbox.send(frame(KEY, _channel.WORD.pack(number), key)))
        self.puts: dict[type, Put] = {
            bool: self._put_bool,
            int: self._put_int,
            float: self._put_float,
            bytes: self._put_bytes,
            bytearray: self._put_bytes,
            dict: self._put_dict,
        }
        """The types that have a faster way than ``put_object``."""
        self._has_numbers = False  # whether they include numpy's

    def begin(self) -> None:
        """Called before each batch."""
        self.dicts.looked = False
        if not self._has_numbers and "numpy" in modules:
            numbers = puts_for(self._ring)
            self.puts.update(numbers)
            self._has_numbers = bool(numbers)

    def _put_bool(self, slot: int, value: bool) -> None:
        self._kinds[slot] = TRUE if value else FALSE

    def _put_int(self, slot: int, value: int) -> None:
        try:
            self._words[slot] = value
        except ValueError:  # more than 64 bits
            self.put_object(slot, value)
        else:
            self._kinds[slot] = INT

    def _put_float(self, slot: int, value: float) -> None:
        self._floats[slot] = value
        self._kinds[slot] = FLOAT

    def _put_bytes(self, slot: int, value: bytes | bytearray) -> None:
        """Large bytes travel as a buffer."""
        self.put_object(slot, as_buffer(value))

    def _put_dict(self, slot: int, value: dict[Any, Any]) -> None:
        """As a part of one pickle (_dicts.py), as long as all dicts of this batch have been small and plain."""
        dicts, head = self.dicts, self._heap_head
        first = not dicts.looked
        if first:
            dicts.look(value)
        blob = dicts.dump(value) if dicts.fit and value else None
        if blob is None:
            self.put_object(slot, value)
            if value:
                dicts.fit = first and 0 < self._heap_head - head <= MOST
            return
        length = len(blob)
        at = head if head + length < HEAP and head >= self._head[TAIL] else self._find_room(length)
        if at < 0:
            self.put_object(slot, value)
            return
        end = at + length
        self._heap[at:end] = blob
        self._heap_head = end - 1  # the next pickle overwrites the last byte, which only ends this one
        self._words[slot] = at << PLACE | length - 1
        self._kinds[slot] = DICT

    def put_object(self, slot: int, value: object) -> None:
        """Pickle the value; if it cannot be pickled, or there is no room for it, the task has failed."""
        apart, at = self._apart, self._heap_head
        if apart.buffers or apart.left:
            apart.forget()  # of a value that could not be pickled
        # All of the common case is inlined: one more call would cost half as much as the rest.
        try:
            try:
                known = self.classes.known
                by_name = known or STORAGES in modules
                blob = (
                    dump_by_name(value, apart, known) if by_name else dumps(value, 5, buffer_callback=apart)
                )
            except Exception:
                blob = pack_by_value(value, apart, editions=self.classes)
            else:
                bare = apart.bare(blob) if apart.left else blob
                if (
                    (bare.rfind(MARK) >= 0 and is_meant(bare))
                    or (_connections.MODULE in modules and bare.rfind(_connections.MARK) >= 0)
                    or ("random" in modules and bare.rfind(HINT) >= 0 and may_have_global(bare))
                ):
                    blob = pack_by_value(value, apart, editions=self.classes)
            length = len(blob)
            end = at + length
            if apart.buffers:
                self._put_buffered(slot, value, blob)
            elif length > LARGE or end >= HEAP or at < self._head[TAIL]:
                self._put(slot, VALUE, blob)
            else:
                self._heap_head = end
                self._heap[at:end] = blob
                self._words[slot] = at << PLACE | length
                self._kinds[slot] = VALUE
        except (OSError, MemoryError) as error:  # no room for it
            add_note(error, "the value of the task could not be sent")  # its own text may be "File too large"
            self.put_failure(slot, _faults.capture(error))
        except Exception as error:
            self.put_failure(slot, _faults.capture_unsendable(value, error))
        except BaseException as error:  # its class exits: not a pickling error, but the task's own end
            self.put_failure(slot, _faults.capture(error))

    def put_failure(self, slot: int, blob: bytes) -> None:
        """Write what ``_faults`` has made of an error; if there is no room for it, the error that says so, and tells of it."""
        try:
            self._put(slot, FAILED, blob)
        except OSError as lack:
            lack.__context__ = None  # that error, which is not to come along
            add_note(
                lack, f"there was no room for the error of the task: {in_short(_faults.shown_in(blob), 1000)}"
            )
            self._put(slot, FAILED, _faults.capture(lack))

    def _put(self, slot: int, kind: int, blob: bytes) -> None:
        """Into the heap; if it is large, or the heap is full, into a file."""
        length = len(blob)
        at = self._find_room(length)
        if at < 0:
            self._put_file(slot, kind + 1, blob)
            return
        self._heap_head = end = at + length
        self._heap[at:end] = blob
        self._words[slot] = at << PLACE | length
        self._kinds[slot] = kind

    def _find_room(self, length: int) -> int:
        """A place in the heap, or -1."""
        return _channel.place(length, self._head[TAIL], self._heap_head) if length <= LARGE else -1

    def _put_buffered(self, slot: int, value: object, blob: bytes) -> None:
        """Copy its buffers into a block; if the parent is using all blocks, or the heap is full, pickle it in one piece instead."""
        buffers = self._apart.take()
        spans, size = layout(buffers)
        told = dumps((spans, blob), 5)
        has_room = self._find_room(len(told)) >= 0  # asked first: a block that is taken must reach the parent
        number = self._blocks.put(buffers, spans, size) if has_room else None
        if number is None:
            self._put(slot, VALUE, pack(value))
            return
        self._put(slot, BUFFERED, told)
        self._words[slot] |= number << BLOCK_NUMBER

    def _put_file(self, slot: int, kind: int, blob: bytes) -> None:
        """Into a file, whose descriptor is sent, with the slot, before that is committed: a signal may keep it from being used."""
        fd = _channel.new_file("parallelkit-result")
        try:
            _channel.write_all(fd, blob)
            self._outbox.send(frame(_channel.BIG_RESULT, _channel.WORD.pack(slot), file_length=len(blob)), fd)
        finally:
            os.close(fd)
        self._words[slot] = len(blob)
        self._kinds[slot] = kind
