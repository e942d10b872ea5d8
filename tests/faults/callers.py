"""Ways to call a run: each makes ``run()`` happen somewhere and gives back what it gave."""

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
    """As most people do."""
    return run()


def thread(run: Run) -> Any:
    """From a thread that is not the main one."""
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.append(run()))
    caller.start()
    caller.join()
    return found[0]


def loop(run: Run) -> Any:
    """Inside a running event loop, which it blocks, as the caller wanted."""

    async def main() -> Any:
        return run()

    return asyncio.run(main())


def in_threads(run: Run) -> Any:
    """Nested: from a task in threads, beside others."""
    return nested(run, "threads")


def in_processes(run: Run) -> Any:
    """Nested: from a task in a worker process."""
    return nested(run, "processes")


def nested(run: Run, executor: str) -> Any:
    outer = parallelkit.run_parallel({"inner": run, "beside": answer}, executor=executor, max_workers=2)
    assert outer["beside"] == "here"
    return outer["inner"]


def answer() -> str:
    return "here"


def fork(run: Run) -> Any:
    """From a forked child of a process that has used the executor before."""
    parallelkit.run_parallel(abs, range(3), executor="threads")
    return from_child(lambda tell: tell(), run)


def shutdown(run: Run) -> Any:
    """From an exit handler, as the interpreter ends."""

    def end(tell: Callable[[], None]) -> None:
        import atexit

        atexit.register(tell)
        sys.exit()

    return from_child(end, run)


def from_child(end: Callable[[Callable[[], None]], None], run: Run) -> Any:
    """What the run gives in a forked child, which ends as it is told to."""
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
    """From ``__del__``, whenever that happens to be called."""
    found = []

    class Last:
        def __del__(self) -> None:
            found.append(run())

    Last()
    return found[0]


def callback(run: Run) -> Any:
    """From a callback of another run, in its loop."""
    found: list[Any] = []

    def then(outcome: Any) -> None:
        if not found:
            found.append(run())

    parallelkit.run_parallel(abs, range(3), then=then)
    return found[0]
