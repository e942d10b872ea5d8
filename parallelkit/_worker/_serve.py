"""The life of a worker: take batches from the socket, run them one by one, commit each result to the ring.

A result is committed before the next task begins, so whatever ends this process afterwards, the parent
has it. Whoever reads ``_run`` reads the protocol: the order of its stores is what the parent relies on.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from _pickle import loads
from _socket import socket as Socket  # noqa: N812  # a class
from collections.abc import Callable, Iterable
from mmap import mmap
from time import monotonic

from parallelkit._raised import give_traceback, traceback_of
from parallelkit._worker import _channel, _faults, _lifeline, _script
from parallelkit._worker._buffers import InBlocks, load_shared
from parallelkit._worker._call import bind
from parallelkit._worker._channel import (
    ARMED,
    BATCH_HEAD,
    EACH,
    HEAD,
    LENGTH,
    LIMIT,
    MASK,
    NONE,
    PHASE,
    WORD,
    frame,
)
from parallelkit._worker._logs import capture_warnings, forward_logs
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._slots import Slots
from parallelkit._worker._surroundings import Surroundings, furnish
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any, NoReturn


def serve(socket: int, ring: int, lifeline: int) -> NoReturn:
    """Work for the parent until it says stop, or is gone."""
    _lifeline.arm(lifeline)
    worker = _Worker(_channel.socket_of(socket), _channel.Ring(ring))
    _report_stacks(ring)
    try:
        worker.serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, and the lifeline is about to end us
    finally:
        _flush_streams()
    os._exit(0)


def _report_stacks(ring: int) -> None:
    """On a crash, and when the parent asks before it kills, the stack is written into the ring, even without the GIL."""
    os.lseek(ring, _channel.SIZE - _channel.STACK, os.SEEK_SET)
    faulthandler.enable(ring, all_threads=False)
    faulthandler.register(_channel.STACK_SIGNAL, ring, all_threads=False)
    os.register_at_fork(after_in_child=faulthandler.disable)  # the crash of a task's child is not ours


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed, or replaced by a task


class _Worker:
    def __init__(self, socket: Socket, ring: _channel.Ring) -> None:
        self.ring = ring
        self.inbox = _channel.Inbox(socket)
        self.outbox = Outbox(socket, ring)
        self.blocks = InBlocks(self.outbox)
        self._file: mmap | None = None
        self._own: mmap | None = None  # what of it a job may write to
        self.jobs: dict[int, Callable[[Any], Any]] = {}

    def serve(self) -> None:
        if not self._set_up(loads(self._next_frame()[1])):
            return
        self._tell_phase(_channel.WAITING)
        self.outbox.send(frame(_channel.READY))
        while True:
            kind, body = self._next_frame()
            if kind == _channel.STOP:
                return
            if not self._obey(kind, body):
                self._stand_still()

    def _next_frame(self) -> tuple[int, bytes]:
        while (taken := self.inbox.take()) is None:
            if not self.inbox.receive():
                raise BrokenPipeError
        kind, body, length = taken
        self._file = self._map_file(length, kind, body) if length else None
        return kind, body

    def _map_file(self, length: int, kind: int, body: bytes) -> mmap:
        fd = self.inbox.take_fd()
        try:
            if kind == _channel.JOB and len(body) > WORD.size:
                _, own = loads(memoryview(body)[WORD.size :])
                self._own = _channel.map_file(fd, own, own=True) if own else None
            return _channel.map_file(fd, length, to_read=kind == _channel.JOB)
        finally:
            os.close(fd)

    def _take_file(self) -> mmap | None:
        """What came with the last frame. Nobody else keeps a reference to it: by these we see who uses a block."""
        file, self._file = self._file, None
        return file

    def _set_up(self, setup: dict[str, Any]) -> bool:
        furnish(setup)
        self.slots = Slots(self.ring, self.outbox, setup["blocks"])
        _channel.set_outer_width(setup["width"])
        forward_logs(self._send_record, setup["levels"], setup["disabled"])
        if setup["captured"]:
            capture_warnings()
        self.surroundings = Surroundings(setup["warnings"])
        try:
            if setup["initializer"]:
                _, body = self._next_frame()
                _script.initialize(lambda: unpack(self._take_file() or body))
        except BaseException as error:
            self.outbox.send(frame(_channel.UNREADY, _faults.capture(error)))
            return False
        self.surroundings.keep()
        return True

    def _tell_phase(self, phase: int) -> None:
        self.ring.head[PHASE] = phase

    def _obey(self, kind: int, body: bytes) -> bool:
        """Do what a frame asks for; False where the parent has set a limit that was reached."""
        if kind == _channel.BATCH:
            return self._run_batch(body)
        if kind == _channel.JOB:
            self._load(WORD.unpack_from(body)[0], self._take_file(), body[WORD.size :])
        elif kind == _channel.FORGET:
            self.jobs.pop(WORD.unpack(body)[0], None)
        elif kind == _channel.FORGET_BLOCK:
            self.blocks.forget(WORD.unpack(body)[0])
        return True

    def _stand_still(self) -> None:
        """The parent took back what we have not begun: drop it, and say where we stopped."""
        self.outbox.send(frame(_channel.STOPPED, WORD.pack(self.ring.head[HEAD])))
        while True:
            kind, body = self._next_frame()
            if kind == _channel.RESUME:
                self.ring.head[LIMIT] = _channel.UNLIMITED
                return
            if kind != _channel.BATCH:
                self._obey(kind, body)
            elif BATCH_HEAD.unpack_from(body)[2] == _channel.BUFFERED_ITEM:
                self._learn_block(body)  # the parent will not send the block again

    def _load(self, number: int, file: mmap | None, told: bytes) -> None:
        """Learn the function of a job. Its module may take long to import: that is not the task's time."""
        self._tell_phase(_channel.LOADING + number)
        try:
            if file is not None and told:
                own, self._own = self._own, None
                spans, end = loads(told)
                call = bind(*load_shared(file, own, spans))
                self.jobs[number] = _told(call) if end < spans[-1][0] else call
            else:
                self.jobs[number] = bind(*unpack(file or told))
        except BaseException as error:
            self.jobs[number] = _raiser(error)
        self.surroundings.keep()
        self._tell_phase(_channel.WAITING)

    def _run_batch(self, body: bytes) -> bool:
        number, count, how = BATCH_HEAD.unpack_from(body)
        call = self.jobs[number]
        if how == _channel.TOGETHER:
            return self._run(call, loads(memoryview(body)[BATCH_HEAD.size :]))
        if how == _channel.BUFFERED_ITEM:
            return self._run_buffered(call, self._learn_block(body))
        file = self._take_file()
        return self._run(lambda blob: call(unpack(blob)), [file] if file else _cut(body, count))

    def _learn_block(self, body: bytes) -> tuple[int, list[tuple[int, int]], bytes]:
        """What a buffered item is: its block, which comes along the first time, the places in it, the pickle."""
        block, spans, blob = loads(memoryview(body)[BATCH_HEAD.size :])
        if (file := self._take_file()) is not None:
            self.blocks.add(block, file)
        return block, spans, blob

    def _run_buffered(
        self, call: Callable[[Any], Any], item: tuple[int, list[tuple[int, int]], bytes]
    ) -> bool:
        block, spans, blob = item
        return self._run(
            lambda _: call(self.blocks.load(block, blob, spans)),
            (None,),
            lambda: self.blocks.give_back(block),
        )

    def _run(
        self, call: Callable[[Any], Any], payloads: Iterable[Any], let_go: Callable[[], None] | None = None
    ) -> bool:
        """Run tasks in order, and ``let_go`` after each; False where the limit cut them short."""
        ring, puts, put_object, around = self.ring, self.slots.puts, self.slots.put_object, self.surroundings
        head, starts, ends, kinds = ring.head, ring.starts, ring.ends, ring.kinds
        touched, trace, profile, path = around.touched, around.trace, around.profile, around.path
        gettrace, getprofile = sys.gettrace, sys.getprofile
        self.slots.dicts.looked = False
        number, now = head[HEAD], monotonic()  # an attempt begins when the one before has ended
        for payload in payloads:
            # Looked at after the last commit and before the start: that order lets the parent take back.
            if number >= head[LIMIT]:
                return False
            slot = number & MASK
            starts[slot] = now
            try:
                value = call(payload)
            except BaseException as error:
                sys.settrace(trace)  # before any call of ours: what the task has set may raise
                around.put_back(error)
                self.slots.put_failure(slot, _faults.capture(error))
            else:
                if touched or gettrace() is not trace or getprofile() is not profile or sys.path != path:
                    sys.settrace(trace)
                    around.put_back()
                if value is None:
                    kinds[slot] = NONE
                else:
                    puts.get(type(value), put_object)(slot, value)
                    value = None
            if let_go is not None:
                let_go()
            ends[slot] = now = monotonic()
            number += 1
            if _channel.WEAKLY_ORDERED:
                _channel.barrier()
            head[HEAD] = number
            bell = head[ARMED]
            if bell and number >= bell:
                now = self._ring(bell)
        return True

    def _ring(self, bell: int) -> float:
        """Wake the parent; the instant when that is done."""
        if bell != EACH:
            self.ring.head[ARMED] = 0
        self.outbox.send(_BELL)
        return monotonic()

    def _send_record(self, record: bytes) -> None:
        self.outbox.post(frame(_channel.RECORD, WORD.pack(self.ring.head[HEAD]) + record))


_BELL = frame(_channel.BELL)


def _cut(body: bytes, count: int) -> Iterable[bytes]:
    """The pickles of a batch: a column of lengths, then one after the other."""
    at = BATCH_HEAD.size + count * LENGTH.size
    for (length,) in LENGTH.iter_unpack(memoryview(body)[BATCH_HEAD.size : at]):
        yield body[at : at + length]
        at += length


SHARED = "large arrays in args= and kwargs= are one for all worker processes, and so read-only: copy it in the task (array.copy())"


def _told(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Where a task tries to write to what all share, the error says so: numpy's knows no reason."""

    def told(item: Any) -> Any:
        try:
            return call(item)
        except ValueError as error:
            if type(error) is ValueError and "read-only" in str(error):
                error.add_note(SHARED)
            raise

    return told


def _raiser(error: BaseException) -> Callable[[Any], NoReturn]:
    """A function that could not be loaded: every attempt of it fails with the reason."""
    frames = traceback_of(error)

    def fail(item: object) -> NoReturn:
        raise give_traceback(error, frames)

    return fail
