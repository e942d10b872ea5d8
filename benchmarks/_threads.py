"""Thread pools as systems: ``run(fn, items)`` returns the values in order, computed in warm threads.

Each pool is used as its documentation shows. Ours always runs with what a user would turn on: a timeout,
retries and results by key. None of the others offers all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import OURS, Run, System

OPTIONS: dict[str, Any] = {"timeout": 60, "retries": 2}


def itself(item: Any) -> Any:
    """The key function that makes each item its own key."""
    return item


@contextmanager
def parallelkit(workers: int, **options: Any) -> Iterator[Run]:
    from parallelkit import ThreadExecutor, run_parallel

    with ThreadExecutor(workers) as executor:
        yield lambda fn, items: run_parallel(fn, items, executor=executor, **OPTIONS, **options).values()


@contextmanager
def for_loop(workers: int) -> Iterator[Run]:
    yield lambda fn, items: [fn(item) for item in items]


@contextmanager
def executor_map(workers: int) -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items))


@contextmanager
def executor_submit(workers: int) -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:

        def run(fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
            futures = {item: pool.submit(fn, item) for item in items}
            return list({item: future.result(60) for item, future in futures.items()}.values())

        yield run


@contextmanager
def thread_pool(workers: int) -> Iterator[Run]:
    from multiprocessing.pool import ThreadPool

    with ThreadPool(workers) as pool:
        yield pool.map


@contextmanager
def joblib(workers: int) -> Iterator[Run]:
    from joblib import Parallel, delayed

    with Parallel(workers, backend="threading") as parallel:
        yield lambda fn, items: parallel(delayed(fn)(item) for item in items)


@contextmanager
def mpire(workers: int) -> Iterator[Run]:
    from mpire.pool import WorkerPool

    with WorkerPool(workers, start_method="threading", keep_alive=True) as pool:
        yield partial(pool.map, concatenate_numpy_output=False)


@contextmanager
def pebble(workers: int) -> Iterator[Run]:
    from pebble import ThreadPool

    with ThreadPool(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items).result())


@contextmanager
def tqdm(workers: int) -> Iterator[Run]:
    from tqdm.contrib.concurrent import thread_map

    yield lambda fn, items: thread_map(fn, items, max_workers=workers)


POOLS: dict[str, Callable[..., Any]] = {
    OURS: partial(parallelkit, key=itself),
    "parallelkit, keyed by position": parallelkit,
    "for loop": for_loop,
    "ThreadPoolExecutor.map": executor_map,
    "ThreadPoolExecutor.submit, by key": executor_submit,
    "multiprocessing ThreadPool.map": thread_pool,
    "joblib threading": joblib,
    "mpire threading": mpire,
    "pebble ThreadPool.map": pebble,
    "tqdm thread_map": tqdm,
}


def thread_pools(workers: int) -> dict[str, System]:
    """All thread pools, by name."""
    return {name: partial(pool, workers) for name, pool in POOLS.items()}
