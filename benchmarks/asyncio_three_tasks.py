"""Three independent tasks of two seconds each: what does it take to have all three results?

The example of the parallel-execution pattern itself, with ``asyncio.gather`` and without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._threads import OPTIONS

DOCUMENT = "a document"
FOUND = {"sentiment": "positive", "entities": ["AI", "technology"], "summary": "Article about AI advances"}


def finder(name: str) -> Callable[[str], Any]:
    def find(document: str) -> Any:
        time.sleep(2)
        return FOUND[name]

    return find


TASKS = {name: finder(name) for name in FOUND}


async def find(name: str, document: str) -> Any:
    await asyncio.sleep(2)
    return FOUND[name]


@contextmanager
def parallelkit() -> Iterator[Run]:
    from parallelkit import run_parallel

    yield lambda: run_parallel(TASKS, args=(DOCUMENT,), **OPTIONS).to_dict(default=None)


@contextmanager
def gather() -> Iterator[Run]:
    async def gathered() -> list[Any]:
        return await asyncio.gather(*(find(name, DOCUMENT) for name in FOUND))

    yield lambda: dict(zip(FOUND, asyncio.run(gathered()), strict=True))


@contextmanager
def to_thread() -> Iterator[Run]:
    async def gathered() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(task, DOCUMENT) for task in TASKS.values()))

    yield lambda: dict(zip(FOUND, asyncio.run(gathered()), strict=True))


@contextmanager
def one_by_one() -> Iterator[Run]:
    yield lambda: {name: task(DOCUMENT) for name, task in TASKS.items()}


def until_all_are_back(run: Run, case: None) -> Figures:
    seconds, found = stopwatch(run)
    expect("what was found", FOUND, found)
    return {"s": seconds, "ms beyond the longest task": (seconds - 2) * 1e3}


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        OURS: parallelkit,
        "asyncio.gather": gather,
        "asyncio.to_thread": to_thread,
        "one by one": one_by_one,
    },
    cases={"three tasks of 2 s": None},
    measure=until_all_are_back,
    unit="s",
    rounds=3,
    quick_rounds=1,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
