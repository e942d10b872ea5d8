"""Advice on work that came to nothing. Each function looks for one cause; None if it does not apply."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePath

from parallelkit._died import WorkerDied
from parallelkit._errors import TaskTimeout
from parallelkit._lost import Lost, is_a
from parallelkit._policies import FREE_RETRIES
from parallelkit._report._estimates import Advice, fetches, of_the_run
from parallelkit._report._failures import kinds_of_failure
from parallelkit._report._format import count, percent, seconds
from parallelkit._report._summary import Survey, durations, failed_attempts, spent

LEAST_RETRIES = 20  # for a storm
STORM = 0.2  # least share of all attempts
BUDGET = 0.1  # what the advice suggests
KILLED = 9  # SIGKILL; it enforces timeouts, too, but their error is a TaskTimeout
LATE = 0.5  # seconds that an attempt may take to be killed after its timeout


def retry_storm(run: Survey) -> Advice | None:
    """Retries that add much to the load."""
    summary = run.summary
    share = summary.retried / summary.attempts
    if summary.retried < LEAST_RETRIES or share < STORM:
        return None
    wasted = sum(spent(lost) for _, lost in run.ledger.tried)
    kind = max(kinds_of_failure(run.ledger), key=lambda kind: kind.retried)
    cap = max(FREE_RETRIES, round(BUDGET * (summary.attempts - summary.retried)))  # of the tasks started
    return Advice(
        f"A retry storm: {summary.retried:,} of {summary.attempts:,} attempts failed and were retried "
        f"({percent(share)}, {seconds(wasted)} of work), mostly for {kind.text}.",
        f"Retry(…, budget={BUDGET}) would have allowed about {cap:,} retries; if attempts fail because of the load, "
        "fewer workers or a longer delay help more.",
        of_the_run(run, wasted),
    )


def abandoned_threads(run: Survey) -> Advice | None:
    """Threads that overran their timeout and may still run."""
    left = [
        one
        for one in failed_attempts(run.ledger)
        if is_a(one.error, TaskTimeout) and one.error.abandoned and not one.error.killed
    ]
    if not left:
        return None
    wasted = sum(map(spent, left))
    place, stood = most_frequent_place(left)
    those = "It" if len(left) == 1 else "All" if stood == len(left) else f"{stood:,} of them"
    where = f" {those} {'was' if stood == 1 else 'were'} in {place}." if stood else ""
    who = "attempt" if run.ledger.facts.coroutines else "thread"
    return Advice(
        f"{count(len(left), who)} overran the timeout and had to be abandoned after {seconds(wasted)} of "
        f"work, which is lost; {'it' if len(left) == 1 else 'each'} keeps what it holds until it returns.{where}",
        what_ends_in_time(run),
        of_the_run(run, wasted),
    )


def what_ends_in_time(run: Survey) -> str:
    """The cure for calls that overrun; neither coroutines nor ``http.fetch`` can run in processes."""
    if run.ledger.facts.coroutines:
        return "Let asyncio.CancelledError end the coroutine, and run what blocks with await asyncio.to_thread(…)."
    if fetches(run):
        return (
            "With connect_timeout and read_timeout well below timeout, a request that hangs ends by itself; only name "
            "resolution, and headers that arrive byte by byte, may take longer."
        )
    return (
        'Give the blocking call a timeout of its own, or use executor="processes", which kills what overruns.'
    )


def killed_processes(run: Survey) -> Advice | None:
    """Processes that were killed because they overran their timeout, and where they were in their code."""
    lost = failed_attempts(run.ledger)
    killed = [one for one in lost if is_a(one.error, TaskTimeout) and one.error.killed]
    if not killed:
        return None
    wasted, limit = sum(map(spent, killed)), run.ledger.facts.timeout
    were = "was killed at its timeout" if len(killed) == 1 else "were killed at their timeout"
    # A task may have had a timeout of its own.
    known = limit is not None and all(limit <= spent(one) < limit + LATE for one in killed)
    place, stood = most_frequent_place(killed)
    of_them = f"{stood:,} of them " if stood < len(killed) else ""
    where = f", {of_them}at {place}" if stood else ""
    return Advice(
        f"{count(len(killed), 'attempt')} {were}{f' of {limit:g} s' if known else ''} "
        f"({seconds(wasted)} of work lost){where}.",
        "If a call in the task hangs, give it a timeout of its own; if the task is only slow, give it more time, "
        "or less to do.",
        of_the_run(run, wasted),
    )


def most_frequent_place(lost: list[Lost]) -> tuple[str, int]:
    """Where in the tasks' code most of these attempts were, and how many of them; ``("", 0)`` if no stack says."""
    places = Counter(filter(None, (innermost(one.stack or "") for one in lost)))
    return places.most_common(1)[0] if places else ("", 0)


def innermost(stack: str) -> str:
    """The innermost frame of a stack that belongs neither to us nor to ``threading``, or an empty text."""
    frames: list[tuple[str, str, str]] = re.findall(r'File "(.*)", line (\d+),? in (.*)', stack)
    for path, line, function in reversed(frames):
        place = PurePath(path)
        if "/parallelkit/_" not in place.as_posix() and place.name != "threading.py":
            return f"{function} ({place.name}, line {line})"
    return ""


def timeouts_not_enforced(run: Survey) -> Advice | None:
    """Attempts that overran a timeout in a run that cannot enforce it."""
    facts = run.ledger.facts
    if facts.timeouts_enforced or facts.timeout is None:
        return None
    limit = facts.timeout
    over = [duration for duration in durations(run.ledger) if duration > limit]
    if not over:
        return None
    return Advice(
        f"{count(len(over), 'attempt')} ran past the timeout of {limit:g} s, for up to "
        f"{seconds(max(over))}: an inline run cannot enforce it.",
        'executor="threads" fails such a task in time; executor="processes" kills it, too.',
        sum(over) - limit * len(over),
    )


def memory_pressure(run: Survey) -> Advice | None:
    """Attempts that ended because memory ran out."""
    lost = failed_attempts(run.ledger)
    exhausted = [one for one in lost if is_a(one.error, MemoryError)]
    killed = [one for one in lost if is_a(one.error, WorkerDied) and one.error.signal == KILLED]
    if not exhausted and not killed:
        return None
    wasted, width = sum(map(spent, exhausted + killed)), run.ledger.facts.max_workers
    ran = "ran" if exhausted else "may have run"  # others send SIGKILL, too
    how = [f"{count(len(exhausted), 'attempt')} ended in a MemoryError"] * bool(exhausted)
    if killed:
        how.append(
            f"{count(len(killed), 'attempt')} ended in a SIGKILL, which the kernel sends when memory runs out"
        )
    fewer = f"fewer tasks at a time (max_workers={width // 2} instead of {width}), " if width > 1 else ""
    return Advice(
        f"Memory {ran} short: {' and '.join(how)}; {seconds(wasted)} of work is lost.",
        f"What helps: {fewer}smaller tasks, or iter_parallel if it is the results that pile up.",
        of_the_run(run, wasted),
    )
