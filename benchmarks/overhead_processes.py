"""What does a task cost in two processes, when it does nothing itself?"""

from __future__ import annotations

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, Question
from benchmarks._tasks import nothing, record, same
from benchmarks.overhead_threads import cost_per_task

QUESTION = Question(
    asks=__doc__ or "",
    systems=process_pools(2),
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
