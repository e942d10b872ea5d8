"""Collects the advice on a run: what held it back, and what would help. A healthy run gets none."""

from __future__ import annotations

from collections.abc import Callable

from parallelkit._report import _coroutines, _slow, _wasted, _width
from parallelkit._report._estimates import Advice
from parallelkit._report._summary import Survey

LOOKS: tuple[Callable[[Survey], Advice | None], ...] = (
    _slow.cpu_bound_threads,
    _slow.dominating_task,
    _slow.too_small,
    _slow.slow_to_start,
    _slow.starved,
    _coroutines.blocked_loop,
    _width.few_at_a_time,
    _width.divided,
    _slow.held_by_limits,
    _slow.costly_pickling,
    _slow.oversubscribed,
    _wasted.retry_storm,
    _wasted.abandoned_threads,
    _wasted.killed_processes,
    _wasted.timeouts_not_enforced,
    _wasted.memory_pressure,
)


def advise(run: Survey) -> list[Advice]:
    """All advice on a run, that which saves most first."""
    if not run.summary.attempts:
        return []
    found = [advice for look in LOOKS if (advice := look(run)) is not None]
    return sorted(found, key=lambda advice: -advice.saves)
