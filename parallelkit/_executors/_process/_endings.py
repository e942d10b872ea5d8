"""What becomes of workers that have ended or were given up, and of the attempts that they held."""

from __future__ import annotations

from _signal import SIGKILL, SIGTERM  # type: ignore[import-not-found]  # see _killing.py
from collections.abc import Iterable
from math import inf

from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._holding import requeue
from parallelkit._executors._process._killing import PATIENCE, ask
from parallelkit._executors._process._lane import Died, Why
from parallelkit._system import monotonic

GRACE = 5.0  # seconds that a worker has to end by SIGTERM, which its task may handle or ignore


class Termination:
    """The end of all workers, by ``terminate_workers`` or ``kill_workers``; true once that has been called."""

    def __init__(self) -> None:
        self.kill_at = inf  # when those that SIGTERM has not ended are killed
        self._signal = 0
        self._asked = False  # whether they were sent SIGTERM

    def __bool__(self) -> bool:
        return self._signal != 0

    def order(self, number: int) -> None:
        """Have it begin, by this signal, SIGTERM or SIGKILL; any thread may."""
        self._signal = min(number, self._signal or number)  # nothing takes back SIGKILL, the smaller one

    def proceed(self, workers: Iterable[Worker], now: float) -> None:
        """Called in each turn until none of these is left: do what is due by now."""
        if self._signal == SIGKILL or now >= self.kill_at:
            self.kill_at = inf
            for worker in workers:
                worker.kill(Why.ASKED)
            return
        for worker in workers:
            _terminate(worker, now, first=not self._asked)
        if not self._asked:
            self._asked, self.kill_at = True, now + GRACE

    def reason(self) -> str:
        """Why nothing can run any more, once none is left."""
        name = "kill_workers" if self._signal == SIGKILL else "terminate_workers"
        return f"{name}() has ended the workers"


def _terminate(worker: Worker, now: float, first: bool) -> None:
    """Have it begin nothing more, and exit when it has ended its attempt; ``first``: send it SIGTERM."""
    if worker.killed:
        return
    if first and worker.pending:
        worker.hold(now)
    if not worker.pending and worker.held is None and not worker.retiring:  # held, it would drop our STOP
        worker.retire()
    if first:
        ask(worker.pidfd, SIGTERM)


def settle(worker: Worker, status: int | None, now: float) -> bool:
    """Blame the attempt that the worker was running, and put back the rest; return whether there was one to blame."""
    if worker.why is Why.GARBAGE and worker.wire.has_columns:
        worker.salvage()
    began_at = worker.blamed_since(now)
    if began_at is not None:
        batch = worker.batches[0]
        died = (batch.part(0, 1), began_at, now, worker.pid, status, worker.why, worker.label)
        batch.lane.post(Died(*died, worker.wire.last_stack()))
    requeue(worker.cut_off(worker.done + (began_at is not None)))
    return began_at is not None


def end_all(workers: Iterable[Worker]) -> None:
    """Kill these workers, and wait until they have ended or are given up."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.has_ended(worker.give_up_at - monotonic())
        worker.reap()
        if not worker.gone.is_set():
            close(worker)


def await_ends(workers: Iterable[Worker]) -> None:
    """In another thread than the supervisor's: wait until these workers, which were killed, are settled."""
    deadline = monotonic() + PATIENCE
    for worker in workers:
        worker.gone.wait(max(0.0, deadline - monotonic()))


def close(worker: Worker) -> None:
    """Close the channel to a worker that is settled, and tell those who wait for that."""
    worker.wire.close()
    worker.gone.set()
