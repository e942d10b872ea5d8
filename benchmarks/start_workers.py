"""How long until sixteen worker processes are at work, from none, and how long is a second, warm run?

Sixteen tasks nap for a second in a worker each; what a run takes beyond that is the start. The warm run
is of four tasks that do nothing, on workers that are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from benchmarks._at_work import nap_and_tell
from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch, unopened
from benchmarks._threads import OPTIONS

NAP = 1.0


@contextmanager
def parallelkit(workers: int) -> Iterator[Run]:
    from parallelkit import ProcessExecutor, run_parallel

    with ProcessExecutor(workers) as executor:
        yield lambda items: run_parallel(nap_and_tell, items, executor=executor, **OPTIONS).values()


@contextmanager
def executor(workers: int) -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield lambda items: list(pool.map(nap_and_tell, items))


@contextmanager
def multiprocessing_pool(workers: int) -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(workers) as pool:
        yield lambda items: pool.map(nap_and_tell, items, chunksize=1)


@contextmanager
def loky(workers: int) -> Iterator[Run]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield lambda items: list(pool.map(nap_and_tell, items))


@contextmanager
def joblib(workers: int) -> Iterator[Run]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    with Parallel(workers) as parallel:
        yield lambda items: parallel(delayed(nap_and_tell)(item) for item in items)
    get_reusable_executor().shutdown()  # otherwise the next measurement would find it warm


@contextmanager
def pebble(workers: int) -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(workers) as pool:
        yield lambda items: list(pool.map(nap_and_tell, items).result())


@contextmanager
def mpire(workers: int) -> Iterator[Run]:
    from mpire.pool import WorkerPool

    with WorkerPool(workers, keep_alive=True) as pool:
        yield partial(pool.map, nap_and_tell, chunk_size=1)


Pool = Callable[[int], AbstractContextManager[Run]]
POOLS: dict[str, Pool] = {
    OURS: parallelkit,
    "ProcessPoolExecutor, fork": executor,
    "multiprocessing Pool, fork": multiprocessing_pool,
    "loky": loky,
    "joblib": joblib,
    "pebble ProcessPool": pebble,
    "mpire": mpire,
}


def start_or_run(pool: Pool, measure: Callable[[Pool], float]) -> Figures:
    return {"ms": measure(pool) * 1e3}


def start_of_sixteen(pool: Pool) -> float:
    began = time.perf_counter()
    with pool(16) as run:
        pids: Sequence[Any] = run([NAP] * 16)
        seconds = time.perf_counter() - began - NAP
    expect("workers", 16, len(set(pids)))
    return seconds


def warm_run(pool: Pool) -> float:
    with pool(2) as run:
        run([0.0] * 4)
        run([0.0] * 4)
        seconds, pids = stopwatch(lambda: run([0.0] * 4))
    expect("results", 4, len(pids))
    return seconds


QUESTION = Question(
    asks=__doc__ or "",
    systems={name: partial(unopened, pool) for name, pool in POOLS.items()},
    cases={"start of 16 workers": start_of_sixteen, "a warm run of four": warm_run},
    measure=start_or_run,
    unit="ms",
    rounds=7,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
