"""Advice on what made a run slower than necessary. Each function looks for one cause; None if it does not apply."""

from __future__ import annotations

from heapq import nlargest
from itertools import chain
from math import ceil

from parallelkit._errors import TaskTimeout
from parallelkit._ledger import Ledger
from parallelkit._lost import is_a
from parallelkit._report._estimates import (
    PROCESSES,
    Advice,
    compute_seconds,
    fetches,
    ideal,
    interpreter_bound,
    survives_a_loop,
    worthwhile,
)
from parallelkit._report._format import about, count, key_text, number, percent, seconds
from parallelkit._report._lanes import all_bars
from parallelkit._report._summary import Survey, first_start, first_start_of_all, spent
from parallelkit._report._words import at_a_time
from parallelkit._scheduling._retry_after import LONGEST, PAUSES, retry_after

START = 0.1  # seconds that worker processes take to start
NEXT_TO_NOTHING = 0.1  # share of the workers' busy time below which the work gets no figure of its own
SMALL = 0.001  # seconds; for a shorter task, the cost of sending it to a worker may matter
SPARE = 1.2  # workers to recommend for each that a limit keeps busy
COMPUTES = 0.5  # processors in use from which on tasks do more than wait
INNER = 0.3  # least share of the processor time in threads that tasks have started
CROWD = 1.5  # threads per processor
IDLE = 0.25  # share of the workers' time that limits may cost without a mention


def cpu_bound_threads(run: Survey) -> Advice | None:
    """CPU-bound tasks in threads."""
    facts, summary, compute = run.ledger.facts, run.summary, compute_seconds(run)
    if not interpreter_bound(run):
        return None
    estimate = START + max(compute / facts.cpus, summary.longest * compute / summary.busy)
    saved = summary.wall - estimate
    if not worthwhile(run, saved):
        return None
    who = "coroutines" if facts.coroutines else "threads"
    cure = 'executor="processes"'
    if facts.coroutines:  # they do not run in processes
        cure = f"Plain functions with {cure}"
    elif fetches(run):
        cure = f"Calling requests in a function of your own, with run_parallel and {cure},"
    return Advice(
        f"The tasks are CPU-bound: {facts.max_workers} {who} used {seconds(compute)} of processor time in "
        f"{seconds(summary.wall)}, because only one of them at a time can run Python code.",
        f"{cure} would take about {about(estimate)} on {count(facts.cpus, 'processor')}, "
        "once its workers have imported what the tasks use.",
        saved,
    )


def dominating_task(run: Survey) -> Advice | None:
    """One task that takes most of the run."""
    ledger, summary, width = run.ledger, run.summary, run.ledger.facts.max_workers
    if width < 2 or summary.tasks < 2 or summary.longest < summary.wall / 2:
        return None
    longest, second = nlargest(2, run.seconds)
    others = max(second, (summary.busy - longest) / width)
    (index,) = run.slowest(1)
    # How long a task would have taken that the stop of the run cut off, nobody knows.
    if index in ledger.cancelled or others > longest / 2 or not worthwhile(run, longest - others):
        return None
    what, cure = _what_helps(run, index)
    return Advice(
        f"Task {key_text(ledger.key(index))} alone took {seconds(longest)} of {seconds(summary.wall)}{what}.",
        f"Without it, the run would take about {about(others)}: {cure}.",
        longest - others,
    )


def _what_helps(run: Survey, index: int) -> tuple[str, str]:
    """The rest of the cause, and the cure, for a dominating task: splitting one that failed would not help."""
    ledger = run.ledger
    lost = [each for tried, each in ledger.tried if tried == index]
    lost += [ledger.failed[index]] if index in ledger.failed else []
    if sum(map(spent, lost)) > run.seconds[index] / 2:
        bounded = ledger.facts.timeout is not None or any(is_a(each.error, TaskTimeout) for each in lost)
        fewer = ", or fewer retries," if len(lost) > 1 else ""
        how = f", most of it in {count(len(lost), 'attempt')} that failed"
        return how, f"a {'lower ' if bounded else ''}timeout{fewer} would bound what it costs"
    cure, late = "split it", first_start(ledger, index) - ledger.facts.began_at
    if worthwhile(run, late):
        cure += f", or put it first in the input (it started {seconds(late)} into the run)"
    # A task may wait for other calls that it has submitted to the executor; how long it did is not known.
    unless = ", unless it waits for other calls to this executor" * (
        ledger.facts.executor == "ThreadExecutor"
    )
    return f": no number of workers can beat that{unless}", cure


def too_small(run: Survey) -> Advice | None:
    """Tasks that take less time than sending them to another process."""
    facts, summary = run.ledger.facts, run.summary
    mean = summary.busy / summary.attempts
    saved = summary.wall - facts.input_seconds - summary.busy
    # Delays of retries and waits for limits have nothing to do with the size of tasks.
    waits = summary.retried or facts.limits
    if facts.executor not in PROCESSES or mean >= SMALL or waits or not worthwhile(run, saved):
        return None
    if not survives_a_loop(run):
        return None
    return Advice(
        f"The tasks are small: {summary.attempts:,} of about {about(mean)}, {seconds(summary.busy)} of work "
        f"in a run of {seconds(summary.wall)}. The rest went into starting processes and sending tasks to them.",
        f"A plain loop would take about {about(summary.busy)}; "
        "or batch many items into one task, so that each task takes some milliseconds.",
        saved,
    )


def slow_to_start(run: Survey) -> Advice | None:
    """Workers that take most of the run to start, because of imports, or of data that is sent to all of them."""
    facts, summary = run.ledger.facts, run.summary
    # Only if workers were started for this run, and tasks had nothing else to wait for.
    if facts.executor != "processes" or facts.limits:
        return None
    waited = first_start_of_all(run.ledger) - facts.began_at - facts.input_seconds - facts.travel_seconds
    if waited < summary.wall / 2 or waited < 2 * START or too_small(run):
        return None
    loop = ""
    if summary.busy < waited and survives_a_loop(run):
        loop = f"; a plain loop would need about {about(summary.busy)} for the work"
    began = f"The first task started {seconds(waited)} into a run of {seconds(summary.wall)}"
    if 2 * facts.job_seconds >= waited / 2:  # pickling takes job_seconds, and unpickling about as long
        return Advice(
            f"{began}: it took that long to send the workers {facts.job_bytes / 2**20:,.0f} MiB, which are the function, "
            "what it refers to, and the arguments of the run.",
            "Load the data in the workers: from a path given to the task, or in the initializer of a ProcessExecutor. "
            f"Arrays and DataFrames are sent once for all workers, other objects to each of them{loop}.",
            waited,
        )
    return Advice(
        f"{began}: the worker processes took that long to start and to import what the function needs.",
        f"A ProcessExecutor of your own, passed as executor=, keeps its workers warm between runs{loop}.",
        waited,
    )


def starved(run: Survey) -> Advice | None:
    """Workers that wait for a slow input."""
    facts, summary = run.ledger.facts, run.summary
    estimate = ideal(run)
    saved = min(facts.input_seconds, summary.wall - estimate)
    if facts.executor == "inline" or facts.input_seconds < summary.wall / 2 or not worthwhile(run, saved):
        return None
    return Advice(
        f"The workers starved: reading the input took {seconds(facts.input_seconds)} of "
        f"{seconds(summary.wall)}, and {at_a_time(summary)} of {facts.max_workers} workers "
        "were busy on average.",
        f"If reading took no time, the run would take about {about(summary.wall - saved)}: "
        "move work from the input (a generator, say) into the tasks.",
        saved,
    )


def held_by_limits(run: Survey) -> Advice | None:
    """Workers that idle because limits let nothing start, or because an error said how long to wait."""
    ledger, facts, summary = run.ledger, run.ledger.facts, run.summary
    # Until the last start there was always something to start, unless the input was slow.
    until = max(ledger.started, default=0.0) - facts.began_at
    paused, why = pauses(ledger, until)
    mostly = paused > until / 2
    estimate = max(ideal(run), summary.wall - paused) if mostly else ideal(run)
    saved = summary.wall - estimate
    limits = [limit for limit in facts.limits if limit != PAUSES]
    if not (limits or mostly) or facts.input_seconds >= until / 2 or not worthwhile(run, saved):
        return None
    busy = sum(max(0.0, min(bar.end, until) - bar.start) for bar in all_bars(ledger))
    idle = 1 - busy / (until * facts.max_workers)
    if idle < IDLE:
        return None
    idled = f"The workers idled {percent(idle)} of the time, held back by"
    if mostly:
        return Advice(
            f"{idled} {why}.",
            f"Without that, the run would take about {about(estimate)}: a lower rate, or fewer workers, may avoid it.",
            saved,
        )
    enough = ceil(SPARE * busy / until)  # no more than there are, since some idled
    fewer = (
        f"{count(enough, 'worker')} instead of {facts.max_workers} would do. "
        if enough < facts.max_workers
        else ""
    )
    return Advice(
        f"{idled} {', '.join([*limits, *[why] * (paused > 0)])}.",
        f"{fewer}Without the limit{'s' * (len(limits) > 1)}, the run would take about {about(estimate)}, if the service can bear it.",
        saved,
    )


def pauses(ledger: Ledger, until: float) -> tuple[float, str]:
    """For how long, up to ``until``, tasks or their rate-limit groups were told to wait: in seconds and in words."""
    began, told = ledger.facts.began_at, []
    groups = any(not limit.startswith("ConcurrencyLimit") for limit in ledger.facts.limits)
    for index, lost in chain(ledger.tried, ledger.failed.items() if groups else ()):
        asked = None if lost.error is None else retry_after(lost.error)
        start = lost.ended - began
        if asked and asked <= LONGEST and 0 <= start < until:
            told.append((start, min(start + asked, until), index))
    if not told:
        return 0.0, ""
    told.sort()
    paused = end = 0.0
    for start, stop, _ in told:
        paused += max(0.0, stop - max(start, end))
        end = max(end, stop)
    first, *others = dict.fromkeys(index for _, _, index in told)
    who = key_text(ledger.key(first)) + (f" and {count(len(others), 'other')} were" if others else " was")
    return paused, f"a pause of {seconds(paused)}, since task {who} told to wait"


def costly_pickling(run: Survey) -> Advice | None:
    """Arguments and results that cost more to send than to process."""
    facts, summary = run.ledger.facts, run.summary
    # Workers unpickle what the parent pickles, and pickle what it unpickles, in about the same time.
    work = summary.busy - facts.travel_seconds
    estimate = work / min(facts.max_workers, summary.attempts)
    saved = summary.wall - estimate
    large = facts.travel_seconds / summary.attempts >= SMALL
    if not large or 2 * facts.travel_seconds < work or not worthwhile(run, saved):
        return None
    there = f"about as long in the workers, which leaves {about(work)} of their {seconds(summary.busy)} for the work"
    left = f"the run would take about {about(estimate)}"
    if work < NEXT_TO_NOTHING * summary.busy:
        there = f"nearly all of the {seconds(summary.busy)} that the workers were busy"
        left = f"next to nothing would be left of the {seconds(summary.wall)}"
    return Advice(
        f"Sending costs more than the work: pickling arguments and results took {seconds(facts.travel_seconds)} "
        f"in the parent, and {there}.",
        f"Send a path, a key or a range and load the data in the task: if that were free, {left}. "
        "Memory-bound work is often fastest in threads, or in a plain loop.",
        saved,
    )


def oversubscribed(run: Survey) -> Advice | None:
    """Tasks that start threads of their own, more in all than there are processors."""
    facts, summary = run.ledger.facts, run.summary
    if not facts.worker_cpu_seconds or not facts.alone:
        return None
    if facts.max_workers < 2 or facts.cpu_seconds < COMPUTES * summary.wall:
        return None
    inner = 1 - facts.worker_cpu_seconds / facts.cpu_seconds
    runnable = summary.parallelism * facts.cpu_seconds / facts.worker_cpu_seconds
    if inner < INNER or runnable < CROWD * facts.cpus:
        return None
    fewer = max(1, round(facts.max_workers * facts.cpus / runnable))
    return Advice(
        f"The tasks start threads of their own (BLAS, OpenMP) beside the {count(facts.max_workers, 'worker')}: these "
        f"used {percent(inner)} of the processor time, with about {number(runnable / facts.cpus, 2)} threads per "
        "processor.",
        "One thread per task is enough: put threadpoolctl.threadpool_limits(1) around the run, or set "
        f"OMP_NUM_THREADS=1; or use max_workers={fewer}.",
    )
