"""How close to the ideal is a run whose tasks are of very different lengths?

The ideal: two workers that cost nothing, each taking the next task in the order given whenever it is
free. Tasks keep a processor busy for the time that they are given: 2,000 of log-normal lengths (σ 1.8), 2 s
in all; one of 2 s before, amid or after 10,000 of 20 µs; 600 of 5 ms and 20 µs in turns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heapreplace

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import spin

WORKERS = 2


def ideal(lengths: Sequence[float]) -> float:
    """The seconds until the last of the WORKERS ideal workers is done."""
    free = [0.0] * WORKERS
    for length in lengths:
        heapreplace(free, free[0] + length)
    return max(free)


def log_normal() -> list[float]:
    """Lengths that add up to two seconds, most of it in a few tasks."""
    draw = random.Random(1)
    lengths = [draw.lognormvariate(0, 1.8) for _ in range(2_000)]
    return [length * 2 / sum(lengths) for length in lengths]


def one_long(position: int) -> list[float]:
    """One task of 2 s amid 10,000 of 20 µs."""
    lengths = [20e-6] * 10_000
    lengths.insert(position, 2.0)
    return lengths


CASES: dict[str, list[float]] = {
    "log-normal": log_normal(),
    "2 s first": one_long(0),
    "2 s amid": one_long(5_000),
    "2 s last": one_long(10_000),
    "in turns": [5e-3, 20e-6] * 300,
}


def makespan(run: Run, lengths: list[float]) -> Figures:
    seconds, values = stopwatch(lambda: run(spin, lengths))
    expect("results", len(lengths), len(values))
    return {"× the ideal": seconds / ideal(lengths), "s": seconds}


NAMES = [
    "parallelkit, keyed by position", "bare fork and split", "ProcessPoolExecutor.map",
    "ProcessPoolExecutor.map, chunked", "multiprocessing Pool.map", "multiprocessing Pool.imap", "joblib",
    "loky", "mpire", "pebble ProcessPool.map",
]  # fmt: skip
POOLS = process_pools(WORKERS)

QUESTION = Question(
    asks=__doc__ or "",
    systems={OURS if name.startswith(OURS) else name: POOLS[name] for name in NAMES},  # lengths repeat
    cases=CASES,
    measure=makespan,
    yardsticks=LIMITS,
    unit="× the ideal",
    limit=30,
    quick_rounds=2,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
