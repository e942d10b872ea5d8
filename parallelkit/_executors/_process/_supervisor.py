"""The thread that owns all workers: it feeds them, drains their rings, kills the overdue and replaces the dead.

It runs none of the user's code: items are pickled, and results unpickled, in the run's own thread. So
neither a slow input, nor a busy consumer, nor a hanging ``__reduce__`` delays a kill.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import inf

from parallelkit._executors._process._actor import Actor
from parallelkit._executors._process._blocks import BlockPool
from parallelkit._executors._process._deaths import Deaths, end_of
from parallelkit._executors._process._endings import Termination, close, end_all, settle
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Batch, Broken, Lane
from parallelkit._executors._process._payload import File
from parallelkit._executors._process._poller import Poller
from parallelkit._executors._process._reserve import Reserve, Shortage, explain
from parallelkit._executors._process._setup import Setups
from parallelkit._executors._process._starter import Starter
from parallelkit._executors._process._wire import LAST_READS, READS
from parallelkit._executors._process._worker_pool import WorkerPool
from parallelkit._system import monotonic
from parallelkit._worker._channel import GarbageError

LINGER = 0.005
"""Seconds from the last attempt's end to a turn, so that a run that ends by then need not wake this thread: that takes 0.1 ms."""


class Supervisor(Actor):
    """Other threads call the public methods; the supervisor's own thread runs those below "The thread"."""

    def __init__(self, max_workers: int, initializer: bytes | File | None, max_tasks: int | None) -> None:
        super().__init__("parallelkit-supervisor")
        self.max_workers, self._initializer = max_workers, initializer
        self.broken: Broken | None = None
        self.setups = Setups(max_workers, initializer is not None)
        self.pool = WorkerPool(max_workers, max_tasks, self._spawn, self._startable)
        self._deaths, self._shortage = Deaths(max_workers), Shortage()
        self.blocks, self._termination = BlockPool(), Termination()
        self._calm_until = -inf  # when to look at everything again, at the latest
        self._tell_at = inf  # when to wake a run again, at the latest
        self._offered = False  # whether anything was queued since ``assign`` last looked
        self._opened = ExitStack()  # closed at the end
        self._opened.callback(self._wake_up.close)
        self._poller = Poller(self._wake_up)  # now, while there is a descriptor: the thread cannot do without
        self._opened.callback(self._poller.poll.close)

    def offer(self, batch: Batch) -> None:
        """Queue new attempts, which call for a turn only if some worker could take it."""
        self.setups.outdate()  # first: a worker that starts for these must know the program as it is now
        batch.lane.queue.append(batch)
        self._offered = True
        if self.pool.hungry:
            self.poke()

    def stop(self) -> None:
        """Have all workers and the thread end, unless ``end_workers`` does that; do not wait for it."""
        self.closing = self.closing or not self._termination
        self.poke()
        with self._starting:
            if self._thread is None:
                self._opened.close()
                self._turn_away()

    def end_workers(self, number: int) -> None:
        """Have all workers end by this signal, SIGTERM or SIGKILL, and then the thread; do not wait for that."""
        with self._starting:
            if self._thread is None:  # there are no workers
                self.stop()
                return
        self._termination.order(number)
        self.poke()

    def enter(self, lane: Lane) -> None:
        """Serve a new lane, or fail it if nothing can run any more."""
        self.pool.lanes.append(lane)
        if self.broken is not None:  # read only now: what breaks later fails the lanes that are there
            lane.fail(self.broken)

    def _turn_away(self) -> None:
        """Fail every lane that is left or is opened at this moment, so that no run waits for ever."""
        self.broken = self.broken or Broken("the executor was shut down")
        for lane in tuple(self.pool.lanes):
            lane.fail(self.broken)
        self.blocks.close()

    # The thread

    def _run(self) -> None:
        try:
            self._reserve = Reserve(self._wake_up.fd)
            self._opened.callback(self._reserve.close)
            self._starter = Starter(self.max_workers, self._poller.poll, self.pool.modules)
            self._opened.callback(self._starter.close)
            while not self.closing:
                self._turn()
        except BaseException as error:  # even a bug of ours must not leave runs waiting for ever
            lack = f": {explain(error)}" if isinstance(error, OSError) else ""
            self._break(Broken(f"the supervisor of the worker processes failed{lack}", cause=error))
        finally:
            try:
                self._end_all()
            finally:
                self._end()

    def _turn(self) -> None:
        dead, active = self._sort_out(self._sleep())
        now = monotonic()
        if dead or self._poked or now >= self._calm_until or not self._refill(active, now):
            self._poked = False  # cleared first: what changes from now on sets it again
            self._decide(dead, bool(active), now)

    def _refill(self, active: list[Worker], now: float) -> bool:
        """Give more to the workers that were active, and tell the run what they did; False if there is more to do than that.

        Most turns are no more than this where tasks take a millisecond or more, and it costs the same for any width.
        """
        if self.blocks.dropped or not all(self.pool.refill(worker, now) for worker in active):
            return False
        for worker in active:
            worker.wire.arrivals.release_blocks()
            self._poller.update(worker)
            self._calm_until = min(self._calm_until, worker.check_at, worker.wire.again_at)
        self._tell_at = self._tell(now)
        return True

    def _decide(self, dead: list[Worker], moved: bool, now: float) -> None:
        """Look at everything, in an order that matters.

        - What was committed is taken before anything is judged by it (who is blamed, what runs, who is overdue), and
          what the dead leave is queued again before anything is given out.
        - All that queues frames comes before ``update``, which sends them, and before ``again_at`` is read.
        - When the next turn is due is known before the run is told, for that may end at once.
        - A spare comes last, for to start a process takes a while.
        """
        for worker in self.pool.workers:
            moved |= not worker.killed and self._drain(worker)
            worker.wire.arrivals.release_blocks()
        for worker in dead:
            self._bury(worker, now)
        self._answer_at(now)
        if self._termination:
            self._end_workers(now)
        self._starter.check(now)
        for worker in self.pool.everybody():
            if now >= worker.check_at:
                self._watch(worker, now)
        self._offered = False  # first: what comes while ``assign`` looks at the queues sets it again
        self.pool.assign(now)
        self.pool.forget_blocks(self.blocks.dropped)
        for worker in self.pool.everybody():
            self._poller.update(worker)
        look_at = self.pool.listen(now, moved)
        if self._offered and self.pool.hungry:  # ``offer`` may have seen that it was not
            self._poked = True
        self._expect_end(moved, now)
        self._tell_at = self._tell(now)
        if (spare := self.pool.keep_spare(now)) is not None:
            self._poller.update(spare)
        checks = [min(one.check_at, one.wire.again_at) for one in self.pool.everybody()]
        dues = look_at, self.pool.act_at, self._starter.deadline, self._termination.kill_at, self._due
        self._calm_until = min(*dues, *checks)

    def _expect_end(self, moved: bool, now: float) -> None:
        """Have a turn due soon if the last attempt has just ended."""
        if moved and not any(worker.pending for worker in self.pool.workers):
            self._due = now + LINGER

    def _tell(self, now: float) -> float:
        """Wake the runs that have something to look at; return when to do so again."""
        return min([lane.tell(now, self.max_workers) for lane in self.pool.lanes], default=inf)

    def _sleep(self) -> list[tuple[int, int]]:
        """Block until something happens or is due."""
        self._asleep = True
        # Read after ``_asleep`` is set: an earlier ``poke`` is seen here, a later one wakes this thread.
        events = self._poller.wait(0.0 if self._poked else min(self._calm_until, self._tell_at) - monotonic())
        self._asleep = False
        return events

    def _sort_out(self, events: list[tuple[int, int]]) -> tuple[list[Worker], list[Worker]]:
        """Sort out the events: the workers that died, and those that sent something."""
        dead, active = [], []
        for fd, _ in events:
            worker = self._poller.workers.get(fd)
            if worker is None and fd == self._wake_up.fd:
                self._wake_up.clear()
            elif worker is None:
                self._poked = True
                self._starter.receive()
            elif fd == worker.pidfd:
                dead.append(worker)
            else:
                active.append(worker)  # and flushed at the end of the turn, if its socket takes more now
                self._drain(worker, READS)
        return dead, active

    def _drain(self, worker: Worker, reads: int = 0) -> bool:
        try:
            return worker.drain(reads)
        except GarbageError:
            worker.condemn()
            return False

    def _watch(self, worker: Worker, now: float) -> None:
        if now >= worker.give_up_at and not worker.has_ended():  # it may have since this thread last looked
            self._give_up(worker, now)
            return
        try:
            if worker.watch(now):
                self.pool.wants_spare = True
        except GarbageError:
            worker.condemn()

    def _startable(self, wanted: int) -> int:
        wanted = 0 if self._termination else wanted
        return self._starter.startable(wanted, len(self.pool.workers), self.pool.wants_spare)

    def _spawn(self, now: float) -> Worker | None:
        setup = self.setups.frame(now)  # what may raise comes first
        try:
            born = self._starter.spawn()
            worker = Worker(born, setup, self._initializer, self._reserve, now)
            self._add(worker)
        except OSError as error:
            if not self.pool.workers and self._shortage.lasts(error, now):
                broken = Broken(f"no worker process can be started: {explain(error)}", cause=error)
                for lane in [lane for lane in tuple(self.pool.lanes) if lane.queue]:
                    lane.fail(broken)  # but not the engine: a later run may have better luck
            return None
        return worker

    def _add(self, worker: Worker) -> None:
        try:
            self._poller.add(worker)
        except OSError:
            end_all([worker])  # nobody would hear of its end
            raise

    # Ending

    def _bury(self, worker: Worker, now: float) -> None:
        """Take what a worker that has ended committed, and settle it, unless it was given up."""
        self._poller.forget(worker)
        if worker in self.pool.given_up:
            self.pool.given_up.remove(worker)
            worker.reap()
        else:
            self._drain(worker, LAST_READS)
            self._settle(worker, worker.reap(), now)
            self._tell(now)  # already now, for to hire another takes a while

    def _give_up(self, worker: Worker, now: float) -> None:
        """Settle a worker that its kill did not end, and have another take its place; but not for ever."""
        self._drain(worker, LAST_READS)
        worker.give_up()
        self.pool.given_up.append(worker)
        self._settle(worker, None, now)
        if len(self.pool.given_up) > 2 * self.max_workers:
            self._break(Broken("worker processes hang in calls that no signal interrupts"))

    def _settle(self, worker: Worker, status: int | None, now: float) -> None:
        """Blame what it ran, and put back the rest."""
        self._poller.remove(worker)
        self.pool.remove(worker)
        blamed = settle(worker, status, now)
        if not (worker.retiring or self._termination):
            self._learn_from(worker, status, blamed)
        close(worker)

    def _learn_from(self, worker: Worker, status: int | None, blamed: bool) -> None:
        """After too many ends that no attempt can be blamed for, fail the lane or the engine; else ask for a spare."""
        broken, lane = self._deaths.take(worker, status, self.pool.lanes, blamed)
        if lane is not None:
            lane.fail(Broken(f"worker processes end while they load the function: {end_of(worker, status)}"))
        if broken is not None:
            self._break(broken)
        self.pool.wants_spare = True

    def _end_workers(self, now: float) -> None:
        """Have the workers end, each settled as usual, and when none is left fail what has not begun."""
        workers = self.pool.everybody()
        self._termination.proceed(workers, now)
        if not workers:
            self._break(Broken(self._termination.reason()))
            self.closing = True

    def _break(self, broken: Broken) -> None:
        self.broken = broken
        self.pool.fail(broken)

    def _end_all(self) -> None:
        """Fail the lanes, kill every worker's group and wait for their ends."""
        self.closing = True
        self._turn_away()
        self.pool.end()
        self._opened.close()
