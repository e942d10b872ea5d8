"""One worker process as the supervisor sees it: what it was given, what it has committed, how it ends.

All methods are called by the supervisor's thread. None of them blocks, and none runs the user's code.
"""

from __future__ import annotations

import os
from math import inf
from threading import Event

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._crash_stack import LAST_WORDS
from parallelkit._executors._process._holding import LOOK, Holding, requeue
from parallelkit._executors._process._killing import ask, kill, status_of
from parallelkit._executors._process._lane import Batch, File, Lane, Record, Span
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._spawn import Spawned, cut_lifeline, setup_frame
from parallelkit._executors._process._validation import word_of
from parallelkit._executors._process._wire import Wire
from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import MASK, SLOTS, WORD, GarbageError, frame

FORESIGHT = 0.15
"""Seconds, or half of the timeout, before an attempt is overdue, in which whoever may replace its worker is made ready."""

START_LIMIT = 60.0  # seconds that a worker may take to start, its initializer included
LOAD_LIMIT = 300.0  # and that it may take to load a function, with all the imports that go with it

STANDSTILL = 10.0
"""Seconds after which a worker that has work is looked at anyhow, and replaced if it neither runs nor loads any."""


class Worker(Holding):
    """Holds the attempts of at most one lane at a time, so that ending it touches one run only."""

    def __init__(
        self, born: Spawned, width: int, initializer: bytes | File | None, reserve: Reserve, now: float
    ) -> None:
        super().__init__()
        self.process, self.pidfd, socket, ring, self._lifeline = born
        self.pid = self.process.pid
        self.label = f"process {self.pid}"
        self.wire = Wire(socket, ring, reserve)
        self.known: set[int] = set()
        self.ready = False
        self.retiring = self.outdated = False
        self.refusal: bytes | None = None  # what its initializer raised
        self.doomed = False  # it is about to be killed, and nothing counts that it commits
        self.overdue = False  # that is for what it runs, which ran for too long
        self.in_danger = False  # what it runs will soon be overdue
        self.overran = False  # killed because it took too long to start, or to load a function
        self.garbage = False  # killed because what it writes makes no sense
        self.dismissed = False  # killed because its lane was closed
        self.gone = Event()
        self.awaited = 0  # what the supervisor's epoll listens for on its socket
        self.check_at = inf
        self.deadline = now + START_LIMIT
        self.held: int | None = None  # it will not begin this attempt or a later one ...
        self.held_at = 0.0  # ... for certain from a moment after this
        self._doomed_at = 0.0
        self._moved_at = now  # it committed, or got something to do
        self._given = 0  # how many attempts it had been sent when it was held
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
        self.wire.flush()  # it starts at once, while others are given theirs
        if not self.pending:
            self._moved_at = now
        self.add(batch)
        self._latest_lane = batch.lane
        self.check_at = min(self.check_at, now + batch.shortest_timeout() / 2, now + STANDSTILL)

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
            self.wire.check()
            for kind, body, length in self.wire.frames(last):
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
            self._stopped_at = word_of(body)
            if self.held is None or self.held >= self._given or self._stopped_at != self.wire.head:
                raise GarbageError(f"it says that it stopped at {self._stopped_at}")
        elif kind != _channel.BELL:
            self._take_thing(kind, body, length)

    def _take_thing(self, kind: int, body: bytes, length: int) -> None:
        if kind == _channel.RECORD:
            if self._latest_lane is not None:
                self._latest_lane.post_record(Record(body[WORD.size :], self.ticket(word_of(body))))
        elif kind == _channel.KEPT:
            self.wire.spoil_block(word_of(body))
        else:
            self.wire.arrivals.accept(kind, body, length, self.pending)

    def _take_span(self, head: int) -> None:
        batch = self.batches[0]
        slot = self.done & MASK
        count = min(len(batch.tickets), head - self.done, SLOTS - slot)
        columns = self.wire.take(slot, count, batch.lane.exact)
        self.deadline, self._moved_at = inf, columns.ended[-1]
        batch = self.advance(count)
        batch.lane.struck_loads = 0
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
        started = self.wire.ring.starts[self.done & MASK]
        if not started >= self.wire.last_end:
            return None
        return self.batches[0].tickets[0], started

    def blamed_since(self, now: float) -> float | None:
        """Now that it has ended: when the attempt began that is to blame, or None where none had begun."""
        if (running := self.running()) is not None:
            return min(running[1], now)
        if not self.garbage or not self.batches:
            return None
        # That none has begun is believed where nothing was written over the columns, and not for ever.
        return now if not self.wire.has_columns or self.stalls() else None

    def stuck_since(self) -> float:
        """Since when it has run the same attempt, or has been loading; infinity where it just goes on."""
        running = self.running()
        if running is not None:
            return running[1]
        return 0.0 if self.wire.loading else inf

    def watch(self, now: float) -> None:
        """Kill it if what it runs is overdue; else set ``check_at`` to when that can next be so.

        It is first held: what it commits at the last moment counts, and nothing begins there. Raises GarbageError.
        """
        if now >= self.deadline:
            self.deadline = inf
            if self.wire.loading:
                self.overran = True
                self.kill()
        self.wire.check()
        self.check_at = now + min(self.shortest_timeout() / 2, STANDSTILL) if self.pending else inf
        running = self.running()
        if running is None:
            self._watch_standstill(now)
            return
        if not running[1] <= monotonic():
            raise GarbageError("an attempt that begins in the future")
        if running[0][3] is None:
            return
        due = running[1] + running[0][3]
        early = due - min(FORESIGHT, running[0][3] / 2)
        self.in_danger = now >= early
        if now < due:
            self.check_at = min(due if self.in_danger else early, self.check_at)
        else:
            self._end_overdue(now)

    def _watch_standstill(self, now: float) -> None:
        """Who has work and does nothing has lost it: something in there has read what we sent. Others get it."""
        if self.wire.loading or not self.pending:
            self._moved_at = now
        elif now > self._moved_at + STANDSTILL:
            # Unless the system has had no room for it: then nothing in there is to blame.
            self.garbage = self.wire.again_at == inf and self.stalls()
            self.kill()

    def _end_overdue(self, now: float) -> None:
        self.check_at = now + LOOK
        if self.held != self.done + 1:
            self.hold(now)
        elif not self.doomed and now >= self.held_at + LOOK:
            self.overdue = self.ask_where(now)
        elif self.doomed and now >= self._doomed_at + (LOOK if self.wire.has_stack else LAST_WORDS):
            self.check_at, self.overdue = inf, True
            self.kill()

    def ask_where(self, now: float) -> bool:
        """Have it write down where it stands, which may cut short what it hangs in; False where that has just ended."""
        if self.wire.head == self.done:
            self.doomed, self._doomed_at = True, now
            ask(self.pidfd, _channel.STACK_SIGNAL)
        return self.doomed

    # Holding

    def hold(self, now: float) -> None:
        """Let it begin nothing after what it runs now; it tells where it stopped, if it has more than that."""
        if self.held is None:  # it is given nothing while it is held, but some may be taken back
            self._given = self.sent
        self.held = self.done if self.wire.loading else self.done + 1
        self.held_at = now
        self.wire.limit(self.held)

    def take_back(self) -> list[Batch]:
        """What it has not begun and, held for long enough, never will: the caller's again.

        The worker looks at the limit after each commit. By now it sees the limit, so it cannot get past
        what it had not committed when we last looked; while it loads, not even to that.
        """
        return self.cut_off(self.done if self.wire.loading else self.done + 1)

    def _look_at_hold(self) -> None:
        """The hold ends when the worker has stopped, or when it has done all that it was sent before it saw the limit."""
        if self._stopped_at is not None and self._stopped_at <= self.done:
            requeue(self.cut_off(self.done))
            self._stopped_at = None
            self.wire.send(frame(_channel.RESUME))
        elif self.done >= self._given:
            self.wire.limit(_channel.UNLIMITED)
        else:
            return
        self.held = None

    # Ending

    def condemn(self) -> None:
        """What it writes makes no sense: it is not listened to any more."""
        self.garbage = True
        self.check_at = self.deadline = inf
        self.kill()

    def kill(self) -> None:
        """It and its children; a program that may no longer do so, as it has ceased to be root, has the kernel do it."""
        if not kill(self.pid, self.pidfd):
            cut_lifeline(self._lifeline)
            self._lifeline = -1

    def reap(self) -> int | None:
        """When its pidfd has told the end: kill what is left of its group, and return its status."""
        self.kill()
        status = status_of(self.pidfd)
        self.process.returncode = -1 if status is None else status
        cut_lifeline(self._lifeline)
        os.close(self.pidfd)
        return status
