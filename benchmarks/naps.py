"""How long do naps of 100 ms take, a thousand of them at a time: threads against coroutines?

Cold: the threads are started for this run. Warm: they are there already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch
from benchmarks._tasks import nap
from benchmarks._threads import OPTIONS, itself

NAP = 0.1
TURNS = 4  # naps for each that naps at a time; the ideal is as many times 0.1 s


@contextmanager
def warm() -> Iterator[Run]:
    from parallelkit import ThreadExecutor, run_parallel

    with ThreadExecutor(1_000) as executor:
        run_parallel(nap, [NAP] * 1_000, executor=executor)
        yield lambda width: run_parallel(
            nap_of, range(width * TURNS), key=itself, executor=executor, **OPTIONS
        )


@contextmanager
def cold() -> Iterator[Run]:
    from parallelkit import run_parallel

    yield lambda width: run_parallel(nap_of, range(width * TURNS), key=itself, max_workers=width, **OPTIONS)


def nap_of(item: int) -> float:
    return nap(NAP)


@contextmanager
def executor_warm() -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1_000) as pool:
        list(pool.map(nap_of, range(1_000)))
        yield lambda width: list(pool.map(nap_of, range(width * TURNS)))


@contextmanager
def executor_cold() -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    def run(width: int) -> list[float]:
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(nap_of, range(width * TURNS)))

    yield run


@contextmanager
def coroutines() -> Iterator[Run]:
    async def all_naps(width: int) -> list[None]:
        turnstile = asyncio.Semaphore(width)

        async def one() -> None:
            async with turnstile:
                await asyncio.sleep(NAP)

        return await asyncio.gather(*(one() for _ in range(width * TURNS)))

    yield lambda width: asyncio.run(all_naps(width))


def until_all_are_back(run: Run, width: int) -> Figures:
    busy = time.process_time()
    seconds, results = stopwatch(lambda: run(width))
    expect("results", width * TURNS, len(results))
    return {"s": seconds, "s of CPU": time.process_time() - busy}


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        f"{OURS}, warm": warm,
        f"{OURS}, cold": cold,
        "ThreadPoolExecutor, warm": executor_warm,
        "ThreadPoolExecutor, cold": executor_cold,
        "asyncio": coroutines,
    },
    cases={"800 naps, 200 at a time": 200, "4,000 naps, 1,000 at a time": 1_000},
    measure=until_all_are_back,
    unit="s",
    rounds=7,
    quick_rounds=3,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
