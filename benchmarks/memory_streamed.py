"""How much does the peak of memory grow while a million results stream by, none of them kept?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._memory import MIB, forget_peak, peak, resident
from benchmarks._processes import SHARES
from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import nothing
from benchmarks._threads import OPTIONS, itself

CHUNK = 1_000_000 // (2 * SHARES)


@contextmanager
def parallelkit(executor: str, workers: int) -> Iterator[Run]:
    from parallelkit import iter_parallel

    yield partial(iter_parallel, nothing, executor=executor, max_workers=workers, key=itself, **OPTIONS)


@contextmanager
def thread_pool_executor() -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        yield lambda items: pool.map(nothing, items)


@contextmanager
def process_pool_executor() -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        yield lambda items: pool.map(nothing, items, chunksize=CHUNK)


@contextmanager
def imap() -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(2) as pool:
        yield lambda items: pool.imap(nothing, items, chunksize=500)


@contextmanager
def joblib() -> Iterator[Run]:
    from joblib import Parallel, delayed

    yield lambda items: Parallel(2, return_as="generator_unordered")(delayed(nothing)(item) for item in items)


def growth(run: Run, tasks: int) -> Figures:
    expect("results of the warming run", 1_000, count(run(iter(range(1_000)))))
    before = resident()
    forget_peak()
    seconds, streamed = stopwatch(lambda: count(run(iter(range(tasks)))))
    expect("results", tasks, streamed)
    return {"MiB of growth": max(0, peak() - before) / MIB, "µs a task": seconds / tasks * 1e6}


def count(results: Iterable[Any]) -> int:
    return sum(1 for _ in results)


SYSTEMS: dict[str, Callable[[], Any]] = {
    f"{OURS}, 8 threads": partial(parallelkit, "threads", 8),
    f"{OURS}, 2 processes": partial(parallelkit, "processes", 2),
    "ThreadPoolExecutor.map": thread_pool_executor,
    "ProcessPoolExecutor.map, chunked": process_pool_executor,
    "multiprocessing Pool.imap, chunked": imap,
    "joblib, generator_unordered": joblib,
}

QUESTION = Question(
    asks=__doc__ or "",
    systems=SYSTEMS,
    cases={"a million tasks": 1_000_000},
    measure=growth,
    unit="MiB of growth",
    rounds=3,
    quick_rounds=1,
    fresh=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
