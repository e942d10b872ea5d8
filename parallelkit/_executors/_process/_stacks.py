"""Finds out which attempts of a lane are running, and, when it is about to be closed, their stacks: workers write them when asked."""

from __future__ import annotations

from time import sleep

from parallelkit._executors._contract import Running
from parallelkit._executors._process._crash_stack import STACK_PATIENCE, as_stack
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._holding import LOOK
from parallelkit._executors._process._lane import Lane
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._system import monotonic


def running(supervisor: Supervisor, lane: Lane) -> list[Running]:
    """The attempts that have begun and not ended: index, instant of the start, label of the worker."""
    return supervisor.ask(lambda: _running(supervisor, lane))


def whereabouts(supervisor: Supervisor, lane: Lane) -> dict[int, str]:
    """The stacks of the running attempts by index. Nothing more begins from now on, and these attempts are lost.

    Takes no time if nothing runs, and little more than ``STACK_PATIENCE`` at most. The run's own thread calls this.
    """
    lane.halted = True
    if not supervisor.ask(lambda: _hold(_workers_of(supervisor, lane))):
        return {}
    sleep(LOOK)
    asked = supervisor.ask(lambda: _ask(_workers_of(supervisor, lane)))
    until = monotonic() + STACK_PATIENCE
    while asked and len(supervisor.ask(lambda: _told(asked))) < len(asked) and monotonic() < until:
        sleep(LOOK)
    if asked:
        sleep(LOOK)  # by then a stack that was begun is whole
    stacks = {index: as_stack(words) for index, words in supervisor.ask(lambda: _told(asked)).items()}
    return {index: stack for index, stack in stacks.items() if stack is not None}


# In the supervisor's thread


def _running(supervisor: Supervisor, lane: Lane) -> list[Running]:
    workers = _workers_of(supervisor, lane)
    return [(ran[0][0], ran[1], worker.label) for worker in workers if (ran := worker.running()) is not None]


def _workers_of(supervisor: Supervisor, lane: Lane) -> list[Worker]:
    return [worker for worker in supervisor.pool.workers if worker.lane is lane]


def _hold(workers: list[Worker]) -> bool:
    """Have them begin nothing after what they run; False if there are none."""
    for worker in workers:
        worker.hold(monotonic())
    return bool(workers)


def _ask(workers: list[Worker]) -> dict[int, Worker]:
    """Ask each that runs an attempt for its stack; the workers asked, by that attempt's index."""
    asked = {}
    for worker in workers:
        running = worker.running()
        if running is not None and (worker.doomed or worker.ask_where(monotonic())):
            asked[running[0][0]] = worker
    return asked


def _told(asked: dict[int, Worker]) -> dict[int, str]:
    """The stacks written so far; not of workers that have ended, whose ``Died`` events bring theirs."""
    return {
        index: worker.wire.last_stack()
        for index, worker in asked.items()
        if not worker.gone.is_set() and worker.wire.has_stack
    }
