"""The engines on which the executor contract is tested, each with its own kinds of tasks.

A task is a ``Call``, the item of a job that has no function, so that one test serves threads,
processes, pools of the standard library and the fake alike.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from select import select
from typing import Any

import remote_tasks as far
from fakes import Die, Done, Fail, FakeClock, FakeExecutor
from patience import PATIENCE

from parallelkit._executors._contract import Block, Call, Ended, Engine, Job, Port
from parallelkit._executors._coroutines import CoroutineEngine
from parallelkit._executors._foreign import ForeignEngine
from parallelkit._executors._inline import InlineEngine
from parallelkit._executors._processes import ProcessEngine
from parallelkit._executors._threads import ThreadEngine


class Ground:
    """An engine with two slots and the tasks for its tests, in real time. Close it when every task may end."""

    parallel = True  # runs more than one attempt at a time
    enforces = True  # kills or abandons an attempt at its timeout
    kills = False  # workers are processes, which can be killed

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = self.make_engine()
        self._holds: list[Hold] = []

    def make_engine(self) -> Engine:
        raise NotImplementedError

    def now(self) -> float:
        return time.monotonic()

    def open(self, **job: Any) -> Port:
        return self.engine.open(Job(None, **job))

    def close(self) -> None:
        self.engine.close()
        for hold in self._holds:
            hold.close()

    # Tasks

    def give(self, value: Any) -> Call:
        return far.give_back, (value,), {}

    def fail(self, error: BaseException) -> Call:
        return far.fail, (error,), {}

    def die(self, code: int) -> Call:
        return far.leave, (code,), {}

    def hold(self) -> Hold:
        hold = Hold(self.folder / str(len(self._holds)))
        self._holds.append(hold)
        return hold


class Hold:
    """A task that, once begun, ends when it is told to, at the latest when the ``with`` block ends."""

    def __init__(self, path: Path) -> None:
        paths = [f"{path}_begun", f"{path}_go"]
        for fifo in paths:
            os.mkfifo(fifo)
        # Open for reading and writing, so that neither side blocks if the other has not come yet, or has died.
        self._begun, self._go = (os.open(fifo, os.O_RDWR) for fifo in paths)
        self.call: Call = (far.hold, tuple(paths), {})

    def wait_until_begun(self) -> None:
        assert select([self._begun], [], [], PATIENCE)[0], "the task did not begin"
        os.read(self._begun, 100)

    def let_go(self) -> None:
        os.write(self._go, b".")

    def close(self) -> None:
        os.close(self._begun)
        os.close(self._go)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()


class Threads(Ground):
    def make_engine(self) -> Engine:
        return ThreadEngine(2)


class ThreadsBesideALoop(Ground):
    """Plain functions in a run that may also have coroutine functions."""

    def make_engine(self) -> Engine:
        return CoroutineEngine(2)


class Coroutines(ThreadsBesideALoop):
    def give(self, value: Any) -> Call:
        return give_back_later, (value,), {}

    def fail(self, error: BaseException) -> Call:
        return fail_later, (error,), {}

    def hold(self) -> Hold:
        hold = super().hold()
        hold.call = (hold_on, hold.call[1], {})
        return hold


async def give_back_later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def hold_on(begun: str, go: str) -> None:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    pipe = os.open(go, os.O_RDWR)
    loop.add_reader(pipe, told.set)
    try:
        far.tell(begun)
        await told.wait()
        os.read(pipe, 1)
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


class Processes(Ground):
    kills = True

    def make_engine(self) -> Engine:
        return ProcessEngine(2)


class Inline(Ground):
    parallel = enforces = False

    def make_engine(self) -> Engine:
        return InlineEngine()


class Foreign(Ground):
    """A pool of the standard library."""

    def make_engine(self) -> Engine:
        self._pool = self.make_pool()
        return ForeignEngine(self._pool, None)

    def make_pool(self) -> Executor:
        raise NotImplementedError

    def close(self) -> None:
        self._pool.shutdown()
        super().close()


class ThreadPool(Foreign):
    def make_pool(self) -> Executor:
        return ThreadPoolExecutor(2)


class OwnProcessPool(Foreign):
    def make_pool(self) -> Executor:
        return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


class ProcessPool(OwnProcessPool):
    """One pool for all tests, because starting it takes long."""

    shared: Executor | None = None

    def make_pool(self) -> Executor:
        assert self.shared is not None, "see shared_pool"
        return self.shared

    def close(self) -> None:
        Ground.close(self)


@contextmanager
def shared_pool() -> Iterator[None]:
    """Open the pool of ``ProcessPool`` for this block, and start both its workers."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as ProcessPool.shared:
        for future in [ProcessPool.shared.submit(abs, 1) for _ in range(2)]:
            future.result()
        yield


class Fake(Ground):
    """The fake executor, in simulated time: ``wait`` moves the clock."""

    kills = True

    def make_engine(self) -> Engine:
        self.clock = FakeClock()
        return FakeExecutor(self.clock, 2)

    def now(self) -> float:
        return self.clock()

    def give(self, value: Any) -> Call:
        return Done, (value, 0.001), {}

    def fail(self, error: BaseException) -> Call:
        return Fail, (error, 0.001), {}

    def die(self, code: int) -> Call:
        return Die, (code, 0.001), {}

    def hold(self) -> FakeHold:
        return FakeHold(self.clock)


class FakeHold(Hold):
    """A task that ends after ten seconds of simulated time."""

    def __init__(self, clock: FakeClock) -> None:
        self.call = (Done, (None, 10.0), {})
        self._clock = clock

    def wait_until_begun(self) -> None:
        """Do nothing: it begins when it is started."""

    def let_go(self) -> None:
        self._clock.advance(10.0)


GROUNDS = [Fake, Inline, Threads, ThreadsBesideALoop, Coroutines, Processes, ThreadPool, ProcessPool]


def take(ground: Ground, port: Port, count: int) -> dict[int, Any]:
    """Wait until ``count`` attempts have ended; return them by index: values, and an ``Ended`` for each failure."""
    seen: dict[int, Any] = {}
    until = ground.now() + PATIENCE
    while len(seen) < count:
        entries = port.wait(until)
        assert entries or ground.now() < until, f"{len(seen)} of {count} ended, then nothing more"
        for entry in entries:
            rows = [(entry.index, entry)] if isinstance(entry, Ended) else zip(*entry[:2], strict=True)
            for index, value in rows:
                assert index not in seen, f"{index} was reported twice"
                seen[index] = value
    return seen


def feed(ground: Ground, port: Port, calls: list[Call], timeout: float | None = None) -> dict[int, Any]:
    """Run all of these calls, as many at a time as the port has room for; return their ends as ``take`` does."""
    seen: dict[int, Any] = {}
    given = 0
    while len(seen) < len(calls):
        more = min(port.room(), len(calls) - given)
        port.start([(index, 1, calls[index], timeout) for index in range(given, given + more)])
        given += more
        for index, value in take(ground, port, 1).items():
            assert index not in seen, f"{index} was reported twice"
            seen[index] = value
    return seen


def rows_of(entries: list[Block | Ended]) -> list[int]:
    """The indices in these entries, in order."""
    found: list[int] = []
    for entry in entries:
        found += [entry.index] if isinstance(entry, Ended) else entry.indices
    return found
