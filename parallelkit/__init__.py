"""Run independent tasks in threads or processes, and lose none of their outcomes.

One synchronous call, ``run_parallel``, over pools in which a crash, a hang or an error costs the
task in which it happened and no other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parallelkit._checkpoint import Checkpoint
from parallelkit._errors import (
    InputError,
    ParallelKitError,
    RemoteError,
    RunInterrupted,
    TaskCancelled,
    TaskExited,
    TaskFailures,
    TaskTimeout,
)
from parallelkit._events import Event
from parallelkit._limits import ConcurrencyLimit, RateLimit
from parallelkit._outcomes import Attempt, Failure, Outcome, Success
from parallelkit._recipes import first_success, map_reduce
from parallelkit._results import Results
from parallelkit._retry import Retry
from parallelkit._run import iter_parallel, run_parallel
from parallelkit._tasks import Task

if TYPE_CHECKING:
    from parallelkit._died import WorkerDied
    from parallelkit._executors._futures import ProcessExecutor, ThreadExecutor

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


_LATE = {
    "ProcessExecutor": "parallelkit._executors._futures",
    "ThreadExecutor": "parallelkit._executors._futures",
    "WorkerDied": "parallelkit._died",
}


def __getattr__(name: str) -> Any:
    """Load what is costly to import when it is first asked for (PEP 562)."""
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)


# Tracebacks, reprs and pickles name the public place of a class, which stays when a module moves.
for _value in list(globals().values()):
    if isinstance(_value, type) and _value.__module__.startswith("parallelkit."):
        _value.__module__ = __name__
