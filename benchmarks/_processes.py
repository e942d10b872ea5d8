"""Process pools as systems: ``run(fn, items)`` returns the values in order, computed in warm workers.

Each pool is used as its documentation shows. "Chunked" means chunks tuned by hand, twenty per worker:
the usual advice, and right only if all tasks take equally long. Ours always runs with what a user
would turn on: a timeout, retries and results by key. None of the others offers all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import OURS, Run, System
from benchmarks._threads import OPTIONS, for_loop, itself

SHARES = 20  # chunks per worker, if tuned by hand


def share(items: Sequence[Any], workers: int) -> int:
    """The size of a chunk tuned by hand."""
    return max(1, len(items) // (workers * SHARES))


@contextmanager
def parallelkit(workers: int, **options: Any) -> Iterator[Run]:
    from parallelkit import ProcessExecutor, run_parallel

    with ProcessExecutor(workers) as executor:
        yield lambda fn, items: run_parallel(fn, items, executor=executor, **OPTIONS, **options).values()


@contextmanager
def executor_map(workers: int, *, chunked: bool = False) -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items, chunksize=share(items, workers) if chunked else 1))


@contextmanager
def pool_map(workers: int) -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(workers) as pool:
        yield pool.map


@contextmanager
def pool_imap(workers: int) -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(workers) as pool:
        yield lambda fn, items: list(pool.imap(fn, items))


@contextmanager
def joblib(workers: int) -> Iterator[Run]:
    from joblib import Parallel, delayed

    with Parallel(workers) as parallel:
        yield lambda fn, items: parallel(delayed(fn)(item) for item in items)


@contextmanager
def joblib_chunked(workers: int) -> Iterator[Run]:
    from joblib import Parallel, delayed

    def run(fn: Callable[[Any], Any], items: Sequence[Any]) -> Any:
        return Parallel(workers, batch_size=share(items, workers))(delayed(fn)(item) for item in items)

    yield run


@contextmanager
def loky(workers: int, *, chunked: bool = False) -> Iterator[Run]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items, chunksize=share(items, workers) if chunked else 1))


@contextmanager
def mpire(workers: int) -> Iterator[Run]:
    from mpire.pool import WorkerPool

    with WorkerPool(workers, keep_alive=True) as pool:
        yield partial(pool.map, concatenate_numpy_output=False)


@contextmanager
def pebble(workers: int) -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items, timeout=60).result())


@contextmanager
def pebble_chunked(workers: int) -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(workers) as pool:
        yield lambda fn, items: list(pool.map(fn, items, chunksize=share(items, workers)).result())


@contextmanager
def tqdm(workers: int, *, chunked: bool = False) -> Iterator[Run]:
    from tqdm.contrib.concurrent import process_map

    def run(fn: Callable[[Any], Any], items: Sequence[Any]) -> Any:
        return process_map(fn, items, max_workers=workers, chunksize=share(items, workers) if chunked else 1)

    yield run


@contextmanager
def fork_and_split(workers: int) -> Iterator[Run]:
    import multiprocessing

    context = multiprocessing.get_context("fork")

    def run(fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        each = -(-len(items) // workers)
        ends, forks = [], []
        for first in range(0, len(items), each):
            end, other_end = context.Pipe(duplex=False)
            fork = context.Process(target=do_part, args=(fn, items[first : first + each], other_end))
            fork.start()
            ends.append(end)
            forks.append(fork)
        values = [value for end in ends for value in end.recv()]
        for fork in forks:
            fork.join()
        return values

    yield run


def do_part(fn: Callable[[Any], Any], items: Sequence[Any], end: Any) -> None:
    """In a fork: compute its whole part, and send the values back in one message."""
    end.send([fn(item) for item in items])


@contextmanager
def pipes(workers: int) -> Iterator[Run]:
    """Warm forks that each get one message per run and send one back: the least that a warm pool can do."""
    import multiprocessing
    from multiprocessing.connection import Connection, wait

    context = multiprocessing.get_context("fork")
    ours, forks = [], []
    for _ in range(workers):
        end, other_end = context.Pipe()
        fork = context.Process(target=do_parts, args=(other_end,))
        fork.start()
        other_end.close()
        ours.append(end)
        forks.append(fork)

    def run(fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        each = -(-len(items) // workers)
        for number, end in enumerate(ours):
            end.send((fn, items[number * each : (number + 1) * each]))
        parts: dict[Connection, list[Any]] = {}
        while len(parts) < workers:
            for end in wait([end for end in ours if end not in parts]):
                assert isinstance(end, Connection)
                parts[end] = end.recv()
        return [value for end in ours for value in parts[end]]

    yield run
    for end, fork in zip(ours, forks, strict=True):
        end.send(None)
        fork.join()


def do_parts(end: Any) -> None:
    """In a fork: serve parts until None comes."""
    while (part := end.recv()) is not None:
        do_part(*part, end)


POOLS: dict[str, Callable[..., Any]] = {
    OURS: partial(parallelkit, key=itself),
    "parallelkit, keyed by position": parallelkit,
    "for loop": for_loop,
    "bare fork and split": fork_and_split,
    "bare pipes": pipes,
    "ProcessPoolExecutor.map": executor_map,
    "ProcessPoolExecutor.map, chunked": partial(executor_map, chunked=True),
    "multiprocessing Pool.map": pool_map,
    "multiprocessing Pool.imap": pool_imap,
    "joblib": joblib,
    "joblib, chunked": joblib_chunked,
    "loky": loky,
    "loky, chunked": partial(loky, chunked=True),
    "mpire": mpire,
    "pebble ProcessPool.map": pebble,
    "pebble ProcessPool.map, chunked": pebble_chunked,
    "tqdm process_map": tqdm,
    "tqdm process_map, chunked": partial(tqdm, chunked=True),
}


def process_pools(workers: int) -> dict[str, System]:
    """All process pools, by name."""
    return {name: partial(pool, workers) for name, pool in POOLS.items()}
