"""What does it cost to record every result, so that the run can be resumed?

Tasks of 1 ms: naps in eight threads, work in two processes. Beside it joblib, which keeps each result of a
function in a file (``Memory``), and our own run that finds everything recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import count_numbered, nap, numbered
from benchmarks._threads import OPTIONS, itself

ONE_MILLISECOND = 40_000  # steps of count_to


def nap_numbered(item: int) -> float:
    return nap(0.001)


NAPS = ("threads", 8, nap_numbered, range(8_000))
WORK = ("processes", 2, count_numbered, numbered(ONE_MILLISECOND, 1_500))


def ours(executor: str, workers: int, fn: Callable[[int], Any], items: Any, **more: Any) -> list[Any]:
    from parallelkit import run_parallel

    return run_parallel(
        fn, items, key=itself, executor=executor, max_workers=workers, **OPTIONS, **more
    ).values()


@contextmanager
def without() -> Iterator[Run]:
    yield ours


@contextmanager
def recorded() -> Iterator[Run]:
    with TemporaryDirectory() as folder:
        numbers = itertools.count()
        yield lambda *work: ours(*work, checkpoint=Path(folder, f"{next(numbers)}.journal"))


@contextmanager
def resumed() -> Iterator[Run]:
    with TemporaryDirectory() as folder:
        journals = {work[0]: Path(folder, work[0]) for work in (NAPS, WORK)}
        for work in (NAPS, WORK):
            ours(*work, checkpoint=journals[work[0]])
        yield lambda *work: ours(*work, checkpoint=journals[work[0]])


@contextmanager
def joblib_memory() -> Iterator[Run]:
    from joblib import Memory, Parallel, delayed

    with TemporaryDirectory() as folder:

        def run(executor: str, workers: int, fn: Callable[[int], Any], items: Any) -> list[Any]:
            memory = Memory(folder, verbose=0)
            memory.clear(warn=False)
            backend = "threading" if executor == "threads" else "loky"
            cached = memory.cache(fn)
            return list(Parallel(workers, backend=backend)(delayed(cached)(item) for item in items))

        yield run


def cost_per_task(run: Run, work: tuple[str, int, Callable[[int], Any], Any]) -> Figures:
    seconds, values = stopwatch(partial(run, *work))
    expect("results", len(work[3]), len(values))
    return {"µs a task": seconds / len(work[3]) * 1e6}


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        f"{OURS}, nothing recorded": without,
        f"{OURS}, with a checkpoint": recorded,
        f"{OURS}, resumed": resumed,
        "joblib, Memory": joblib_memory,
    },
    cases={"8,000 naps of 1 ms in 8 threads": NAPS, "1,500 of 1 ms in 2 processes": WORK},
    measure=cost_per_task,
    unit="µs a task",
    rounds=5,
    quick_rounds=3,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
