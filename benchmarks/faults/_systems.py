"""How each system runs independent tasks and reports every outcome, in the best way that it offers.

Each function takes the work, the items and the timeout of a task, and adds each outcome to ``found`` as soon
as it has it, so that these are kept even if the call then fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[Any], Any]
Found: TypeAlias = dict[int, Any]


class Failed:
    """The error of one task."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def ours(executor: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    from parallelkit import run_parallel

    results = run_parallel(work, items, executor=executor, max_workers=2, timeout=timeout)
    for key, outcome in results.outcomes.items():
        found[key] = outcome.value if outcome.ok else Failed(outcome.error)


def gather(waits: Sequence[Callable[[], Any]], found: Found) -> None:
    """Wait for each result separately, so that one error costs no other result."""
    for key, wait in enumerate(waits):
        try:
            found[key] = wait()
        except Exception as error:
            found[key] = Failed(error)


def submitting(
    open_pool: Callable[[], Any], work: Work, items: Sequence[Any], timeout: float, found: Found
) -> None:
    """Use a standard executor: wait for each future with a timeout."""
    with open_pool() as pool:
        waits = [partial(submitted(pool, work, item).result, timeout) for item in items]
        gather(waits, found)


def submitted(pool: Any, work: Work, item: Any) -> Any:
    """The item's future; if the pool refuses it, a future with that error."""
    from concurrent.futures import Future

    try:
        return pool.submit(work, item)
    except Exception as error:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def standard(kind: str) -> Any:
    from concurrent import futures

    return futures.ProcessPoolExecutor(2) if kind == "processes" else futures.ThreadPoolExecutor(2)


def loky_pool() -> Any:
    import loky

    return loky.ProcessPoolExecutor(2)


def multiprocessing_pool(kind: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    from multiprocessing import Pool
    from multiprocessing.pool import ThreadPool

    with (Pool if kind == "processes" else ThreadPool)(2) as pool:
        gather([partial(pool.apply_async(work, (item,)).get, timeout) for item in items], found)


def joblib(backend: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    from joblib import Parallel, delayed

    parallel = Parallel(2, backend=backend, timeout=timeout, return_as="generator")
    for key, value in enumerate(parallel(delayed(work)(item) for item in items)):
        found[key] = value


def mpire(start_method: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    from mpire.pool import WorkerPool

    with WorkerPool(2, start_method=start_method) as pool:
        gather([pool.apply_async(work, (item,), task_timeout=timeout).get for item in items], found)


def pebble(kind: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    import pebble

    if kind == "threads":
        with pebble.ThreadPool(2) as threads:
            gather([partial(threads.schedule(work, (item,)).result, timeout) for item in items], found)
        return
    with pebble.ProcessPool(2) as pool:
        gather([pool.schedule(work, (item,), timeout=timeout).result for item in items], found)


def tqdm(kind: str, work: Work, items: Sequence[Any], timeout: float, found: Found) -> None:
    from tqdm.contrib import concurrent

    run = concurrent.process_map if kind == "processes" else concurrent.thread_map
    found.update(enumerate(run(work, items, max_workers=2, chunksize=1, disable=True)))


PROCESSES: dict[str, Callable[..., None]] = {
    "parallelkit": partial(ours, "processes"),
    "concurrent.futures": partial(submitting, partial(standard, "processes")),
    "multiprocessing": partial(multiprocessing_pool, "processes"),
    "joblib": partial(joblib, "loky"),
    "loky": partial(submitting, loky_pool),
    "mpire": partial(mpire, "fork"),
    "pebble": partial(pebble, "processes"),
    "tqdm": partial(tqdm, "processes"),
}
THREADS: dict[str, Callable[..., None]] = {
    "parallelkit": partial(ours, "threads"),
    "concurrent.futures": partial(submitting, partial(standard, "threads")),
    "multiprocessing": partial(multiprocessing_pool, "threads"),
    "joblib": partial(joblib, "threading"),
    "mpire": partial(mpire, "threading"),
    "pebble": partial(pebble, "threads"),
    "tqdm": partial(tqdm, "threads"),
}
