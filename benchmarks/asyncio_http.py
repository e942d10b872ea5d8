"""400 GETs of a local server that answers after 20 ms: threads with requests against coroutines?

Each run begins without threads, sessions or connections, and is as wide as the case says.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, expect
from benchmarks._server import BODY, server
from benchmarks._threads import OPTIONS, itself

GETS = 400


def timed(get: Callable[[], int]) -> float:
    """Seconds that one GET took; the length of its body is checked."""
    began = time.perf_counter()
    expect("bytes", len(BODY), get())
    return time.perf_counter() - began


class Sessions(threading.local):
    """One session per thread: requests does not promise that threads may share one."""

    def __init__(self) -> None:
        import requests

        self.session = requests.Session()


def with_requests(url: str) -> Callable[[int], float]:
    """A timed GET with requests, over the thread's own session."""
    sessions = Sessions()

    def get(number: int) -> float:
        return timed(lambda: len(sessions.session.get(url, timeout=10).content))

    return get


@contextmanager
def parallelkit_requests() -> Iterator[Run]:
    from parallelkit import run_parallel

    with server() as url:
        yield lambda width: run_parallel(
            with_requests(url), range(GETS), max_workers=width, key=itself, **OPTIONS
        ).values()


@contextmanager
def parallelkit_bare_requests() -> Iterator[Run]:
    import requests

    from parallelkit import run_parallel

    with server() as url:

        def get(number: int) -> float:
            return timed(lambda: len(requests.get(url, timeout=10).content))

        yield lambda width: run_parallel(get, range(GETS), max_workers=width, key=itself, **OPTIONS).values()


@contextmanager
def parallelkit_httpx() -> Iterator[Run]:
    import httpx

    from parallelkit import run_parallel

    with server() as url:

        def run(width: int) -> list[float]:
            limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
            with httpx.Client(limits=limits, timeout=10) as client:

                def get(number: int) -> float:
                    return timed(lambda: len(client.get(url).content))

                return run_parallel(get, range(GETS), max_workers=width, key=itself, **OPTIONS).values()

        yield run


@contextmanager
def executor_requests() -> Iterator[Run]:
    from concurrent.futures import ThreadPoolExecutor

    with server() as url:

        def run(width: int) -> list[float]:
            with ThreadPoolExecutor(width) as pool:
                return list(pool.map(with_requests(url), range(GETS)))

        yield run


async def gathered(width: int, get: Callable[[], Any]) -> list[float]:
    """The latencies of all GETs made with a coroutine function, ``width`` at a time."""
    turnstile = asyncio.Semaphore(width)

    async def one() -> float:
        async with turnstile:
            began = time.perf_counter()
            expect("bytes", len(BODY), await get())
            return time.perf_counter() - began

    return await asyncio.gather(*(one() for _ in range(GETS)))


@contextmanager
def aiohttp() -> Iterator[Run]:
    from aiohttp import ClientSession, ClientTimeout, TCPConnector

    async def run(url: str, width: int) -> list[float]:
        connector, timeout = TCPConnector(limit=width), ClientTimeout(total=10)
        async with ClientSession(connector=connector, timeout=timeout) as session:

            async def get() -> int:
                async with session.get(url) as response:
                    return len(await response.read())

            return await gathered(width, get)

    with server() as url:
        yield lambda width: asyncio.run(run(url, width))


@contextmanager
def httpx_async() -> Iterator[Run]:
    import httpx

    async def run(url: str, width: int) -> list[float]:
        limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
        async with httpx.AsyncClient(limits=limits, timeout=10) as client:

            async def get() -> int:
                return len((await client.get(url)).content)

            return await gathered(width, get)

    with server() as url:
        yield lambda width: asyncio.run(run(url, width))


def all_gets(run: Run, width: int) -> Figures:
    busy, began = time.process_time(), time.perf_counter()
    latencies = run(width)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    expect("answers", GETS, len(latencies))
    return {
        "ms for all": seconds * 1e3,
        "GETs a second": GETS / seconds,
        "ms at the median": statistics.median(latencies) * 1e3,
        "ms at the 99th percentile": statistics.quantiles(latencies, n=100)[98] * 1e3,
        "ms of CPU": busy * 1e3,
    }


QUESTION = Question(
    asks=__doc__ or "",
    systems={
        f"{OURS} + requests": parallelkit_requests,
        f"{OURS} + requests without a session": parallelkit_bare_requests,
        f"{OURS} + httpx": parallelkit_httpx,
        "ThreadPoolExecutor + requests": executor_requests,
        "asyncio + aiohttp": aiohttp,
        "asyncio + httpx": httpx_async,
    },
    cases={"1": 1, "8": 8, "64": 64, "256": 256},
    measure=all_gets,
    unit="ms for all",
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
