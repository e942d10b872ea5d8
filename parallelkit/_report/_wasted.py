"""What cost a run work that led to nothing. Each function is one item, silent where all is well."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

from parallelkit._errors import TaskTimeout
from parallelkit._report._estimates import Advice, of_the_run
from parallelkit._report._failures import kinds_of_failure
from parallelkit._report._format import count, percent, seconds
from parallelkit._report._summary import Fate, Survey, durations, lost_attempts, spent

LEAST_RETRIES = 20  # that can be called a storm, and the share of all attempts that they must be
STORM = 0.2
BUDGET = 0.1  # the share of retries that the cure names
KILLED = 9  # SIGKILL; timeouts are enforced by it too, but their error is a TaskTimeout


def retry_storm(run: Survey) -> Advice | None:
    """Retries that double the load."""
    summary = run.summary
    share = summary.retried / summary.attempts
    if summary.retried < LEAST_RETRIES or share < STORM:
        return None
    wasted = sum(spent(lost) for _, lost in run.ledger.tried)
    kind = max(kinds_of_failure(run.ledger), key=lambda kind: kind.retried)
    cap = max(10, round(BUDGET * summary.attempts))
    return Advice(
        f"A storm of retries: {summary.retried:,} of {summary.attempts:,} attempts failed and were made "
        f"again ({percent(share)}, {seconds(wasted)} of work), mostly for {kind.text}.",
        f"Retry(…, budget={BUDGET}) would have stopped after about {cap:,}; if it is the load that makes "
        "them fail, fewer workers or a longer delay do more.",
        of_the_run(run, wasted),
    )


def abandoned_threads(run: Survey) -> Advice | None:
    """Threads that overran their timeout and may still run."""
    lost = [one for _, one, _ in lost_attempts(run.ledger)]
    left = [one for one in lost if isinstance(one.error, TaskTimeout) and one.error.abandoned]
    if not left:
        return None
    wasted = sum(map(spent, left))
    places = Counter(filter(None, (innermost(lost.stack or "") for lost in left)))
    where = f" Most stood in {places.most_common(1)[0][0]}." if places else ""
    return Advice(
        f"{count(len(left), 'thread')} overran the timeout and had to be abandoned after {seconds(wasted)} of "
        f"work, which is lost; what each holds it keeps until it returns.{where}",
        'Give the call inside a timeout of its own, or take executor="processes", which kills what overruns.',
        of_the_run(run, wasted),
    )


def innermost(stack: str) -> str:
    """Where in the task a thread stood: the last frame of its stack that is not ours."""
    frames: list[tuple[str, str, str]] = re.findall(r'File "(.*)", line (\d+), in (.*)', stack)
    for path, line, function in reversed(frames):
        if "/parallelkit/_" not in path.replace("\\", "/"):
            return "" if path.endswith("threading.py") else f"{function} ({PurePath(path).name}, line {line})"
    return ""


def timeouts_not_enforced(run: Survey) -> Advice | None:
    """Attempts that overran a timeout which nobody was there to enforce."""
    facts = run.ledger.facts
    if facts.timeouts_enforced or facts.timeout is None:
        return None
    limit = facts.timeout
    over = [duration for duration in durations(run.ledger) if duration > limit]
    if not over:
        return None
    return Advice(
        f"{count(len(over), 'attempt')} ran past the timeout of {limit:g} s, the longest to "
        f"{seconds(max(over))}: an inline run cannot enforce it.",
        'executor="threads" reports in time what overruns, executor="processes" kills it as well.',
        sum(over) - limit * len(over),
    )


def memory_pressure(run: Survey) -> Advice | None:
    """Attempts that ended because memory ran out."""
    lost = [lost for _, lost, fate in lost_attempts(run.ledger) if fate != Fate.CUT_OFF]
    exhausted = [one for one in lost if isinstance(one.error, MemoryError)]
    killed = [one for one in lost if getattr(one.error, "signal", None) == KILLED]
    if not exhausted and not killed:
        return None
    wasted, width = sum(map(spent, exhausted + killed)), run.ledger.facts.max_workers
    how = [f"{len(exhausted):,} by MemoryError"] * bool(exhausted)
    how += [f"{len(killed):,} by SIGKILL, as the kernel does when memory runs out"] * bool(killed)
    fewer = f"fewer tasks at a time (max_workers={width // 2} instead of {width}), " if width > 1 else ""
    return Advice(
        f"Memory ran short: {count(len(exhausted + killed), 'attempt')} ended, {' and '.join(how)}; "
        f"{seconds(wasted)} of work are lost.",
        f"What helps: {fewer}smaller tasks, or iter_parallel where it is the results that pile up.",
        of_the_run(run, wasted),
    )
