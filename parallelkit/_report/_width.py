"""Advice on the number of tasks at a time, where nobody chose it."""

from __future__ import annotations

from parallelkit._executors._width import usual_threads
from parallelkit._report._estimates import Advice, worthwhile
from parallelkit._report._format import about, count
from parallelkit._report._summary import Survey

FULL = 0.75  # share of the width from which on it is the width that holds a run back


def few_at_a_time(run: Survey) -> Advice | None:
    """Coroutines whose number at a time is the default, which is meant for threads."""
    facts, summary = run.ledger.facts, run.summary
    usual = usual_threads(facts.cpus)
    estimate = max(summary.longest, facts.input_seconds, facts.cpu_seconds)
    saved = summary.wall - estimate
    if not facts.coroutines or facts.max_workers != usual or not at_width(run) or not worthwhile(run, saved):
        return None
    return Advice(
        f"Only {facts.max_workers} coroutines ran at a time, the default of max_workers, which is meant for threads.",
        f"A coroutine costs much less than a thread: all at once would take about {about(estimate)}, "
        "if the service can bear it.",
        saved,
    )


def divided(run: Survey) -> Advice | None:
    """A run in threads within a task, whose default width is divided by that of the outer run or executor."""
    facts, summary = run.ledger.facts, run.summary
    alone = usual_threads(facts.cpus)
    estimate = max(summary.longest, facts.input_seconds, facts.cpu_seconds, summary.busy / alone)
    saved = summary.wall - estimate
    if facts.outer == 1 or not at_width(run) or not worthwhile(run, saved):
        return None
    return Advice(
        f"Only {count(facts.max_workers, 'task')} ran at a time: this run is within a task, of which {facts.outer} may "
        f"run at a time, so it has that share of {alone}, the default of max_workers.",
        f"max_workers={alone} would take about {about(estimate)}, if as many such runs at once do no harm.",
        saved,
    )


def at_width(run: Survey) -> bool:
    """Whether it is the width that holds the run back."""
    facts = run.ledger.facts
    return not facts.limits and run.summary.parallelism >= FULL * facts.max_workers
