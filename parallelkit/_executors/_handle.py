"""One worker process as the supervisor sees it: what it was given, what it has committed, how it ends.

All methods are called by the supervisor's thread. None of them blocks, and none runs the user's code.
"""

from __future__ import annotations

import os
import signal
from math import inf
from threading import Event
from time import monotonic
from typing import Any

from parallelkit._executors._contract import Ticket
from parallelkit._executors._holding import LOOK, Holding
from parallelkit._executors._lane import Batch, File, Lane, Record, Span
from parallelkit._executors._spawn import Spawned, cut_lifeline, setup_frame
from parallelkit._executors._wire import Wire
from parallelkit._worker import _channel
from parallelkit._worker._channel import MASK, SLOTS, WORD, GarbageError, frame

LAST_WORDS = 0.015
"""Seconds that an overdue worker has at most to write down its stack."""

FORESIGHT = 0.15
"""Seconds, or half of the timeout, before an attempt is overdue, in which whoever may replace its worker is made ready."""

START_LIMIT = 60.0
"""Seconds that a worker may take to start, its initializer included."""

LOAD_LIMIT = 300.0
"""Seconds that it may take to load a function, with all the imports that go with it."""


class Worker(Holding):
    """Holds the attempts of at most one lane at a time, so that ending it touches one run only."""

    def __init__(self, born: Spawned, width: int, initializer: bytes | File | None, now: float) -> None:
        super().__init__()
        self.pid, self._process, self.pidfd, socket, ring, self._lifeline = born
        self.label = f"process {self.pid}"
        self.wire = Wire(socket, ring)
        self.known: set[int] = set()
        self.ready = False
        self.retiring = False
        self.refusal: bytes | None = None  # what its initializer raised
        self.doomed = False  # what it runs is overdue, and it is about to be killed for that
        self.in_danger = False  # what it runs will soon be overdue
        self.garbage = False  # killed because what it writes makes no sense
        self.dismissed = False  # killed because its lane was closed
        self.gone = Event()
        self.awaited = -1  # what the supervisor's epoll listens for on its socket
        self.check_at = inf
        self.deadline = now + START_LIMIT
        self.held: int | None = None  # it will not begin this attempt or a later one ...
        self.held_at = 0.0  # ... for certain from a moment after this
        self._doomed_at = 0.0
        self._expects_stop = False
        self._stopped_at: int | None = None
        self._latest_lane: Lane | None = None
        self.wire.send(setup_frame(width, initializer is not None))
        if initializer is not None:
            self.wire.send_payload(_channel.INITIALIZER, b"", initializer)

    # Giving

    def teach(self, lane: Lane, now: float) -> None:
        """Have it load the lane's function, if it has not yet."""
        if lane.number not in self.known:
            self.known.add(lane.number)
            if self.ready:
                self.deadline = now + LOAD_LIMIT
            self.wire.send_payload(_channel.JOB, WORD.pack(lane.number), lane.job)

    def forget(self, lane: Lane) -> None:
        """Have it drop the function of a lane that is closed."""
        if lane.number in self.known:
            self.known.discard(lane.number)
            self.wire.send(frame(_channel.FORGET, WORD.pack(lane.number)))

    def give(self, batch: Batch, now: float) -> None:
        """Send it attempts; each takes the next slot of the ring."""
        self.teach(batch.lane, now)
        self.wire.send_batch(batch)
        self.add(batch)
        self._latest_lane = batch.lane
        self.check_at = min(self.check_at, now + batch.shortest_timeout() / 2)

    def retire(self) -> None:
        """Have it end by itself when all that it holds is done."""
        self.retiring = True
        self.wire.send(frame(_channel.STOP))

    # Taking

    def drain(self, last: bool = False) -> bool:
        """Take and post what it has committed and sent; False where there is nothing. Raises GarbageError."""
        head = self.wire.head
        if head == self.done and not self.wire.has_frames and not last:
            return False
        if not self.done <= head <= self.sent:
            raise GarbageError(f"it says that {head} of {self.sent} attempts are done, after {self.done}")
        garbage = None
        try:
            for kind, body, length in self.wire.frames():
                self._accept(kind, body, length)
        except GarbageError as error:
            garbage = error  # what was committed is to be believed all the same
        if self.doomed:
            head = self.done
        while self.done < head:
            self._take_span(head)
        if garbage is not None:
            raise garbage
        if self.held is not None:
            self._look_at_hold()
        return True

    def _accept(self, kind: int, body: bytes, length: int) -> None:
        if kind == _channel.READY:
            self.ready = True
            self.deadline = monotonic() + LOAD_LIMIT if self.known else inf
        elif kind == _channel.UNREADY:
            self.refusal = body
        elif kind == _channel.STOPPED:
            (self._stopped_at,) = WORD.unpack(body)
        elif kind == _channel.RECORD:
            if self._latest_lane is not None:
                self._latest_lane.post(Record(body[WORD.size :], self.ticket(*WORD.unpack_from(body))))
        elif kind == _channel.BIG_RESULT:
            self.wire.accept_file(length)
        elif kind == _channel.BLOCK:
            self.wire.accept_block(WORD.unpack(body)[0], length)
        elif kind == _channel.KEPT:
            self.wire.spoil_block(WORD.unpack(body)[0])
        elif kind != _channel.BELL:
            raise GarbageError(f"a frame of kind {kind}")

    def _take_span(self, head: int) -> None:
        batch = self.batches[0]
        slot = self.done & MASK
        count = min(len(batch.tickets), head - self.done, SLOTS - slot)
        columns = self.wire.take(slot, count)
        self.deadline = inf
        batch = self.advance(count)
        batch.lane.pace.measure(count, columns.ended[-1] - columns.started[0])
        batch.lane.post(Span(batch, columns, self.label))

    # Watching

    def running(self) -> tuple[Ticket, float] | None:
        """The attempt that has begun and is not committed, and when it began.

        It is the first that is not committed, if its start is not older than the end of the one before
        it: what an earlier lap of the ring left there is.
        """
        if self.done >= self.sent:
            return None
        ring = self.wire.ring
        started = ring.starts[self.done & MASK]
        before = ring.ends[(self.done - 1) & MASK] if self.done else 0.0
        if not started or started < before:
            return None
        return self.batches[0].tickets[0], started

    def blamed_since(self, now: float) -> float | None:
        """Now that it has ended: when the attempt began that is to blame, or None where none had begun."""
        running = self.running()
        if running is not None:
            return running[1]
        # What it wrote last cannot be believed, so the first that is not committed is as good as running.
        return now if self.garbage and self.batches else None

    def stuck_since(self) -> float:
        """Since when it has run the same attempt, or has been loading; infinity where it just goes on."""
        running = self.running()
        if running is not None:
            return running[1]
        return 0.0 if self.wire.loading else inf

    def watch(self, now: float) -> None:
        """Kill it if what it runs is overdue; else set ``check_at`` to when that can next be so.

        It is first held: should it commit at the last moment, it begins nothing that would die instead.
        """
        if now >= self.deadline:
            self.deadline = inf
            if self.wire.loading:
                self.kill()
        self.check_at = now + self.shortest_timeout() / 2
        running = self.running()
        if running is None or running[0][3] is None:
            return
        due = running[1] + running[0][3]
        early = due - min(FORESIGHT, running[0][3] / 2)
        self.in_danger = now >= early
        if now < due:
            self.check_at = min(due if self.in_danger else early, self.check_at)
        else:
            self._end_overdue(now)

    def _end_overdue(self, now: float) -> None:
        self.check_at = now + LOOK
        if self.held != self.done + 1:
            self.hold(now)
        elif not self.doomed and now >= self.held_at + LOOK:
            # From here on nothing counts that it commits: our signal may cut short what it hangs in.
            self.doomed, self._doomed_at = True, now
            self._ask_for_stack()
        elif self.doomed and now >= self._doomed_at + (LOOK if self.wire.has_stack else LAST_WORDS):
            self.check_at = inf
            self.kill()

    def _ask_for_stack(self) -> None:
        """Have it write down where it stands, whatever it is doing."""
        try:
            signal.pidfd_send_signal(self.pidfd, _channel.STACK_SIGNAL)
        except ProcessLookupError:
            pass  # it has just ended

    # Holding

    def hold(self, now: float) -> None:
        """Let it begin nothing after what it runs now; it tells where it stopped, if it has more than that."""
        self.held = self.done if self.wire.loading else self.done + 1
        self.held_at = now
        self._expects_stop = self.sent > self.held
        self.wire.limit(self.held)

    def take_back(self) -> list[Batch]:
        """What it has not begun and, held for long enough, never will: the caller's again.

        The worker looks at the limit after each commit. By now it sees the limit, so it cannot get past
        what it had not committed when we last looked; while it loads, not even to that.
        """
        return self.cut_off(self.done if self.wire.loading else self.done + 1)

    def _look_at_hold(self) -> None:
        """The hold ends when the worker has stopped, or when it had nothing behind and that is done."""
        if self._stopped_at is not None and self._stopped_at <= self.done:
            requeue(self.cut_off(self.done))
            self._stopped_at = None
            self.wire.send(frame(_channel.RESUME))
        elif not self._expects_stop and self.done >= self.sent:
            self.wire.limit(_channel.UNLIMITED)
        else:
            return
        self.held = None

    # Ending

    def kill(self) -> None:
        """Send SIGKILL to its group: it and its children."""
        try:
            # While it is not reaped, its number is that of no other group.
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            os.killpg(self.pid, signal.SIGKILL)
        except (ChildProcessError, ProcessLookupError, PermissionError):
            pass  # other code has reaped it, or took another user's identity

    def reap(self) -> int | None:
        """When its pidfd has told the end: kill what is left of its group, and return its status."""
        self.kill()
        status: int | None
        try:
            info: Any = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            status = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        except ChildProcessError:
            status = None  # other code of this program has waited for it
        if self._process is not None:
            self._process.returncode = -1 if status is None else status
        cut_lifeline(self._lifeline)
        os.close(self.pidfd)
        return status


def requeue(batches: list[Batch]) -> None:
    """Put back at the head of the queue what had not begun."""
    for batch in reversed(batches):
        if not batch.lane.closed and batch.lane.broken is None:
            batch.lane.queue.appendleft(batch)
