"""What does a task cost on a dask cluster, on our worker processes beside its workers, and by `client.map`?

A scheduler and two workers of one thread each, in processes of their own, on this machine. Of ours the time
includes the start of the worker processes, of dask's own that of nothing: its workers are threads that stand ready.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch

WORKERS = 2
CHUNKS = 20 * WORKERS
BYTES = 50_000_000


class Case(NamedTuple):
    """A function, its items, and the size of an array that all calls share."""

    fn: Callable[..., Any]
    items: Sequence[Any]
    shared: int = 0  # bytes of that array


def share_of(number: int, array: Any) -> float:
    return float(array[number::1000].sum())


def ours(client: Any, case: Case, shared: tuple[Any, ...]) -> list[Any]:
    from parallelkit import run_parallel

    return run_parallel(case.fn, case.items, executor=client, args=shared).values()


def mapped(client: Any, case: Case, shared: tuple[Any, ...]) -> list[Any]:
    kept = keep(client, shared, len(case.items))
    return list(client.gather(client.map(case.fn, case.items, *kept, pure=False)))


def mapped_in_chunks(client: Any, case: Case, shared: tuple[Any, ...]) -> list[Any]:
    size = -(-len(case.items) // CHUNKS)
    chunks = [case.items[start : start + size] for start in range(0, len(case.items), size)]
    kept = keep(client, shared, len(chunks))
    futures = client.map(partial(each, case.fn), chunks, *kept, pure=False)
    return [value for values in client.gather(futures) for value in values]


def keep(client: Any, shared: tuple[Any, ...], times: int) -> list[list[Any]]:
    """Send each shared object to every worker once; repeat its future per call, as `client.map` wants it."""
    return [[client.scatter(one, broadcast=True)] * times for one in shared]


def each(fn: Callable[..., Any], items: Sequence[Any], *shared: Any) -> list[Any]:
    return [fn(item, *shared) for item in items]


@contextmanager
def cluster(way: Callable[..., list[Any]]) -> Iterator[Run]:
    """``way`` of calling, on a client of a cluster of its own."""
    from distributed import Client

    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "scheduler.json"
        start(stack, file, "dask_scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        for _ in range(WORKERS):
            start(stack, file, "dask_worker", "--nthreads", "1", "--no-dashboard", "--no-nanny",
                  "--local-directory", str(file.parent))  # fmt: skip
        client = stack.enter_context(Client(scheduler_file=str(file), set_as_default=False))
        client.wait_for_workers(WORKERS, timeout=30)
        yield partial(way, client)


def start(stack: ExitStack, file: Path, module: str, *options: str) -> None:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
    process = subprocess.Popen([*command, "--scheduler-file", str(file), "--host", "127.0.0.1"])
    stack.callback(process.wait)
    stack.callback(process.kill)


CASES = {
    "2,000 calls of nothing": Case(abs, range(2000)),
    "20 naps of 0.2 s, ideal 100 ms": Case(time.sleep, [0.2] * 20),
    "100 calls on one array of 50 MB": Case(share_of, range(100), BYTES),
}


def cost_per_task(run: Run, case: Case) -> Figures:
    shared: tuple[Any, ...] = ()
    if case.shared:
        import numpy as np

        shared = (np.ones(case.shared // 8),)  # a new one each time, so that no worker has it yet
    seconds, values = stopwatch(lambda: run(case, shared))
    expect("results", len(case.items), len(values))
    expect("the last result", case.fn(case.items[-1], *shared), values[-1])
    return {"ms a task": seconds / len(values) * 1e3}


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        OURS: partial(cluster, ours),
        "client.map and gather": partial(cluster, mapped),
        "client.map and gather, chunked": partial(cluster, mapped_in_chunks),
    },
    cases=CASES,
    measure=cost_per_task,
    unit="ms a task",
    quick_rounds=2,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
