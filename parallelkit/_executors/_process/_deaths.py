"""Counts the workers that end without an attempt to blame, so that a run or an engine does not replace them for ever.

A worker that exits or crashes will most likely do so again. One that was killed from outside need not, so more of
these are tolerated.
"""

from __future__ import annotations

from _signal import SIGHUP, SIGINT, SIGKILL, SIGTERM  # type: ignore[import-not-found]  # see _killing.py
from collections.abc import Iterable

from parallelkit._executors._process import _handle
from parallelkit._executors._process._decode import death_of
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._lane import Broken, Lane, Why

FATAL_STARTS = 2  # failed starts in a row after which the engine is broken; it is at once if the initializer raises or takes too long
FATAL_LOADS = 2  # ends while loading one function, with no new worker that does it in between, after which its run fails

_FROM_OUTSIDE = {-SIGKILL, -SIGTERM, -SIGINT, -SIGHUP}
"""Statuses that a process rarely causes itself; the first is also that of the system's OOM killer."""


class Deaths:
    """Judges each end; the caller acts on it."""

    def __init__(self, max_workers: int) -> None:
        self._patience = 2 * max_workers + 8
        self._in_vain = 0  # workers in a row that ended before they did anything
        self._unstarted = 0  # of these, the ones that failed to start and were not killed from outside

    def take(
        self, worker: Worker, status: int | None, lanes: Iterable[Lane], blamed: bool
    ) -> tuple[Broken | None, Lane | None]:
        """Why the engine is broken by now, if it is; and the lane, if any, whose function kills workers that load it."""
        number = worker.wire.loads
        from_outside = status in _FROM_OUTSIDE and worker.why is Why.ITSELF
        dismissed = worker.why is Why.DISMISSED
        if blamed or dismissed or worker.done or number is not None:
            self._in_vain = self._unstarted = 0
            return None, None if blamed or dismissed else self._fatal_load(number, lanes, from_outside)
        self._in_vain += 1
        self._unstarted += not worker.ready and not from_outside
        if self._unstarted >= FATAL_STARTS or worker.refusal is not None or worker.why is Why.UNLOADED:
            return Broken(f"worker processes do not start: {end_of(worker, status)}", worker.refusal), None
        if self._in_vain >= self._patience:
            return Broken(f"worker processes end before they run anything: {end_of(worker, status)}"), None
        return None, None

    def _fatal_load(self, number: int | None, lanes: Iterable[Lane], from_outside: bool) -> Lane | None:
        for lane in lanes:
            if lane.number == number:
                lane.fatal_loads += not from_outside
                lane.killed_loads += from_outside
                fatal = lane.fatal_loads >= FATAL_LOADS or lane.killed_loads >= self._patience
                return lane if fatal else None
        return None


def end_of(worker: Worker, status: int | None) -> str:
    """Say how a worker ended, where no attempt is to blame."""
    if worker.why is Why.UNLOADED:
        return f"worker process {worker.pid} took more than {_handle.LOAD_LIMIT:g} s, and was killed"
    return str(death_of(worker.pid, status))
