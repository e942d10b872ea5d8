"""How long after a task's timeout is everything back, when tasks hang in two workers?

Two workers, a timeout of half a second; one task hangs, or two, and ten short ones wait behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, stopwatch
from benchmarks._tasks import nap_or_hang

TIMEOUT = 0.5
SHORT = [0.001] * 10


@contextmanager
def parallelkit_processes() -> Iterator[Run]:
    from parallelkit import ProcessExecutor, run_parallel

    with ProcessExecutor(2) as pool:
        yield lambda items: run_parallel(nap_or_hang, items, executor=pool, timeout=TIMEOUT).successes


@contextmanager
def parallelkit_threads() -> Iterator[Run]:
    """Each run starts its own threads: those that hang are abandoned."""
    from parallelkit import run_parallel

    yield lambda items: run_parallel(nap_or_hang, items, max_workers=2, timeout=TIMEOUT).successes


@contextmanager
def pebble() -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(2) as pool:
        yield lambda items: succeeded(
            [pool.schedule(nap_or_hang, (item,), timeout=TIMEOUT).result for item in items]
        )


@contextmanager
def mpire() -> Iterator[Run]:
    from mpire.pool import WorkerPool

    with WorkerPool(2, keep_alive=True) as pool:
        yield lambda items: succeeded(
            [pool.apply_async(nap_or_hang, (item,), task_timeout=TIMEOUT).get for item in items]
        )


@contextmanager
def joblib() -> Iterator[Run]:
    from joblib import Parallel, delayed

    yield lambda items: Parallel(2, timeout=TIMEOUT)(delayed(nap_or_hang)(item) for item in items)


@contextmanager
def executor() -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:

        def run(items: Sequence[float | None]) -> list[Any]:
            futures = [pool.submit(nap_or_hang, item) for item in items]
            return succeeded([partial(future.result, TIMEOUT) for future in futures])

        yield run


def succeeded(results: Sequence[Callable[[], Any]]) -> list[Any]:
    """The values of the calls that return one."""
    values = []
    for result in results:
        try:
            values.append(result())
        except Exception:  # a task hung or died; the caller counts the values
            continue
    return values


def past_the_timeout(run: Run, hanging: int) -> Figures:
    run(SHORT)  # lets systems that start or replace workers lazily do so before the measurement
    seconds, values = stopwatch(lambda: run([None] * hanging + SHORT))
    if len(values) != len(SHORT):
        raise AssertionError(f"{len(SHORT) - len(values)} of {len(SHORT)} tasks that did not hang are lost")
    return {"ms past the timeout": (seconds - TIMEOUT) * 1e3}


SYSTEMS: dict[str, Callable[[], Any]] = {
    f"{OURS}, processes": parallelkit_processes,
    f"{OURS}, threads": parallelkit_threads,
    "pebble ProcessPool": pebble,
    "mpire": mpire,
    "joblib": joblib,
    "ProcessPoolExecutor.submit": executor,
}

QUESTION = Question(
    asks=__doc__ or "",
    systems=SYSTEMS,
    cases={"one of two workers hangs": 1, "both workers hang": 2},
    measure=past_the_timeout,
    unit="ms past the timeout",
    limit=10,
    log=True,
    rounds=9,
    quick_rounds=3,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
