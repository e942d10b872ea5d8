"""Ledgers of runs that never took place: the schedule is computed, so nothing waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heapreplace
from typing import Any

from parallelkit._facts import Facts
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost

BEGAN = 1000.0  # the clock of a run does not begin at zero


def plant(
    durations: Sequence[float],
    workers: int = 8,
    *,
    executor: str = "threads",
    keys: Sequence[Any] | None = None,
    pause: float = 0.0,
    **facts: Any,
) -> Ledger:
    """A ledger whose tasks took ``durations`` seconds, each started on the worker that was free first.

    ``pause`` is the least time between two starts. The run ends when its last task does, unless
    ``facts`` has another ``ended_at``.
    """
    ledger = Ledger(Facts(executor=executor, max_workers=workers, began_at=BEGAN, cpus=4))
    ledger.admit(keys, len(durations), BEGAN)
    free = [(0.0, number) for number in range(workers)]
    heapify(free)
    for index, duration in enumerate(durations):
        start, number = free[0]
        start = max(start, index * pause)
        heapreplace(free, (start + duration, number))
        start += BEGAN
        ledger.succeed(((index,), (None,), (start,), (start + duration,), (f"worker {number}",)))
    ledger.facts.ended_at = max(ledger.ended, default=BEGAN)
    for name, value in facts.items():
        setattr(ledger.facts, name, value)
    return ledger


def fail(ledger: Ledger, index: int, error: BaseException, *, number: int = 1, **more: Any) -> None:
    """Turn a planted success into a failure."""
    ledger.fail(index, _lost(ledger, index, error, number, **more))
    ledger.started[index] = ledger.ended[index] = 0.0


def retry(ledger: Ledger, index: int, error: BaseException, took: float) -> None:
    """Turn the first ``took`` seconds of a planted success into an earlier attempt that failed."""
    number, start = ledger.retried.get(index, 1), ledger.started[index]
    ledger.try_again(index, Lost(error, number, start, start + took, ledger.workers[index]))
    ledger.succeed_again(index, number + 1)
    ledger.started[index] += took


def cut_off(ledger: Ledger, indices: Iterable[int], reason: str, before: BaseException | None = None) -> None:
    """Stop the run while these tasks are running, each for the second time if one failed with an error ``before``."""
    ledger.stopped = reason
    last = {index: _lost(ledger, index, before, 1 if before is None else 2) for index in indices}
    ledger.cancel(list(last), last)
    for index in last:
        ledger.started[index] = ledger.ended[index] = 0.0


def _lost(ledger: Ledger, index: int, error: BaseException | None, number: int, **more: Any) -> Lost:
    return Lost(error, number, ledger.started[index], ledger.ended[index], ledger.workers[index], **more)
