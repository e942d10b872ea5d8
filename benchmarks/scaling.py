"""Does a task cost the same in a run of a thousand and in a run of a million?

The second figure leaves out what a run of a single task costs: so much is spent once for each run.
"""

from __future__ import annotations

import statistics

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, OURS, Figures, Question, Run, System, expect, stopwatch
from benchmarks._tasks import nothing
from benchmarks._threads import thread_pools

POSITIONS = f"{OURS}, keyed by position"
IN_THREADS = [OURS, POSITIONS, "ThreadPoolExecutor.map", "joblib threading"]
IN_PROCESSES = [
    OURS, POSITIONS, "bare pipes", "ProcessPoolExecutor.map", "ProcessPoolExecutor.map, chunked", "joblib",
    "pebble ProcessPool.map",
]  # fmt: skip


def systems() -> dict[str, System]:
    threads, processes = thread_pools(8), process_pools(2)
    return {
        **{f"{name}, 8 threads" if name.startswith(OURS) else name: threads[name] for name in IN_THREADS},
        **{
            f"{name}, 2 processes" if name.startswith(OURS) else name: processes[name]
            for name in IN_PROCESSES
        },
    }


def cost_per_task(run: Run, tasks: int) -> Figures:
    """Repeat short runs and take their median: the system's scheduling makes a single one too noisy."""
    took: dict[int, list[float]] = {tasks: [], 1: []}
    for _ in range(max(1, 20_000 // tasks)):
        for size, times in took.items():
            seconds, values = stopwatch(lambda: run(nothing, range(size)))  # noqa: B023  # called at once
            expect("results", size, len(values))
            times.append(seconds)
    whole, one = (statistics.median(times) * 1e6 for times in took.values())
    return {"µs a task": whole / tasks, "µs a task after the first": (whole - one) / (tasks - 1)}


QUESTION = Question(
    asks=__doc__ or "",
    systems=systems(),
    cases={f"{tasks:,}": tasks for tasks in (1_000, 10_000, 100_000, 1_000_000)},
    measure=cost_per_task,
    yardsticks=LIMITS,
    unit="µs a task",
    limit=45,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
