"""``Advice``, and the estimates on which it rests."""

from __future__ import annotations

from dataclasses import dataclass

from parallelkit._report._summary import Survey
from parallelkit._told import PAUSES

THREADS = ("threads", "ThreadExecutor", "ThreadPoolExecutor")
PROCESSES = ("processes", "ProcessExecutor", "ProcessPoolExecutor")

LEAST_SAVED = 0.1  # seconds, and share of the run: less is not worth a change
AS_ONE = 1.3  # processors in use, up to which threads may have computed one at a time


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that held the run back; ``saves`` is about how many seconds of it the cure is worth."""

    cause: str
    cure: str
    saves: float = 0.0


def worthwhile(run: Survey, saved: float) -> bool:
    """Whether so many seconds are worth a change."""
    return saved >= LEAST_SAVED and saved >= LEAST_SAVED * run.summary.wall


def ideal(run: Survey) -> float:
    """The seconds that these attempts would take if nothing but their number, length and computing mattered."""
    facts, summary, compute = run.ledger.facts, run.summary, 0.0
    if facts.executor in THREADS:  # one at a time, unless more than one was seen to compute
        compute = compute_seconds(run) / (facts.cpus if compute_seconds(run) > AS_ONE * summary.wall else 1)
    return max(summary.longest, summary.busy / facts.max_workers, compute)


def of_the_run(run: Survey, work: float) -> float:
    """Seconds of the run that so many seconds of work took."""
    return work / run.summary.parallelism if run.summary.parallelism else 0.0


def fetches(run: Survey) -> bool:
    """Whether it is a run of ``http.fetch``, which takes no executor; only such a one has these pauses."""
    return PAUSES in run.ledger.facts.limits


def compute_seconds(run: Survey) -> float:
    """Processor time of the worker threads; where nobody measured it, with all that the tasks started."""
    facts = run.ledger.facts
    return facts.cpu_seconds if facts.worker_cpu_seconds is None else facts.worker_cpu_seconds


def interpreter_bound(run: Survey) -> bool:
    """Whether threads ran at the pace of one processor: each waits for the interpreter's lock."""
    facts, wall, compute = run.ledger.facts, run.summary.wall, compute_seconds(run)
    return (
        facts.executor in THREADS
        and run.summary.parallelism >= 1.5
        and 0.7 * wall <= compute <= AS_ONE * wall
        and compute >= 0.75 * facts.cpu_seconds  # else it is threads of the tasks' own that compute
    )
