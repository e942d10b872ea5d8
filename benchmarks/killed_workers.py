"""What does it cost when one task in a hundred kills its worker, and what is lost?

2,000 tasks of about a millisecond, 20 of which end their process as the OOM killer would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, stopwatch
from benchmarks._tasks import count_or_die
from benchmarks._threads import OPTIONS
from benchmarks.past_timeout import succeeded

TASKS = 2_000
STEPS = 40_000  # about a millisecond


@contextmanager
def parallelkit() -> Iterator[Run]:
    from parallelkit import ProcessExecutor, run_parallel

    options = {**OPTIONS, "retries": 0}  # a task that kills its worker would do so again
    with ProcessExecutor(2) as executor:
        yield lambda items: run_parallel(count_or_die, items, executor=executor, **options).successes


@contextmanager
def submitting(name: str) -> Iterator[Run]:
    with pool_named(name) as pool:

        def run(items: Sequence[int]) -> list[Any]:
            results: list[Callable[[], Any]] = []
            for item in items:
                try:
                    results.append(pool.submit(count_or_die, item).result)
                except Exception:  # the pool is broken: this task and all that follow are lost
                    break
            return succeeded(results)

        yield run


def pool_named(name: str) -> Any:
    import concurrent.futures

    import loky

    return loky.ProcessPoolExecutor(2) if name == "loky" else concurrent.futures.ProcessPoolExecutor(2)


@contextmanager
def pebble() -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(2) as pool:
        yield lambda items: succeeded(
            [pool.schedule(count_or_die, (item,), timeout=60).result for item in items]
        )


@contextmanager
def mpire() -> Iterator[Run]:
    from mpire.pool import WorkerPool

    with WorkerPool(2, keep_alive=True) as pool:
        yield lambda items: succeeded([pool.apply_async(count_or_die, (item,)).get for item in items])


@contextmanager
def multiprocessing_pool() -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(2) as pool:
        yield lambda items: succeeded([pool.apply_async(count_or_die, (item,)).get for item in items])


@contextmanager
def joblib() -> Iterator[Run]:
    from joblib import Parallel, delayed

    with Parallel(2) as parallel:
        yield lambda items: parallel(delayed(count_or_die)(item) for item in items)


def until_all_are_back(run: Run, every: int | None) -> Figures:
    items = [-1 if every and number % every == 50 else STEPS for number in range(TASKS)]
    innocents = TASKS - items.count(-1)
    seconds, values = stopwatch(lambda: run(items))
    if len(values) != innocents:
        raise AssertionError(f"{innocents - len(values)} of {innocents} innocent tasks are lost")
    return {"s": seconds}


SYSTEMS: dict[str, Callable[[], Any]] = {
    OURS: parallelkit,
    "pebble ProcessPool": pebble,
    "ProcessPoolExecutor": partial(submitting, "standard"),
    "loky": partial(submitting, "loky"),
    "multiprocessing Pool": multiprocessing_pool,
    "joblib": joblib,
    "mpire": mpire,
}

QUESTION = Question(
    asks=__doc__ or "",
    systems=SYSTEMS,
    cases={"none dies": None, "one in 100 dies": 100},
    measure=until_all_are_back,
    unit="s",
    limit=20,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
