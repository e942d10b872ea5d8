"""What does it cost to send arrays of 8 MB to two processes, and to get them back?

40 arrays, made anew for every run: none of them has been sent before.
"""

from __future__ import annotations

from typing import Any

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, OURS, Figures, Question, Run, expect, stopwatch

ARRAYS = 40
NUMBERS = 1_000_000  # eight bytes each


def total(array: Any) -> float:
    return float(array.sum())


def double(array: Any) -> Any:
    return array * 2


def make(number: float) -> Any:
    import numpy as np

    return np.full(NUMBERS, float(number))


CASES = {"in": (total, True), "in and out": (double, True), "out": (make, False)}


def cost_per_array(run: Run, work: tuple[Any, bool]) -> Figures:
    fn, sends = work
    items = [make(number) if sends else number for number in range(ARRAYS)]
    last = fn(items[-1])
    seconds, values = stopwatch(lambda: run(fn, items))
    expect("results", ARRAYS, len(values))
    expect(
        "the last result",
        total(last) if fn is not total else last,
        total(values[-1]) if fn is not total else values[-1],
    )
    return {"ms an array": seconds / ARRAYS * 1e3}


NAMES = [
    "parallelkit, keyed by position", "for loop", "ProcessPoolExecutor.map", "multiprocessing Pool.map",
    "joblib", "loky", "mpire", "pebble ProcessPool.map",
]  # fmt: skip
POOLS = process_pools(2)

QUESTION = Question(
    asks=__doc__ or "",
    systems={OURS if name.startswith(OURS) else name: POOLS[name] for name in NAMES},  # arrays cannot be keys
    cases=CASES,
    measure=cost_per_array,
    yardsticks=LIMITS,
    unit="ms an array",
    quick_rounds=2,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
