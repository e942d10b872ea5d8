"""``WorkerDied``, apart from the other errors: its base class pulls in multiprocessing."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from signal import Signals

from parallelkit._errors import ParallelKitError
from parallelkit._public import public

try:
    from concurrent.futures.process import BrokenProcessPool
except RuntimeError:  # the interpreter is about to end, and that module registers an exit handler
    BrokenProcessPool = BrokenExecutor  # type: ignore[assignment, misc]  # its base


@public
class WorkerDied(ParallelKitError, BrokenProcessPool):
    """The worker process ended while it ran this attempt; no other task is touched by it.

    ``exitcode`` is the code it exited with, or None where a signal ended it; ``signal`` is that
    signal's number, or None. ``pid`` is the dead process. All three are None where nobody knows them,
    nor whether the attempt had begun: of a pool that is not parallelkit's own, and of a lost node of a cluster.
    ``may_have_run``: always True, for what is known not to have begun is run elsewhere, or ``TaskCancelled``.
    """

    def __init__(
        self,
        message: str,
        exitcode: int | None = None,
        signal: int | None = None,
        pid: int | None = None,
        may_have_run: bool = True,
    ) -> None:
        super().__init__(message, exitcode, signal, pid, may_have_run)
        self.exitcode = exitcode
        self.signal = signal
        self.pid = pid
        self.may_have_run = may_have_run

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"WorkerDied({self.args[0]!r}, exitcode={self.exitcode}, signal={self.signal}, pid={self.pid})"


def died_with(status: int, pid: int) -> WorkerDied:
    """The error of a return code as ``subprocess`` gives it: negative means a signal."""
    if status < 0:
        name = Signals(-status).name if -status in set(Signals) else f"signal {-status}"
        return WorkerDied(f"worker process {pid} was ended by {name}", None, -status, pid)
    return WorkerDied(f"worker process {pid} exited with code {status}", status, None, pid)
