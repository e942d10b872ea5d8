"""A ledger rebuilt from the outcomes of a stream: for the error that ends it, and for the reports of the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from parallelkit._facts import Facts
from parallelkit._ledger import Ledger
from parallelkit._lost import BECAUSE, Lost, is_of_stop
from parallelkit._marks import UNSET

if TYPE_CHECKING:
    from parallelkit._outcomes import Outcome


def ledger_of(outcomes: Sequence[Outcome[Any, Any]], facts: Facts, stopped: str | None = None) -> Ledger:
    """A ledger of these outcomes; its instants count from 0."""
    ledger = Ledger(facts, places=[outcome.index for outcome in outcomes], stopped=stopped)
    for outcome in outcomes:
        add(ledger, outcome)
    return ledger


def add(ledger: Ledger, outcome: Outcome[Any, Any], kept: Callable[[Lost], Lost] = lambda lost: lost) -> None:
    """Add an outcome to a ledger whose instants count from 0; ``kept`` gives what is kept of a failure."""
    index, start = len(ledger), outcome.started_at
    end = (start or 0.0) + outcome.duration
    ledger.admit([outcome.key], 1, outcome.queued_at, UNSET if outcome.parent is None else outcome.parent)
    if outcome.ok:
        if outcome.attempts != 1:
            ledger.succeed_again(index, outcome.attempts)
        ledger.succeed(((index,), (outcome.value,), (outcome.started_at,), (end,), (outcome.worker,)))
        return
    lost = Lost(outcome.error, outcome.attempts, start, end, outcome.worker, outcome.traceback, outcome.stack)
    if not is_of_stop(outcome.error):
        ledger.fail(index, kept(lost))
        return
    lost.error, lost.text = outcome.error.__cause__, outcome.traceback.rpartition(BECAUSE)[0]
    lost = kept(lost)
    if not outcome.attempts and ledger.stopped_by is None:
        ledger.stopped_by = lost.error
    ledger.cancel((index,), {index: lost} if outcome.attempts else {})
