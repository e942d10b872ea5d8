"""Run independent tasks in threads or processes, and lose none of their outcomes.

``run_parallel`` is one synchronous call. A crash, a hang or an error costs only the task in which it happens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallelkit._cancelled import TaskCancelled
    from parallelkit._checkpoint import Checkpoint
    from parallelkit._died import WorkerDied
    from parallelkit._errors import (
        InputError,
        ParallelKitError,
        RemoteError,
        RunInterrupted,
        TaskExited,
        TaskFailures,
        TaskTimeout,
    )
    from parallelkit._events import Event
    from parallelkit._executors._futures import ProcessExecutor, ThreadExecutor
    from parallelkit._limits import ConcurrencyLimit, RateLimit
    from parallelkit._outcomes import Attempt, Failure, Outcome, Success
    from parallelkit._recipes import first_success, map_reduce
    from parallelkit._results import Results
    from parallelkit._retry import Retry
    from parallelkit._run import iter_parallel, run_parallel
    from parallelkit._tasks import Task

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Checkpoint",
    "ConcurrencyLimit",
    "Event",
    "Failure",
    "InputError",
    "Outcome",
    "ParallelKitError",
    "ProcessExecutor",
    "RateLimit",
    "RemoteError",
    "Results",
    "Retry",
    "RunInterrupted",
    "Success",
    "Task",
    "TaskCancelled",
    "TaskExited",
    "TaskFailures",
    "TaskTimeout",
    "ThreadExecutor",
    "WorkerDied",
    "first_success",
    "iter_parallel",
    "map_reduce",
    "run_parallel",
]


# The module that defines each public name. It is imported when one of its names is first used (PEP 562),
# so that a program does not pay for what it does not use.
_HOMES = {
    "_cancelled": ["TaskCancelled"],
    "_checkpoint": ["Checkpoint"],
    "_died": ["WorkerDied"],
    "_errors": [
        "InputError",
        "ParallelKitError",
        "RemoteError",
        "RunInterrupted",
        "TaskExited",
        "TaskFailures",
        "TaskTimeout",
    ],
    "_events": ["Event"],
    "_executors._futures": ["ProcessExecutor", "ThreadExecutor"],
    "_limits": ["ConcurrencyLimit", "RateLimit"],
    "_outcomes": ["Attempt", "Failure", "Outcome", "Success"],
    "_recipes": ["first_success", "map_reduce"],
    "_results": ["Results"],
    "_retry": ["Retry"],
    "_run": ["iter_parallel", "run_parallel"],
    "_tasks": ["Task"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except AttributeError as error:
        # ``from parallelkit import ...`` would take an AttributeError for a missing name, and hide its cause.
        raise ImportError(f"{__name__}.{home} cannot be loaded: {error}") from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
