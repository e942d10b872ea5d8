"""Ways to call a run: each calls ``run()`` in some place, and returns what it returned."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import parallelkit

Run = Callable[[], Any]


def plain(run: Run) -> Any:
    """Call it directly, as most people do."""
    return run()


def thread(run: Run) -> Any:
    """Call it from a thread other than the main one."""
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.append(run()))
    caller.start()
    caller.join()
    return found[0]


def loop(run: Run) -> Any:
    """Call it inside a running event loop, which it blocks."""

    async def main() -> Any:
        return run()

    return asyncio.run(main())


def in_threads(run: Run) -> Any:
    """Call it from a task in threads, beside another task."""
    return nested(run, "threads")


def in_processes(run: Run) -> Any:
    """Call it from a task in a worker process."""
    return nested(run, "processes")


def nested(run: Run, executor: str) -> Any:
    outer = parallelkit.run_parallel({"inner": run, "beside": answer}, executor=executor, max_workers=2)
    assert outer["beside"] == "here"
    return outer["inner"]


def answer() -> str:
    return "here"


def fork(run: Run) -> Any:
    """Call it in a forked child of a process that has used threads before."""
    parallelkit.run_parallel(abs, range(3), executor="threads")
    return from_child(lambda tell: tell(), run)


def shutdown(run: Run) -> Any:
    """Call it in an exit handler, as the interpreter ends."""

    def end(tell: Callable[[], None]) -> None:
        import atexit

        atexit.register(tell)
        sys.exit()

    return from_child(end, run)


def from_child(end: Callable[[Callable[[], None]], None], run: Run) -> Any:
    """Call it in a forked child, where ``end`` decides when; the child sends back what it returned."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:

        def tell() -> None:
            try:
                with open(write, "wb") as file:
                    file.write(pickle.dumps(run()))
            finally:
                os._exit(0)

        end(tell)
    os.close(write)
    with open(read, "rb") as file:
        told = file.read()
    os.waitpid(child, 0)
    return pickle.loads(told)


def finalizer(run: Run) -> Any:
    """Call it from ``__del__``."""
    found = []

    class Last:
        def __del__(self) -> None:
            found.append(run())

    Last()
    return found[0]


def callback(run: Run) -> Any:
    """Call it from the ``then`` callback of another run, and so inside that run's loop."""
    found: list[Any] = []

    def then(outcome: Any) -> None:
        if not found:
            found.append(run())

    parallelkit.run_parallel(abs, range(3), then=then)
    return found[0]
