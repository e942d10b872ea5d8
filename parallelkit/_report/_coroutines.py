"""Advice on coroutines that block their event loop."""

from __future__ import annotations

from parallelkit._report._estimates import Advice, worthwhile
from parallelkit._report._format import key_text, seconds
from parallelkit._report._summary import Survey


def blocked_loop(run: Survey) -> Advice | None:
    """Coroutines that block their event loop, so that no other one can run."""
    ledger, facts, summary = run.ledger, run.ledger.facts, run.summary
    saved = facts.blocked_seconds * (1 - 1 / min(summary.tasks, facts.max_workers))
    if not worthwhile(run, saved):
        return None
    return Advice(
        f"The event loop was blocked for {seconds(facts.blocked_seconds)} of {seconds(summary.wall)}: coroutines "
        f"kept it busy without an await, task {key_text(ledger.key(facts.longest_step_of))} for the longest, "
        f"{seconds(facts.longest_step)} at a time.",
        "Run what blocks with await asyncio.to_thread(…), or make the task a plain function, which gets a thread.",
        saved,
    )
