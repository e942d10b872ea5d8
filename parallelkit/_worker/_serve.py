"""The main loop of a worker: takes batches from the socket, runs their tasks, commits each result to the ring.

A result is committed before the next task begins, so the parent has it whatever ends this process
afterwards. ``_Worker._run`` is the protocol: the parent relies on the order of its stores.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` may be a module of the program
import faulthandler
import os
import sys
from _pickle import loads
from _socket import socket as Socket  # noqa: N812  # a class
from collections.abc import Callable, Iterable
from mmap import mmap

from parallelkit._system import monotonic
from parallelkit._worker import _call_functions, _channel, _faults, _initial, _lifeline, _script
from parallelkit._worker._buffers import InBlocks
from parallelkit._worker._channel import (
    BATCH_HEAD,
    EACH,
    HEAD,
    LENGTH,
    LIMIT,
    MASK,
    NEVER,
    NONE,
    PHASE,
    WAKE_AT,
    WORD,
    frame,
)
from parallelkit._worker._jobs import load_job, noting, raiser
from parallelkit._worker._logs import forward_logs
from parallelkit._worker._outbox import Outbox
from parallelkit._worker._slots import Slots
from parallelkit._worker._surroundings import Surroundings, flush, furnish
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from parallelkit._worker._jobs import Job


_unpack_together = noting(loads, "the item")


def serve(socket: int, ring: int, lifeline: int) -> NoReturn:
    """Work for the parent until it sends STOP, or is gone."""
    for fd in (socket, ring, lifeline):
        os.set_inheritable(fd, False)  # no program that a task starts is to have it
    _lifeline.arm(lifeline)
    _script.give_classes()
    worker = _Worker(_channel.socket_of(socket), _channel.Ring(ring))
    worker.outbox.share(ring)
    _report_stacks(ring)
    try:
        worker.serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, and the lifeline is about to end us
    finally:
        flush(sys.stdout, sys.stderr)
    os._exit(0)


def _report_stacks(ring: int) -> None:
    """Have the stack written into the ring on a crash, and on the parent's signal before a kill; this needs no GIL."""
    os.lseek(ring, _channel.SIZE - _channel.STACK, os.SEEK_SET)
    faulthandler.enable(ring, all_threads=False)
    faulthandler.register(_channel.STACK_SIGNAL, ring, all_threads=False)
    os.register_at_fork(after_in_child=faulthandler.disable)  # a crash of a task's child is not ours
    # A program that receives its signals by ``sigwait`` may have blocked them all.
    crashes = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_channel.STACK_SIGNAL, *crashes))


class _Worker:
    def __init__(self, socket: Socket, ring: _channel.Ring) -> None:
        self.ring = ring
        self.inbox = _channel.Inbox(socket)
        self.outbox = Outbox(socket, ring)
        self.blocks = InBlocks(self.outbox)
        self._file: mmap | OSError | None = None
        self._own: mmap | None = None  # the part of it that a job may write to, mapped privately
        self.jobs: dict[int, Job] = {}

    def serve(self) -> None:
        if not self._set_up(loads(self._next_frame()[1])):
            return
        self.ring.head[PHASE] = _channel.WAITING
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
        try:
            self._file = self._map_file(length, kind, body) if length else None
        except OSError as error:
            if self.ring.head[HEAD]:
                raise  # a new worker, in which no task has been, may have room
            lack = f"{error.strerror} in a worker process, for {length:,} bytes that were sent to it"
            self._file = OSError(error.errno, lack)
        return kind, body

    def _map_file(self, length: int, kind: int, body: bytes) -> mmap:
        fd = self.inbox.take_fd()
        job = kind == _channel.JOB
        try:
            if job and len(body) > WORD.size:
                _, own = loads(memoryview(body)[WORD.size :])
                self._own = _channel.map_file(fd, own, own=True) if own else None
            return _channel.map_file(fd, length, to_read=job, keeps_fd=not job)
        finally:
            os.close(fd)

    def _take_file(self) -> mmap | None:
        """The file that came with the last frame; we keep no reference to it.

        Raises OSError if there was no room for it.
        """
        file, self._file = self._file, None
        if isinstance(file, OSError):
            raise file
        return file

    def _set_up(self, setup: dict[str, Any]) -> bool:
        _channel.set_inherited_width(setup["width"])  # first: ``site`` may run code that asks for it
        furnish(setup)
        self.slots = Slots(self.ring, self.outbox, setup["blocks"])
        forward_logs(self._send_record, setup)
        self.surroundings = Surroundings(setup["warnings"])
        _call_functions.attach(self.ring, self.surroundings.keep)
        try:
            if setup["initializer"]:
                _, body = self._next_frame()
                _initial.initialize(lambda: unpack(self._take_file() or body))
        except BaseException as error:
            self.outbox.send(frame(_channel.UNREADY, _faults.capture(error)))
            return False
        return True

    def _obey(self, kind: int, body: bytes) -> bool:
        """Do what a frame asks for; False if a batch was cut short by the parent's limit."""
        if kind == _channel.BATCH:
            return self._run_batch(body)
        if kind == _channel.JOB:
            self._load(WORD.unpack_from(body)[0], body[WORD.size :])
        elif kind == _channel.FORGET:
            _call_functions.forget(number := WORD.unpack(body)[0])
            self.jobs.pop(number, None)
            self.slots.classes.known.clear()
        elif kind == _channel.DEFINITION:
            _call_functions.define(WORD.unpack_from(body)[0], body[WORD.size :])
        elif kind == _channel.FORGET_BLOCK:
            self.blocks.forget(WORD.unpack(body)[0])
        return True

    def _stand_still(self) -> None:
        """The parent has taken back what we have not begun: say where we stopped, and drop batches until RESUME."""
        self.outbox.send(frame(_channel.STOPPED, WORD.pack(self.ring.head[HEAD])))
        while True:
            kind, body = self._next_frame()
            if kind == _channel.RESUME:
                self.ring.head[LIMIT] = _channel.UNLIMITED
                return
            if kind != _channel.BATCH:
                self._obey(kind, body)
            elif BATCH_HEAD.unpack_from(body)[2] == _channel.BUFFERED_ITEM:
                self._learn_block(body)  # keep its block, which the parent will not send again

    def _load(self, number: int, body: bytes) -> None:
        """Load the function of a job, outside the time of any task: its module may take long to import."""
        self.ring.head[PHASE] = _channel.LOADING + number
        try:
            own, self._own = self._own, None
            self.jobs[number] = load_job(body, self._take_file(), own)
        except BaseException as error:
            self.jobs[number] = raiser(error), raiser(error)  # an item might raise another
        self.surroundings.keep()
        self.ring.head[PHASE] = _channel.WAITING

    def _run_batch(self, body: bytes) -> bool:
        number, count, how = BATCH_HEAD.unpack_from(body)
        load, call = self.jobs[number]
        if how == _channel.TOGETHER:
            return self._run(*self._unpack(call, count, memoryview(body)[BATCH_HEAD.size :]))
        if isinstance(self._file, OSError):
            if how == _channel.BUFFERED_ITEM:  # the parent would not send its block again
                self.outbox.send(frame(_channel.KEPT, WORD.pack(loads(body[BATCH_HEAD.size :])[0])))
            return self._run(raiser(self._file), (None,))
        if how == _channel.BUFFERED_ITEM:
            block, spans, blob = self._learn_block(body)
            return self._run(
                lambda _: call(load(*self.blocks.parts(block, spans, blob))),
                (None,),
                lambda: self.blocks.give_back(block),
            )
        file = self._take_file()
        return self._run(lambda blob: call(load(blob)), [file] if file else _cut(body, count))

    def _unpack(
        self, call: Callable[[Any], Any], count: int, packed: memoryview[int]
    ) -> tuple[Callable[[Any], Any], Iterable[Any]]:
        """The call and the items of one pickle. The first numbers of numpy import that, which may fail."""
        known = len(sys.modules)
        try:
            items = _unpack_together(packed)
        except Exception as error:
            return raiser(error), (None,) * count
        if len(sys.modules) != known:
            self.surroundings.keep()
        return call, items

    def _learn_block(self, body: bytes) -> tuple[int, list[tuple[int, int]], bytes]:
        """Of a buffered item: its block's number, the spans in the block, the pickle if that is not in it. A new block is added."""
        block, spans, blob = loads(memoryview(body)[BATCH_HEAD.size :])
        if (file := self._take_file()) is not None:
            self.blocks.add(block, file)
        return block, spans, blob

    def _run(  # noqa: C901  # a function of its own for a part would cost each task more than the part
        self, call: Callable[[Any], Any], payloads: Iterable[Any], let_go: Callable[[], None] | None = None
    ) -> bool:
        """Run tasks in order, and call ``let_go`` after each; False if the parent's limit cut them short."""
        ring, puts, put_object, around = self.ring, self.slots.puts, self.slots.put_object, self.surroundings
        head, starts, ends, kinds = ring.head, ring.starts, ring.ends, ring.kinds
        touched, trace, profile, path = around.touched, around.trace, around.profile, around.path
        gettrace, getprofile = sys.gettrace, sys.getprofile
        self.slots.begin()
        number, now = head[HEAD], monotonic()  # an attempt begins when the one before has ended
        for payload in payloads:
            # Read after the last commit and before the start: the parent relies on that order to take tasks back.
            if number >= head[LIMIT]:
                return False
            slot = number & MASK
            starts[slot] = now
            try:
                value = call(payload)
            except BaseException as error:
                if gettrace() is not trace:  # debuggers warn of each call of settrace
                    sys.settrace(trace)  # before any call of ours: the task may have set one that raises
                around.put_back(error)
                self.slots.put_failure(slot, _faults.capture(error))
            else:
                if touched or gettrace() is not trace or getprofile() is not profile or sys.path != path:
                    if gettrace() is not trace:
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
            wake_at = head[WAKE_AT]
            if wake_at and number >= wake_at:  # NEVER is 0
                now = self._wake_parent(wake_at)
        return True

    def _wake_parent(self, wake_at: int) -> float:
        """Wake the parent; return the instant afterwards, when the next attempt begins."""
        if wake_at != EACH:
            self.ring.head[WAKE_AT] = NEVER
        self.outbox.send(_WAKE)
        return monotonic()

    def _send_record(self, record: bytes) -> None:
        kind = _channel.RECORD_OF_CHILD if self.outbox.is_of_child() else _channel.RECORD
        self.outbox.post(frame(kind, WORD.pack(self.ring.head[HEAD]), record))


_WAKE = frame(_channel.WAKE)


def _cut(body: bytes, count: int) -> Iterable[bytes]:
    """The pickles of a batch, which is a column of lengths and then the pickles one after another."""
    at = BATCH_HEAD.size + count * LENGTH.size
    for (length,) in LENGTH.iter_unpack(memoryview(body)[BATCH_HEAD.size : at]):
        yield body[at : at + length]
        at += length
