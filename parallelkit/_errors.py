"""The exceptions of the package.

    Exception
    ├── ParallelKitError
    │   ├── TaskTimeout(TimeoutError)          an attempt ran past its ``timeout``
    │   ├── WorkerDied(BrokenProcessPool)      the worker process ended during the attempt
    │   ├── TaskCancelled(CancelledError)      the run was stopped before the task was done
    │   ├── TaskExited                         the task raised SystemExit or the like
    │   ├── RemoteError                        stands in for an error that cannot be sent to the parent
    │   └── InputError                         input, key, priority, by, then or reduce raised
    └── ExceptionGroup
        └── TaskFailures                       every failure of a run, raised together
    KeyboardInterrupt
    └── RunInterrupted                         Ctrl-C, with what was done until then

``WorkerDied`` and ``TaskCancelled`` have modules of their own (_died.py, _cancelled.py), because their standard base classes
cost 30 and 8 ms to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parallelkit._public import public


@public
class ParallelKitError(Exception):
    """Base class of the errors that parallelkit itself raises; a task's own errors are never wrapped.

    ``TaskFailures``, a group of errors, and ``RunInterrupted``, a KeyboardInterrupt, are not subclasses.
    """


@public
class TaskTimeout(ParallelKitError, TimeoutError):
    """An attempt ran longer than its ``timeout``, counted from its start in a worker.

    Or, in a process, loading the task's own function took longer than five minutes. The message says which.

    ``killed``: its worker process was killed. ``abandoned``: it may still be running, since a thread cannot be
    killed, a coroutine can resist its cancellation, and a killed process can hang in a driver or file system.
    ``Failure.stack`` shows where it stood or, if a coroutine was cancelled, the ``__cause__``.
    """

    killed = False
    abandoned = False


@public
class TaskExited(ParallelKitError):
    """A task raised something other than an ``Exception``, such as ``SystemExit``: it is the ``__cause__``."""


@public
class RemoteError(ParallelKitError):
    """Replaces an error that a worker process cannot send; the message and ``type_name`` name its type."""

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message, type_name)
        self.type_name = type_name

    def __str__(self) -> str:
        return str(self.args[0])


@public
class InputError(ParallelKitError):
    """The input, ``key``, ``priority``, ``by``, ``then`` or ``reduce`` raised, or a key occurred twice.

    The error is the ``__cause__``. All tasks read until then were run; ``results`` has their outcomes,
    except those that a stream has yielded. If ``reduce`` raised, the run was stopped instead, and
    ``results`` has only the outcome whose value ``reduce`` was given.
    """

    results: Any = None


@public
class TaskFailures(ExceptionGroup[Exception]):
    """Every failure of a run in one group; works with ``except*``.

    ``results`` has all outcomes of the run; after ``map_reduce``, which keeps no values, only the failures.
    """

    results: Any = None

    def derive(self, excs: Sequence[Exception], /) -> TaskFailures:  # type: ignore[override]  # only Exceptions get in
        group = TaskFailures(self.message, excs)
        group.results = self.results
        return group


@public
class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run; before its first task, Ctrl-C is a plain KeyboardInterrupt.

    ``results`` has the outcomes, except those that a stream has yielded; tasks not done are ``TaskCancelled``.
    """

    def __init__(self, message: str = "", results: Any = None) -> None:
        super().__init__(message)
        self.results = results
