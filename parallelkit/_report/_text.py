"""The report of a run as text, about a screenful."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from textwrap import fill

from parallelkit._ledger import Ledger
from parallelkit._numbers import check_number
from parallelkit._report._advice import advise
from parallelkit._report._estimates import compute_seconds, interpreter_bound, worthwhile
from parallelkit._report._failures import kinds_of_failure
from parallelkit._report._format import clip, count, encodable, key_text, percent, seconds
from parallelkit._report._summary import Survey, first_start_of_all, survey
from parallelkit._report._words import at_a_time, counts, examples, fate, how_many

SLOWEST = 5  # tasks listed
KINDS = 8  # of failures listed
WIDTH = 100  # characters per line


def write_text(ledger: Ledger, cost_per_attempt: float | None) -> str:
    """The text for ``Results.report``."""
    run = survey(ledger)
    parts = [head(run), times(run), slowest(run), failures(run)]
    if cost_per_attempt is not None:
        cost = check_number("cost_per_attempt", cost_per_attempt, 0.0)
        if cost == inf:
            raise ValueError(f"cost_per_attempt must be finite, got {cost_per_attempt!r}")
        parts.append(costs(run, cost))
    parts.append(advice(run))
    return encodable("\n\n".join("\n".join(part) for part in map(list, parts) if part))


def head(run: Survey) -> Iterator[str]:
    """How many tasks there were, how they ended, why the run was stopped if it was, and where it ran."""
    facts = run.ledger.facts
    yield counts(run.summary)
    if run.ledger.stopped is not None:
        yield fill(f"stopped: {run.ledger.stopped}", WIDTH, subsequent_indent="  ")
    note = "" if facts.timeouts_enforced else "; one by one in the caller's thread, timeouts are not enforced"
    yield f"executor {facts.executor}, {count(facts.max_workers, 'worker')}{note}"


def times(run: Survey) -> Iterator[str]:
    """How long the run took, and how much of it ran in parallel."""
    summary = run.summary
    yield f"wall {seconds(summary.wall)}, busy {seconds(summary.busy)}: ran {at_a_time(summary)} at a time"
    if summary.wall > 0 and summary.attempts:
        yield f"longest task {seconds(summary.longest)}, {percent(summary.longest / summary.wall)} of the wall time"
    late = first_start_of_all(run.ledger) - run.ledger.facts.began_at
    if worthwhile(run, late):  # workers import the modules of the tasks first, or the input was slow
        yield f"the first task began after {seconds(late)}"


def slowest(run: Survey) -> Iterator[str]:
    """The tasks that took longest, over all their attempts."""
    indices = run.slowest(SLOWEST)
    if indices:
        yield "slowest tasks"
        rows = [
            (seconds(run.seconds[index]), key_text(run.ledger.key(index)), fate(run.ledger, index))
            for index in indices
        ]
        width = max(len(key) for _, key, _ in rows)
        for took, key, ended in rows:
            yield f"  {took:>9}  {key:<{width}}  {ended}".rstrip()


def failures(run: Survey) -> Iterator[str]:
    """Failures by kind, including those of attempts that were retried."""
    kinds = kinds_of_failure(run.ledger)
    if kinds:
        yield "failures"
    width = max((len(how_many(kind)) for kind in kinds[:KINDS]), default=0)
    for kind in kinds[:KINDS]:
        yield f"  {how_many(kind):>{width}}  {clip(kind.text, WIDTH - width - 4)}"
        yield f"  {'':>{width}}  {clip(examples(run.ledger, kind), WIDTH - width - 4)}"
    if len(kinds) > KINDS:
        rest = sum(kind.failed + kind.retried for kind in kinds[KINDS:])
        yield f"  and {count(rest, 'attempt')} of {count(len(kinds) - KINDS, 'further kind')}"


def costs(run: Survey, cost: float) -> Iterator[str]:
    """Time, calls and cost, sequential against parallel."""
    summary = run.summary
    # Threads that compute slow each other down; a plain loop would need only their processor time.
    alone = compute_seconds(run) if interpreter_bound(run) else summary.busy
    saved = percent(1 - summary.wall / alone) if summary.wall < alone else "none"
    calls, price = f"{summary.attempts:,}", money(summary.attempts, cost)
    rows = [
        ("", "sequential", "parallel", "saved"),
        ("time", seconds(alone), seconds(summary.wall), saved),
        ("calls", calls, calls, "none"),
        ("cost", price, price, "none"),
    ]
    for name, *cells in rows:
        yield f"{name:<8}" + "".join(f"{cell:>14}" for cell in cells)
    yield "Parallel runs save time, not cost."
    if summary.retried:
        retried = money(summary.retried, cost)
        yield f"{summary.retried:,} of the calls, costing {retried}, failed and had to be repeated."


def money(calls: int, price: float) -> str:
    """The cost of so many calls, with as many decimals as the price needs, but at least two.

    >>> money(5, 0.03), money(5, 0.00025), money(2, 1500)
    ('0.15', '0.00125', '3,000.00')
    """
    whole, decimals = f"{calls * price:,.8f}".split(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def advice(run: Survey) -> Iterator[str]:
    """The advice: what held the run back, and what would help."""
    found = advise(run)
    if found:
        yield "advice"
    for one in found:
        yield fill(one.cause, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        yield fill(one.cure, WIDTH, initial_indent="    → ", subsequent_indent="      ")
