"""What does a task cost in eight threads, when it does nothing itself?"""

from __future__ import annotations

from benchmarks._question import LIMITS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import nothing, record, same
from benchmarks._threads import thread_pools

TASKS = 20_000


def cost_per_task(run: Run, fn: object) -> Figures:
    seconds, values = stopwatch(lambda: run(fn, range(TASKS)))
    expect("results", TASKS, len(values))
    expect("the last result", fn(TASKS - 1), values[-1])  # type: ignore[operator]
    return {"µs a task": seconds / TASKS * 1e6}


QUESTION = Question(
    asks=__doc__ or "",
    systems=thread_pools(8),
    cases={"None": nothing, "ints": same, "small dicts": record},
    measure=cost_per_task,
    yardsticks=LIMITS,
    unit="µs a task",
    rounds=7,
    quick_rounds=5,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
