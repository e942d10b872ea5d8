"""Advice on what made a run of coroutines slower than necessary."""

from __future__ import annotations

from parallelkit._report._estimates import Advice, worthwhile
from parallelkit._report._format import about, key_text, seconds
from parallelkit._report._summary import Survey

FULL = 0.75  # share of the width from which on it is the width that holds coroutines back


def few_at_a_time(run: Survey) -> Advice | None:
    """Coroutines whose number at a time is the default, which is meant for threads."""
    facts, summary = run.ledger.facts, run.summary
    estimate = max(summary.longest, facts.input_seconds, facts.cpu_seconds)
    saved = summary.wall - estimate
    default = facts.max_workers == min(32, facts.cpus + 4)
    held = facts.limits or summary.parallelism < FULL * facts.max_workers
    if not facts.coroutines or not default or held or not worthwhile(run, saved):
        return None
    return Advice(
        f"Only {facts.max_workers} coroutines ran at a time, the default of max_workers, which is meant for threads.",
        f"A coroutine costs much less than a thread: all at once would take about {about(estimate)}, "
        "if the service can bear it.",
        saved,
    )


def blocked_loop(run: Survey) -> Advice | None:
    """Coroutines that block their event loop, so that no other one can run."""
    ledger, facts, summary = run.ledger, run.ledger.facts, run.summary
    saved = facts.blocked_seconds * (1 - 1 / min(summary.tasks, facts.max_workers))
    if facts.longest_step_of < 0 or not worthwhile(run, saved):
        return None
    return Advice(
        f"The event loop was blocked for {seconds(facts.blocked_seconds)} of {seconds(summary.wall)}: coroutines "
        f"kept it busy without an await, task {key_text(ledger.key(facts.longest_step_of))} for the longest, "
        f"{seconds(facts.longest_step)} at a time.",
        "Run what blocks with await asyncio.to_thread(…), or make the task a plain function, which gets a thread.",
        saved,
    )
