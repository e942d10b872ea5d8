"""How long does it take to count the tokens of Python's own library, a file a task?

Real work of real lengths: most files take a millisecond or two, a few take a hundred times as long.
"""

from __future__ import annotations

from benchmarks._processes import process_pools
from benchmarks._question import LIMITS, Figures, Question, Run, expect, stopwatch
from benchmarks._stdlib import files
from benchmarks._tasks import count_tokens


def until_all_are_counted(run: Run, paths: list[str]) -> Figures:
    seconds, counts = stopwatch(lambda: run(count_tokens, paths))
    expect("results", len(paths), len(counts))
    expect("tokens of the first file", count_tokens(paths[0]), counts[0])
    return {"s": seconds}


POOLS = process_pools(2)

QUESTION = Question(
    asks=__doc__ or "",
    systems={name: pool for name, pool in POOLS.items() if name != "parallelkit, keyed by position"},
    cases={"one file in eight": files(8), "every file": files(1)},
    measure=until_all_are_counted,
    yardsticks=LIMITS,
    unit="s",
    rounds=3,
    quick_rounds=2,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
