"""The figures of a run that every writer needs."""

from __future__ import annotations

from dataclasses import dataclass

from parallelkit._ledger import Ledger


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts and seconds. ``busy`` is the sum of all attempts' durations; ``parallelism`` is busy ÷ wall."""

    tasks: int
    succeeded: int
    failed: int
    cancelled: int
    attempts: int
    retried: int
    wall: float
    busy: float
    longest: float

    @property
    def parallelism(self) -> float:
        """How many attempts ran at a time, on average over the run."""
        return self.busy / self.wall if self.wall > 0 else 0.0


def summarize(ledger: Ledger) -> Summary:
    """The summary of a run; one pass over its columns."""
    failed, cancelled = ledger.failed, ledger.cancelled
    lost = [*failed.values(), *(last for last in cancelled.values() if last is not None)]
    lost += [attempt for _, attempt in ledger.tried]
    durations = [
        end - start
        for index, (start, end) in enumerate(zip(ledger.started, ledger.ended, strict=True))
        if index not in failed and index not in cancelled
    ]
    tried = [one.ended - one.started for one in lost if one.started is not None]
    succeeded = len(durations)
    durations += tried
    return Summary(
        tasks=len(ledger),
        succeeded=succeeded,
        failed=len(failed),
        cancelled=len(cancelled),
        attempts=succeeded + len(tried),
        retried=len(ledger.tried),
        wall=ledger.facts.ended_at - ledger.facts.began_at,
        busy=sum(durations),
        longest=max(durations, default=0.0),
    )
