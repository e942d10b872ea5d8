"""What does a task cost in two processes if some of them raise, and all errors are wanted?

Rows are parsed, as when data is checked; some are bad. Futures keep the error of each, with its traceback as text.
Chunked pools give up all of a chunk at its first error, and ``map`` all that follows; so there, and in joblib, the task
itself catches its error and returns it, which loses the traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from benchmarks._processes import POOLS
from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import parse, parse_or_return_error
from benchmarks._threads import OPTIONS

TASKS = 5_000
CASES = {"1 in 100": 100, "1 in 10": 10, "all": 1}


@contextmanager
def parallelkit() -> Iterator[Run]:
    from parallelkit import ProcessExecutor, run_parallel

    options = {**OPTIONS, "retries": 0}  # a bad row stays bad
    with ProcessExecutor(2) as executor:

        def run(rows: list[str]) -> list[BaseException]:
            failures = run_parallel(parse, enumerate(rows), star=True, executor=executor, **options).failures
            return [failure.error for failure in failures.values()]

        yield run


@contextmanager
def submitting() -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:

        def run(rows: list[str]) -> list[BaseException]:
            futures = [pool.submit(parse, *row) for row in enumerate(rows)]
            return errors_in([future.exception() for future in futures])

        yield run


@contextmanager
def pebble() -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(2) as pool:

        def run(rows: list[str]) -> list[BaseException]:
            futures = [pool.schedule(parse, row, timeout=60) for row in enumerate(rows)]
            return errors_in([future.exception() for future in futures])

        yield run


@contextmanager
def returning(opened: Callable[[int], AbstractContextManager[Run]]) -> Iterator[Run]:
    with opened(2) as mapped:
        yield lambda rows: errors_in(mapped(parse_or_return_error, list(enumerate(rows))))


def errors_in(outcomes: list[Any]) -> list[BaseException]:
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


def cost_per_task(run: Run, every: int) -> Figures:
    rows = [f"{number} units" if number % every == 0 else str(number) for number in range(TASKS)]
    seconds, errors = stopwatch(lambda: run(rows))
    expect("errors", len(range(0, TASKS, every)), len(errors))
    expect("their type", {ValueError}, {type(error) for error in errors})
    return {"µs a task": seconds / TASKS * 1e6}


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        OURS: parallelkit,
        "ProcessPoolExecutor.submit": submitting,
        "pebble ProcessPool.schedule": pebble,
        **{
            f"{name}, errors returned": partial(returning, POOLS[name])
            for name in (
                "ProcessPoolExecutor.map",
                "ProcessPoolExecutor.map, chunked",
                "multiprocessing Pool.map",
                "joblib",
            )
        },
    },
    cases=CASES,
    measure=cost_per_task,
    unit="µs a task",
    rounds=7,
    quick_rounds=3,
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
