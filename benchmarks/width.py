"""How many workers can one caller keep busy: what does a task cost the caller's own processor?

The caller's processor seconds, divided by its tasks. What a task of a given length leaves of them is
the number of workers that one caller can feed; the table is computed from that.
"""

from __future__ import annotations

import time

from benchmarks._processes import process_pools
from benchmarks._question import Figures, Question, Run, expect
from benchmarks._tasks import count_numbered, numbered

NAMES = [
    "parallelkit", "parallelkit, keyed by position", "ProcessPoolExecutor.map", "multiprocessing Pool.imap",
    "joblib", "loky", "mpire", "pebble ProcessPool.map",
]  # fmt: skip
CASES = {"no-op": (20_000, 0), "50 µs": (10_000, 2_000), "1 ms": (1_000, 40_000), "10 ms": (100, 400_000)}
LENGTHS = {"50 µs": 50, "1 ms": 1_000, "10 ms": 10_000}  # in µs


def cost_to_the_caller(run: Run, work: tuple[int, int]) -> Figures:
    tasks, steps = work
    items = numbered(steps, tasks)
    busy = time.process_time()
    values = run(count_numbered, items)
    busy = time.process_time() - busy
    expect("results", tasks, len(values))
    return {"µs of the caller's processor, a task": busy / tasks * 1e6}


POOLS = process_pools(2)

QUESTION = Question(
    asks=__doc__ or "",
    systems={name: POOLS[name] for name in NAMES},
    cases=CASES,
    measure=cost_to_the_caller,
    unit="µs of the caller's processor, a task",
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
