"""The exception tree: who may raise or return what.

    Exception
    ├── ParallelKitError
    │   ├── TaskTimeout(TimeoutError)          an attempt ran past its ``timeout``
    │   ├── WorkerDied(BrokenProcessPool)      the worker process ended under the attempt
    │   ├── TaskCancelled(CancelledError)      the run was stopped before the task was done
    │   ├── TaskExited                         the task raised SystemExit or the like
    │   ├── RemoteError                        stands in for an error that cannot travel
    │   └── InputError                         input, key, priority, by, then or reduce raised
    └── ExceptionGroup
        └── TaskFailures                       every failure of a run, raised together
    KeyboardInterrupt
    └── RunInterrupted                         Ctrl-C, with what was done until then

``WorkerDied`` lives in a module of its own, because its standard base class costs 30 ms to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

from parallelkit._public import public


@public
class ParallelKitError(Exception):
    """Root of the errors that parallelkit itself causes; a task's own errors are never wrapped."""


@public
class TaskTimeout(ParallelKitError, TimeoutError):
    """An attempt ran longer than its ``timeout``, counted from the moment its worker began with it.

    A process was ``killed``. A thread cannot be, nor can a coroutine that swallows its cancellation: it
    was ``abandoned`` and may still run. Where it stood at that moment is ``Failure.stack``.
    """

    killed = False
    abandoned = False


@public
class TaskCancelled(ParallelKitError, CancelledError):
    """The run was stopped before this task was done; the message says why.

    Where an earlier attempt had failed, its error is the ``__cause__``; of a task that never began it is
    the error that stopped the run, if one did (of an initializer, say).
    """


@public
class TaskExited(ParallelKitError):
    """A task raised something beside ``Exception`` (``SystemExit``, say), which is the ``__cause__``."""


@public
class RemoteError(ParallelKitError):
    """Stands in for an error of a worker process of which nothing can be sent; text and ``type_name`` name its type."""

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message, type_name)
        self.type_name = type_name

    def __str__(self) -> str:
        return str(self.args[0])


@public
class InputError(ParallelKitError):
    """The input, or a callable that the caller gave to read it, raised: the error is the ``__cause__``.

    Everything that had been read was run. ``results`` has it, but for what a stream has yielded; where
    ``reduce`` raised, which stops the run, it has the outcome whose value that was given.
    """

    results: Any = None


@public
class TaskFailures(ExceptionGroup[Exception]):
    """Every failure of a run in one group; works with ``except*``.

    ``results`` has all outcomes; of ``map_reduce``, which keeps no value, the failures.
    """

    results: Any = None

    def derive(self, excs: Sequence[Exception], /) -> TaskFailures:  # type: ignore[override]  # only Exceptions get in
        group = TaskFailures(self.message, excs)
        group.results = self.results
        return group


@public
class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run.

    ``results`` has what was done, but for what a stream has yielded; what was not is ``TaskCancelled`` there.
    """

    def __init__(self, message: str = "", results: Any = None) -> None:
        super().__init__(message)
        self.results = results
