"""``TaskCancelled``, apart from the other errors because its base class imports logging."""

from __future__ import annotations

from concurrent.futures import CancelledError

from parallelkit._errors import ParallelKitError
from parallelkit._public import public


@public
class TaskCancelled(ParallelKitError, CancelledError):
    """The run was stopped before this task was done; the message says why.

    If an earlier attempt failed, its error is the ``__cause__``. If the task never started, the ``__cause__``
    is the error that stopped the run, if there was one (an initializer's, for example).
    """
