"""Chooses the engine for the option ``executor``; each implementation is loaded when it is first asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from parallelkit._executors._contract import Engine, OwnExecutor
from parallelkit._executors._width import outer_width, usable_cpus, usual_threads
from parallelkit._world import the_world


def open_engine(executor: Any, max_workers: int | None, *, alone: bool) -> tuple[Engine, bool]:
    """The engine for the option ``executor``, and whether the run must close it.

    ``alone``: the run calls nothing of the program's in this process, unless its tasks run here.
    """
    if not (alone and executor == "processes"):
        _load_ahead()
    if executor == "processes":
        from parallelkit._executors._processes import ProcessEngine

        return ProcessEngine(max_workers or default_processes()), True
    if executor == "threads":
        from parallelkit._executors._coroutines import CoroutineEngine

        return CoroutineEngine(max_workers or default_threads()), True
    if executor == "inline":
        from parallelkit._executors._inline import InlineEngine

        return (the_world.get().inline or InlineEngine)(), True
    if isinstance(executor, OwnExecutor):
        if max_workers is not None:
            raise ValueError(
                f"max_workers must not be given together with a parallelkit executor, which has its own, got {max_workers}"
            )
        return executor._engine(), False
    distributed = sys.modules.get("distributed.client")  # loaded, if the executor is a Client
    if distributed is not None and isinstance(executor, distributed.Client):
        from parallelkit._executors._dask import DaskEngine

        return DaskEngine(executor, max_workers), True
    from parallelkit._executors._foreign import ForeignEngine

    return ForeignEngine(executor, max_workers), True


def _load_ahead() -> None:
    """Load now what outcomes are made of: the program may use up this process's descriptors, without which nothing is loaded."""
    for name in ("traceback", "parallelkit._cancelled", "parallelkit._logger", "parallelkit._outcomes"):
        if name not in sys.modules:
            import_module(name)
    if sys.version_info >= (3, 15):
        import_module("_colorize")  # of traceback, which loads it when it needs it


def timeout_of(executor: Any) -> float | None:
    """The timeout that a parallelkit executor has for runs that give none. Other pools may have one, but not for tasks."""
    return executor._timeout if isinstance(executor, OwnExecutor) else None


def default_threads() -> int:
    """``min(32, cpus + 4)``, divided by the width of the runs that enclose this one."""
    return max(1, usual_threads(usable_cpus()) // outer_width())


def default_processes() -> int:
    """One for each usable cpu, divided by the width of the runs that enclose this one."""
    return max(1, usable_cpus() // outer_width())
