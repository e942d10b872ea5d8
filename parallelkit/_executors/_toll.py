"""Counts the workers that end without an attempt that could be blamed, so that it cannot go on for ever."""

from __future__ import annotations

from collections.abc import Iterable

from parallelkit._executors._handle import Worker
from parallelkit._executors._lane import Broken, Lane

FATAL_STARTS = 2  # in a row, until the engine is broken
FATAL_LOADS = 2  # of one function, until its run fails


class Toll:
    """Judges each end; what follows from it is done by the caller."""

    def __init__(self, max_workers: int) -> None:
        self._patience = 2 * max_workers + 8
        self._barren = 0  # workers in a row that ended before they did anything

    def take(self, worker: Worker, lanes: Iterable[Lane], blamed: bool) -> tuple[Broken | None, Lane | None]:
        """Why the engine is broken by this end, if it is; and the lane whose function workers die of loading."""
        number = worker.wire.loads
        if blamed or worker.done or worker.dismissed or number is not None:
            self._barren = 0
            return None, None if blamed or worker.dismissed else self._fatal_load(number, lanes)
        self._barren += 1
        if not worker.ready and self._barren >= FATAL_STARTS:
            return Broken("worker processes do not start", worker.refusal), None
        if self._barren >= self._patience:
            return Broken("worker processes end before they run anything"), None
        return None, None

    def _fatal_load(self, number: int | None, lanes: Iterable[Lane]) -> Lane | None:
        for lane in lanes:
            if lane.number == number:
                lane.fatal_loads += 1
                return lane if lane.fatal_loads >= FATAL_LOADS else None
        return None
