"""Which worker gets what, when one is hired, what is taken back from one, and when each is to wake the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._holding import LOOK, requeue
from parallelkit._executors._process._lane import Lane
from parallelkit._executors._process._roster import Roster
from parallelkit._worker._channel import EACH, NEVER

STUCK = 0.002
"""Seconds that an attempt has run when those behind it are taken back for an idle worker."""

PLENTY = LOOK
"""Seconds of work from which on a worker has plenty to do: it is looked at now and then, and not asked for a wake-up."""

LONG_LOOK = 8 * LOOK
"""Longest time in seconds between looks at workers that have plenty to do, and so the longest delay of a result."""

PAUSE = 0.1
"""Seconds until the next try after the system could not start a process."""


class WorkerPool(Roster):
    """Decides who gets what, and gives it. Only the supervisor's thread calls this."""

    def __init__(
        self,
        max_workers: int,
        max_tasks: int | None,
        spawn: Callable[[float], Worker | None],
        startable: Callable[[int], int],
    ) -> None:
        super().__init__()
        self.max_workers = max_workers
        self.wants_spare = False
        self.act_at = inf  # when ``assign`` is due again, even if nothing happens
        self.hungry = True  # whether a worker could take more than it has
        self.calm = False  # whether there is nothing to decide but what a worker gets next
        self._max_tasks = max_tasks or 0
        self._spawn = spawn
        self._startable = startable
        self._hire_at = 0.0

    def listen(self, now: float, moved: bool) -> float:
        """Set at which commit each worker wakes this thread; return when to look at the rings even if none does.

        A worker that has plenty to do is looked at now and then instead, which costs it nothing. It sends a wake-up only as
        it comes to its last attempt, if it is faster than expected. If nothing has ``moved`` since the last look, it may be
        stuck, and is asked for one as the others are. A worker is looked at once more
        - after it was asked for one: it may have committed before it saw that, even after we looked, for our store and its
          load may cross;
        - if that is to come later than at its next commit: should it get stuck, its results until then must not wait;
        - if one comes at each commit and it has committed more than was taken: two may have been received together.
        """
        stocks = self._take_stock()
        plenty = [stock for stock in stocks if stock > PLENTY] if moved else []
        look_at = now + max(LOOK, min(LONG_LOOK, min(plenty) / 3)) if plenty else inf
        for worker, stock in zip(self.workers, stocks, strict=True):
            if not worker.pending:
                worker.wire.set_wake_at(NEVER)  # an old number would wake us at the next commit already
            elif moved and stock > PLENTY:
                worker.wire.set_wake_at(worker.sent - 1)
            else:
                in_vain = worker.wire.wakes_at != NEVER and not moved
                wake_at = worker.wake_at(in_vain)
                changed = worker.wire.set_wake_at(wake_at)
                is_ahead = worker.wire.head != worker.done  # read after the store
                if is_ahead and (changed or wake_at == EACH) and not (worker.doomed or worker.killed):
                    look_at = now
                elif changed or wake_at > worker.done + 1:
                    look_at = min(look_at, now + LOOK)
        return look_at

    def _take_stock(self) -> list[float]:
        """Note whether the pool is ``hungry``, and whether it is ``calm``; return for how long each worker has work."""
        everyone = len(self.workers) == self.max_workers
        self.hungry = not everyone or any(worker.takes_more() for worker in self.workers)
        self.calm = (
            everyone
            and self.act_at == inf
            and not (self._max_tasks or (self.wants_spare and self.spare is None))
            and all(_may_be_given(worker) and not worker.outdated for worker in self.workers)
        )
        return [worker.stock() for worker in self.workers]

    def refill(self, worker: Worker, now: float) -> bool:
        """Give more to a worker that sent something; False if ``assign`` and ``listen`` have to look at everything in this turn.

        They need not if the pool was calm at their last look, a single lane has enough queued that some is left, and its
        attempts take so long that each commit sends a wake-up. But even then they have to if
        - the worker has committed more than was taken: the wake-up for that may have been received with the last one;
        - it has plenty to do now, in attempts of up to ``_pace.LONG``, and its run is woken late in any case: to be looked at
          now and then costs it less than a wake-up at each commit.
        """
        if not (
            self.calm and len(self.lanes) == 1 and worker.wire.wakes_at == EACH and _may_be_given(worker)
        ):
            return False
        if worker.wire.head != worker.done:
            return False
        lane = self.lanes[0]
        if lane not in self._waiting_lanes() or lane.pace.expected(1) < LOOK:
            return False
        if self._choose(worker, [lane]) is not None:
            self._give(worker, lane, not worker.pending, now)
        self.hungry |= worker.takes_more()
        has_plenty = worker.stock() > PLENTY and not lane.pace.single
        return bool(lane.queue) and not (has_plenty and lane.patient)

    def assign(self, now: float) -> None:
        """Give out what is queued, hire workers that are missing, take work back for those that idle."""
        self.act_at = inf
        self._feed(now)
        if self._hire(now):
            self._feed(now)
        self._steal(now)
        for lane in self.lanes:
            if self.has_left(lane):
                lane.gate.open()

    def _feed(self, now: float) -> None:
        """Give out what is queued, first to the workers that hold least."""
        waiting = self._waiting_lanes()
        idle = sum([worker.ready and not worker.pending for worker in self.workers])
        for worker in sorted(self.workers, key=lambda worker: worker.pending):
            if not _may_be_given(worker):
                continue
            if worker.outdated or (self._max_tasks and worker.done >= self._max_tasks):
                if not worker.pending:  # else it takes a slot; and were it held, it would drop our STOP
                    worker.retire()
                    self.wants_spare |= self._max_tasks > 0
            elif waiting and (lane := self._choose(worker, waiting)) is not None:
                free = not worker.pending
                self._give(worker, lane, idle, now)
                waiting, idle = self._waiting_lanes(), idle - free

    def _choose(self, worker: Worker, waiting: list[Lane]) -> Lane | None:
        """The lane whose turn it is. Lanes take free workers in turns; while another one waits, none queues ahead."""
        lane = waiting[0]
        if worker.pending:
            alone = lane is worker.lane and not lane.exact and len(waiting) == 1
            return lane if alone and lane.pace.ahead and worker.pending <= lane.pace.limit else None
        self.lanes.remove(lane)
        self.lanes.append(lane)
        return lane

    def _open_lanes(self) -> list[Lane]:
        """The lanes of which anything may still begin, in the order of their turns."""
        return [lane for lane in self.lanes if lane.broken is None and not lane.halted]

    def _waiting_lanes(self) -> list[Lane]:
        """Those that have something queued."""
        return [lane for lane in self._open_lanes() if lane.queue]

    def _give(self, worker: Worker, lane: Lane, idle: int, now: float) -> None:
        most = lane.pace.share(lane.waiting(), self.max_workers, idle)
        if self._max_tasks:
            most = min(most, self._max_tasks - worker.sent)
        if most > 0:
            if not worker.sent:
                lane.gate.open()  # a new worker: its run may want to know that attempts begin
            worker.give(lane.take(most), now)

    def _hire(self, now: float) -> bool:
        """Start workers, never more than there is work for; return whether the spare was taken."""
        queued = sum([lane.waiting() for lane in self._waiting_lanes()])
        staying = [worker for worker in self.workers if not worker.retiring]
        busy = sum([worker.pending > 0 for worker in staying])
        missing = min(self.max_workers, busy + queued) - len(staying)
        spares = int(self.spare is not None)
        if missing > 0 and now >= self._hire_at:
            for _ in range(spares + self._startable(missing - spares)):
                worker, self.spare = self.spare or self._start(now), None
                if worker is None:
                    break  # the system has none to give, and the others would be refused, too
                self.workers.append(worker)
        if missing > 0 and now < self._hire_at:  # a start failed, just now or a moment ago
            self.act_at = self._hire_at
        return spares > 0 and self.spare is None

    def keep_spare(self, now: float) -> Worker | None:
        """Start the worker that will replace the next to end, if one has ended or soon may."""
        if not self.wants_spare or self.spare is not None or now < self._hire_at or not self._open_lanes():
            return None
        if self._startable(1):
            self.spare = self._start(now)
        return self.spare

    def _start(self, now: float) -> Worker | None:
        worker = self._spawn(now)
        if worker is None:
            self._hire_at = now + PAUSE
            return None
        for lane in self._waiting_lanes() or self._open_lanes():
            worker.teach(lane, now)
        worker.wire.flush()  # now, not at the end of the turn, for other workers may be started first
        return worker

    def _steal(self, now: float) -> None:
        """If workers idle and nothing is queued, take back what waits behind a long attempt or a function's loading."""
        idle = len(self.workers) < self.max_workers or any(not worker.pending for worker in self.workers)
        if not idle or self._waiting_lanes():
            return
        for worker in self.workers:
            stays = 0 if self._could_go_elsewhere(worker) else 1  # the attempt that runs, or is the next to
            if worker.killed or worker.pending <= stays:
                continue  # what it holds is put back when it has ended, or nothing waits there
            if worker.held is not None:
                due = worker.held_at + LOOK
                if now >= due:
                    requeue(worker.take_back())
                    due = now
            else:
                # One that has not begun yet, because the system runs others, does not tell us when it begins.
                due = min(worker.stuck_since(), now) + STUCK
                if now >= due:
                    worker.hold(now)
                    due = now + LOOK
            self.act_at = min(self.act_at, due)

    def _could_go_elsewhere(self, worker: Worker) -> bool:
        """Whether its first attempt, too, should move: it is loading a function that an idle worker has loaded."""
        lane = worker.lane
        return lane is not None and worker.is_loading() and any(_idles(one, lane) for one in self.workers)


def _may_be_given(worker: Worker) -> bool:
    return worker.ready and worker.held is None and not (worker.retiring or worker.killed)


def _idles(worker: Worker, lane: Lane) -> bool:
    """Whether this worker would begin an attempt of this lane at once."""
    free = _may_be_given(worker) and not worker.pending
    return free and lane.number in worker.taught.lanes and not worker.wire.loading
