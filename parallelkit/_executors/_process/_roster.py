"""The workers of an engine, and the lanes that they serve."""

from __future__ import annotations

from collections import deque

from parallelkit._executors._process._endings import end_all
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Broken, Lane, Why


class Roster:
    """Who is there, who is struck off, who is killed with a lane or an engine. Only the supervisor's thread changes it."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.workers: list[Worker] = []
        self.spare: Worker | None = None
        self.given_up: list[Worker] = []
        """Killed and settled, and not ended yet. Each still holds its attempt, so the item's block, which it may write to, is not free."""

    def everybody(self) -> list[Worker]:
        """All workers, the spare included."""
        return [*self.workers, self.spare] if self.spare is not None else list(self.workers)

    def modules(self) -> set[str]:
        """The modules of the functions of all lanes."""
        return {lane.module for lane in self.lanes}

    def others(self, lane: Lane) -> int:
        """How many workers serve other lanes."""
        return sum([worker.lane not in (lane, None) for worker in tuple(self.workers)])

    def has_left(self, lane: Lane) -> bool:
        """Whether fewer workers serve other lanes than when this lane's run last looked for room."""
        return lane.others > 0 and self.others(lane) < lane.others

    def forget_blocks(self, dropped: deque[int]) -> None:
        """Have all workers unmap these blocks for items."""
        while dropped:
            number = dropped.popleft()
            for worker in self.everybody():
                worker.wire.forget_block(number)

    def remove(self, worker: Worker) -> None:
        """Strike off a worker that has ended or is given up."""
        if worker is self.spare:
            self.spare = None
        else:
            self.workers.remove(worker)

    def drop(self, lane: Lane) -> list[Worker]:
        """Withdraw a closed lane; kill, and return, the workers that hold its attempts."""
        lane.queue.clear()
        lane.job = b""  # it may be large, and a worker keeps its last lane for late log records
        if lane in self.lanes:
            self.lanes.remove(lane)
        victims = []
        for worker in self.everybody():
            if worker.lane is lane:
                worker.kill(Why.DISMISSED)
                victims.append(worker)
            else:
                worker.taught.forget(lane)
        return victims

    def fail(self, broken: Broken) -> None:
        """Fail all lanes, and kill all workers."""
        for lane in tuple(self.lanes):
            lane.fail(broken)
        for worker in self.everybody():
            worker.kill(Why.DISMISSED)

    def end(self) -> None:
        """Kill all workers, and wait for their ends."""
        end_all([*self.everybody(), *self.given_up])
        self.workers.clear()
        self.given_up.clear()
        self.spare = None

    def renew(self) -> None:
        """Replace every worker as soon as it has done what it holds."""
        if self.spare is not None:
            self.workers.append(self.spare)
            self.spare = None
        for worker in self.workers:
            worker.outdated = True
