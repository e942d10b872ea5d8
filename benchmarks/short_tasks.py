"""What do tasks of about 50 µs and 1 ms cost in two processes: does sharing them out pay?

The tasks compute; two processes that cost nothing would take half the time of the for loop.
"""

from __future__ import annotations

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import count_numbered, count_to, numbered

FIFTY_MICROSECONDS = 2_000  # steps of count_to
ONE_MILLISECOND = 40_000


def cost_per_task(run: Run, work: tuple[int, int]) -> Figures:
    tasks, steps = work
    items = numbered(steps, tasks)
    seconds, values = stopwatch(lambda: run(count_numbered, items))
    expect("results", tasks, len(values))
    expect("the first result", count_to(steps), values[0])
    return {"µs a task": seconds / tasks * 1e6}


POOLS = process_pools(2)

QUESTION = Question(
    asks=__doc__ or "",
    systems={name: pool for name, pool in POOLS.items() if name != "parallelkit, keyed by position"},
    cases={"5,000 of 50 µs": (5_000, FIFTY_MICROSECONDS), "500 of 1 ms": (500, ONE_MILLISECOND)},
    measure=cost_per_task,
    yardsticks=LIMITS,
    unit="µs a task",
    rounds=7,
    quick_rounds=3,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
