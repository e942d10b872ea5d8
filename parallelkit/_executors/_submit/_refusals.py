"""Why an executor takes no call, or gives up one that it has taken: the errors."""

from __future__ import annotations

import os
from copy import copy

from parallelkit._cancelled import TaskCancelled
from parallelkit._raised import is_of_signal


def must_not_wait() -> RuntimeError:
    """The error of a wait that would never end."""
    return RuntimeError(
        "this thread must not wait for a call to this executor, which could not be made meanwhile: the thread is in a callback "
        "of a future, or in a finalizer (__del__) that interrupted the executor's own work; wait in another thread"
    )


def stopped() -> TaskCancelled:
    """The error of a call that a stop has cut off."""
    return TaskCancelled("Ctrl-C stopped the executor before this call was done")


def copy_of(failure: BaseException) -> BaseException:
    """A copy to raise. The original is kept, and would keep the frames of all who catch it, the executor among their variables.

    The original itself if its class cannot be copied: that of a signal handler's error, say.
    """
    try:
        raised = copy(failure)
    except Exception as error:
        if is_of_signal(error):
            raise
        return failure
    raised.__cause__ = failure.__cause__
    return raised.with_traceback(failure.__traceback__)


def is_of_parent(pid: int) -> RuntimeError:
    """The error of a use in a forked child: the executor is that of process ``pid``."""
    return RuntimeError(
        f"this executor belongs to process {pid}, and cannot be used in a forked child (process {os.getpid()}); "
        "make a new executor in the child"
    )


def check_wait(pid: int, timeout: float | None) -> None:
    """In a forked child: raise if the wait for a call of process ``pid``, of whose end the child never hears, has no end."""
    if timeout is None:
        raise is_of_parent(pid)
