"""A worker process as the supervisor sees it: what it was given, what it has committed, how it ends.

Only the supervisor's thread calls the methods. None of them blocks, and none runs the user's code. The states that a worker
goes through, by which attributes each is known, and what begins and ends it: docs/design/process-engine.md.
"""

from __future__ import annotations

from math import inf

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._crash_stack import STACK_PATIENCE
from parallelkit._executors._process._holding import LOOK, Holding, requeue
from parallelkit._executors._process._killable import Killable
from parallelkit._executors._process._killing import ask
from parallelkit._executors._process._lane import Batch, Lane, Record, Span, Why
from parallelkit._executors._process._payload import File
from parallelkit._executors._process._reserve import Reserve
from parallelkit._executors._process._spawn import Spawned
from parallelkit._executors._process._taught import Taught
from parallelkit._executors._process._validation import word_of
from parallelkit._executors._process._wire import Wire
from parallelkit._executors._tickets import shortest_timeout
from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import MASK, SLOTS, WORD, GarbageError, frame

FORESIGHT = 0.15
"""Seconds before an attempt is overdue (at most half of its timeout) at which a spare is made ready to replace its worker."""

LOAD_LIMIT = 300.0  # seconds that a worker may take to start, its initializer included, or to load a function, with all its imports

STANDSTILL = 10.0
"""Seconds after which a worker that has work, but neither runs nor loads any, is replaced."""


class Worker(Holding, Killable):
    """Holds the attempts of at most one lane at a time, so that killing it affects one run only."""

    def __init__(
        self, born: Spawned, setup: bytes, initializer: bytes | File | None, reserve: Reserve, now: float
    ) -> None:
        pid, pidfd, socket, ring, lifeline = born
        Holding.__init__(self)
        Killable.__init__(self, pid, pidfd, lifeline)
        self.label = f"process {pid}"
        self.wire = Wire(socket, ring, reserve)
        self.taught = Taught(self.wire)
        self.ready = False
        self.retiring = self.outdated = False
        self.refusal: bytes | None = None  # what its initializer raised
        self.doomed = False  # it is about to be killed, and no commit counts any more
        self.awaited = 0  # the events for which its socket is registered with epoll
        self.check_at = self._load_by = now + LOAD_LIMIT
        self.held: int | None = None  # it must not begin this attempt or a later one
        self.held_at = 0.0  # since when; that it sees the limit is certain only ``LOOK`` later
        self._doomed_at = 0.0
        self._moved_at = now  # when it last committed, or got something to do
        self._given = 0  # how many attempts it had been sent when it was held
        self._stopped_at: int | None = None
        self._latest_lane: Lane | None = None
        self.wire.send(setup)
        if initializer is not None:
            self.wire.send_payload(_channel.INITIALIZER, b"", initializer)

    # Giving

    def teach(self, lane: Lane, now: float) -> None:
        """Have it load the lane's function, unless it has."""
        if self.taught.teach(lane):
            self._load_by = now + LOAD_LIMIT

    def give(self, batch: Batch, now: float) -> None:
        """Send it attempts; each will take the next slot of the ring."""
        self.teach(batch.lane, now)
        self.wire.send_batch(batch)
        self.wire.flush()  # so that it starts at once, while others are given theirs
        if not self.pending:
            self._moved_at = now
        self.add(batch)
        self._latest_lane = batch.lane
        self.check_at = min(self.check_at, now + batch.shortest_timeout() / 2, now + STANDSTILL)

    def retire(self) -> None:
        """Have it exit when it has done all that it holds."""
        self.retiring = True
        self.wire.send(frame(_channel.STOP))

    # Taking

    def drain(self, reads: int = 0) -> bool:
        """Take and post what it has committed, and sent by then or for so many reads; False if nothing. Raises GarbageError."""
        head = self.wire.head
        if head == self.done and not self.wire.has_frames and not reads:
            return False
        if not self.done <= head <= self.sent:
            raise GarbageError(f"it says that {head} of {self.sent} attempts are done, after {self.done}")
        garbage = None
        try:
            self.wire.check()
            for kind, body, length in self.wire.frames(reads):
                self._accept(kind, body, length)
        except GarbageError as error:
            garbage = error  # raised below: what was committed before is believed all the same
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
            self._load_by = monotonic() + LOAD_LIMIT if self.taught.lanes else inf
        elif kind == _channel.UNREADY:
            self.refusal = body
        elif kind == _channel.STOPPED:
            self._stopped_at = word_of(body)
            if self.held is None or self.held >= self._given or self._stopped_at != self.wire.head:
                raise GarbageError(f"it says that it stopped at {self._stopped_at}")
        elif kind != _channel.WAKE:
            self._take_thing(kind, body, length)

    def _take_thing(self, kind: int, body: bytes, length: int) -> None:
        if kind in (_channel.RECORD, _channel.RECORD_OF_CHILD):
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
        self._load_by, self._moved_at = inf, columns.ended[-1]
        batch = self.advance(count)
        batch.lane.killed_loads = 0
        if self.done == count:  # its first: new workers can load the function
            batch.lane.fatal_loads = 0
        batch.lane.pace.measure(count, columns.ended[-1] - columns.started[0])
        batch.lane.post(Span(batch, columns, self.label))

    def salvage(self) -> None:
        """Take what it had ended when it began its last attempt, as the columns tell: the count of commits is overwritten."""
        starts, ends = self.wire.ring.starts, self.wire.ring.ends
        head, end = self.done, self.wire.last_end
        while head + 1 < self.sent:
            slot = head & MASK
            if not end <= starts[slot] <= ends[slot] <= starts[head + 1 & MASK]:
                break  # it is the last that had begun
            head, end = head + 1, ends[slot]
        try:
            while self.done < head:
                self._take_span(head)
        except GarbageError:
            pass  # these are overwritten, too

    # Watching

    def running(self) -> tuple[Ticket, float] | None:
        """The attempt that has begun and is not committed, and when it began.

        That is the first one not committed, if the start in its slot is not older than the end of the attempt before
        it. A start that an earlier lap of the ring left there is older.
        """
        if self.done >= self.sent:
            return None
        started = self.wire.ring.starts[self.done & MASK]
        if not started >= self.wire.last_end:
            return None
        return self.batches[0].tickets[0], started

    def blamed_since(self, now: float) -> float | None:
        """Of a worker that has ended: when the attempt to blame for that began; None if none is."""
        if (running := self.running()) is not None:
            return min(running[1], now)
        if self.why is not Why.GARBAGE or not self.batches:
            return None
        # That none had begun is believed if the columns were not overwritten, and not for ever (``STALLS``).
        return now if not self.wire.has_columns or self.stalls() else None

    def is_loading(self) -> bool:
        """Whether it is loading a function and runs no attempt. All this is read, as a task may have overwritten its ring."""
        return self.wire.loading and self.wire.has_columns and self.running() is None

    def stuck_since(self) -> float:
        """Since when its attempt has been running; 0 while it loads a function; infinity if it runs nothing."""
        running = self.running()
        if running is not None:
            return running[1]
        return 0.0 if self.wire.loading else inf

    def watch(self, now: float) -> bool:
        """Kill it if its attempt is overdue; else set ``check_at`` to when that can next be so. Raises GarbageError.

        It is held first, so that a commit at the last moment counts, and no other attempt begins only to be killed.
        Returns whether a spare should be ready, since the attempt will soon be overdue.
        """
        if self.killed:
            return False
        if now >= self._load_by:
            self._load_by = inf
            if self.wire.loading:
                self.kill(Why.UNLOADED)
                return False
        self.wire.check()
        self.check_at = self._load_by
        if self.pending:
            self.check_at = min(self.check_at, now + min(self.shortest_timeout() / 2, STANDSTILL))
        running = self.running()
        if running is None:
            self._watch_standstill(now)
            return False
        if not running[1] <= monotonic():
            raise GarbageError("an attempt that begins in the future")
        loading = self.wire.loading_in_task
        limit = LOAD_LIMIT if loading else shortest_timeout([running[0]])
        due = running[1] + limit
        early = due - min(FORESIGHT, limit / 2)
        if now >= due or self.why is not Why.ITSELF:  # asked for its stack, it may have begun anew
            self._end_overdue(Why.UNLOADED if loading else Why.OVERDUE, now)
        else:
            self.check_at = min(due if now >= early else early, self.check_at)
        return now >= early

    def _watch_standstill(self, now: float) -> None:
        """Replace a worker that has work and does nothing: a task in it must have read the frames that were for it."""
        if self.wire.loading or not self.pending:
            self._moved_at = now
        elif now > self._moved_at + STANDSTILL:
            # No attempt is to blame if the system had no room for the frames.
            self.kill(Why.GARBAGE if self.wire.again_at == inf and self.stalls() else Why.ITSELF)

    def _end_overdue(self, why: Why, now: float) -> None:
        self.check_at = now + LOOK
        if self.held != self.done + 1:
            self.hold(now)
        elif not self.doomed and now >= self.held_at + LOOK:
            if self.ask_where(now):
                self.why = why
        elif self.doomed and now >= self._doomed_at + (LOOK if self.wire.has_stack else STACK_PATIENCE):
            self.kill(why)

    def ask_where(self, now: float) -> bool:
        """Have it write down its stack, which may interrupt what it hangs in; False if its attempt has just ended."""
        if self.wire.head == self.done:
            self.doomed, self._doomed_at = True, now
            ask(self.pidfd, _channel.STACK_SIGNAL)
        return self.doomed

    # Holding

    def hold(self, now: float) -> None:
        """Let it begin nothing after its present attempt; if it has more, it tells where it stopped."""
        if self.held is None:  # while it is held it is given nothing, but attempts may be taken back
            self._given = self.sent
        self.held = self._movable_from()
        self.held_at = now
        self.wire.limit(self.held)

    def take_back(self) -> list[Batch]:
        """Take back, from a worker that was held long enough, the attempts that it has not begun and never will.

        The worker looks at the limit after each commit, and by now it sees it. So it begins none after the first that
        was not committed at our last look; while it loads, it does not begin that one either.
        """
        return self.cut_off(self._movable_from())

    def _movable_from(self) -> int:
        """The number of the first attempt that could still move."""
        return self.done if self.is_loading() else self.done + 1

    def _look_at_hold(self) -> None:
        """End the hold if the worker has stopped, or has done all that it was sent without coming to the limit."""
        if self._stopped_at is not None and self._stopped_at <= self.done:
            requeue(self.cut_off(self.done))
            self._stopped_at = None
            self.wire.send(frame(_channel.RESUME))
        elif self.done >= self._given:
            self.wire.limit(_channel.UNLIMITED)
        else:
            return
        self.held = None
