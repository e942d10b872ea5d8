"""How long do naps of 100 ms take, a thousand of them at a time: threads against coroutines?

Cold: the threads are started for this run. Warm: they are there already. Modules are loaded in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch, unopened
from benchmarks._tasks import nap
from benchmarks._threads import OPTIONS, itself

NAP = 0.1
TURNS = 4  # naps per slot: the ideal run takes TURNS * NAP seconds


def nap_of(item: int) -> float:
    return nap(NAP)


@contextmanager
def parallelkit_warm(width: int) -> Iterator[Run]:
    from parallelkit import ThreadExecutor, run_parallel

    with ThreadExecutor(width) as executor:
        run_parallel(nap_of, range(width), executor=executor)
        yield lambda items: run_parallel(nap_of, items, key=itself, executor=executor, **OPTIONS)


@contextmanager
def parallelkit_cold(width: int) -> Iterator[Run]:
    from parallelkit import run_parallel

    run_parallel(nap_of, [], **OPTIONS)  # load what importing any other system here has loaded
    yield lambda items: run_parallel(nap_of, items, key=itself, max_workers=width, **OPTIONS)


@contextmanager
def executor_warm(width: int) -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(width) as pool:
        list(pool.map(nap_of, range(width)))
        yield lambda items: list(pool.map(nap_of, items))


@contextmanager
def executor_cold(width: int) -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    def run(items: range) -> list[float]:
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(nap_of, items))

    yield run


@contextmanager
def coroutines(width: int) -> Iterator[Run]:
    async def all_naps(items: range) -> list[None]:
        turnstile = asyncio.Semaphore(width)

        async def one() -> None:
            async with turnstile:
                await asyncio.sleep(NAP)

        return await asyncio.gather(*(one() for _ in items))

    yield lambda items: asyncio.run(all_naps(items))


Pool = Callable[[int], AbstractContextManager[Run]]
POOLS: dict[str, Pool] = {
    f"{OURS}, warm": parallelkit_warm,
    f"{OURS}, cold": parallelkit_cold,
    "ThreadPoolExecutor, warm": executor_warm,
    "ThreadPoolExecutor, cold": executor_cold,
    "asyncio": coroutines,
}


def until_all_are_back(pool: Pool, width: int) -> Figures:
    with pool(width) as run:
        busy = time.process_time()
        seconds, results = stopwatch(lambda: run(range(width * TURNS)))
        busy = time.process_time() - busy
    expect("results", width * TURNS, len(results))
    return {"s": seconds, "s of CPU": busy}


QUESTION = Question(
    asks=__doc__ or "",
    systems={name: partial(unopened, pool) for name, pool in POOLS.items()},
    cases={"800 naps, 200 at a time": 200, "4,000 naps, 1,000 at a time": 1_000},
    measure=until_all_are_back,
    unit="s",
    rounds=7,
    quick_rounds=3,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
