"""How much memory does a caller hold who has the outcomes of a million no-ops?

Values alone are a list of 8 MB; what is held beside them is what is known of each task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._memory import MB, resident
from benchmarks._question import OURS, Figures, Question, Run, expect
from benchmarks._tasks import nothing
from benchmarks._threads import OPTIONS, itself


@contextmanager
def parallelkit(executor: str, workers: int, **options: Any) -> Iterator[Run]:
    from parallelkit import run_parallel

    yield partial(run_parallel, nothing, executor=executor, max_workers=workers, **OPTIONS, **options)


@contextmanager
def values_only() -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(2) as pool:
        yield lambda items: pool.map(nothing, items)


@contextmanager
def futures_by_key() -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor, wait

    def run(items: range) -> dict[int, Any]:
        futures = {item: pool.submit(nothing, item) for item in items}
        wait(futures.values())
        return futures

    with ThreadPoolExecutor(8) as pool:
        yield run


def held(run: Run, tasks: int) -> Figures:
    expect("results of the warming run", 1_000, len(run(range(1_000))))
    before = resident()
    results = run(range(tasks))
    after = resident()
    expect("results", tasks, len(results))
    return {"MB held": (after - before) / MB}


SYSTEMS: dict[str, Callable[[], Any]] = {
    f"{OURS}, 8 threads": partial(parallelkit, "threads", 8, key=itself),
    f"{OURS}, keyed by position, 8 threads": partial(parallelkit, "threads", 8),
    f"{OURS}, 2 processes": partial(parallelkit, "processes", 2, key=itself),
    f"{OURS}, keyed by position, 2 processes": partial(parallelkit, "processes", 2),
    "futures by key, ThreadPoolExecutor": futures_by_key,
    "values only, multiprocessing Pool.map": values_only,
}

QUESTION = Question(
    asks=__doc__ or "",
    systems=SYSTEMS,
    cases={"a million tasks": 1_000_000},
    measure=held,
    unit="MB held",
    rounds=3,
    quick_rounds=1,
    fresh=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
