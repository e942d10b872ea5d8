"""``Advice``, and the estimates that it is based on."""

from __future__ import annotations

from dataclasses import dataclass

from parallelkit._died import WorkerDied
from parallelkit._errors import TaskTimeout
from parallelkit._lost import is_a
from parallelkit._report._summary import Survey, failed_attempts
from parallelkit._scheduling._retry_after import PAUSES

THREADS = ("threads", "ThreadExecutor", "ThreadPoolExecutor")
PROCESSES = ("processes", "ProcessExecutor", "ProcessPoolExecutor")

LEAST_SAVED = 0.1  # seconds, and share of the run, that advice must save to be given
AS_ONE = 1.3  # processors in use up to which threads count as computing one at a time


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that held the run back, and its cure, which would save about ``saves`` seconds of the run."""

    cause: str
    cure: str
    saves: float = 0.0


def worthwhile(run: Survey, saved: float) -> bool:
    """Whether saving so many seconds is worth a change."""
    return saved >= LEAST_SAVED and saved >= LEAST_SAVED * run.summary.wall


def survives_a_loop(run: Survey) -> bool:
    """Whether a plain loop could run the tasks: none of them has killed its process, or run past its timeout."""
    errors = [lost.error for lost in failed_attempts(run.ledger)]
    return not any(is_a(error, WorkerDied) or is_a(error, TaskTimeout) for error in errors)


def ideal(run: Survey) -> float:
    """The seconds that these attempts would take if only their number, durations and processor time mattered."""
    facts, summary, compute = run.ledger.facts, run.summary, 0.0
    if facts.executor in THREADS:
        compute = compute_seconds(run)
        if not facts.one_at_a_time or compute > AS_ONE * summary.wall:  # more processors were seen in use
            compute /= facts.cpus
    return max(summary.longest, summary.busy / facts.max_workers, compute)


def of_the_run(run: Survey, work: float) -> float:
    """The seconds of the run that so many seconds of work took, at its parallelism."""
    return work / run.summary.parallelism if run.summary.parallelism else 0.0


def fetches(run: Survey) -> bool:
    """Whether it is a run of ``http.fetch``, which takes no executor: only that has a limit for pauses alone."""
    return PAUSES in run.ledger.facts.limits


def compute_seconds(run: Survey) -> float:
    """Processor time of the worker threads; if it was not measured, including threads that tasks started."""
    facts = run.ledger.facts
    return facts.cpu_seconds if facts.worker_cpu_seconds is None else facts.worker_cpu_seconds


def interpreter_bound(run: Survey) -> bool:
    """Whether threads together used about one processor, because each waits for the interpreter lock (GIL)."""
    facts, wall, compute = run.ledger.facts, run.summary.wall, compute_seconds(run)
    return (
        facts.executor in THREADS
        and (facts.one_at_a_time or facts.coroutines)
        and run.summary.parallelism >= 1.5
        and 0.7 * wall <= compute <= AS_ONE * wall
        and compute >= 0.75 * facts.cpu_seconds  # else threads that tasks started compute
    )
