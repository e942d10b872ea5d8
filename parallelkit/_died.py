"""``WorkerDied``, apart from the other errors because its base class imports multiprocessing."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` may be a module of the program
from typing import TYPE_CHECKING

from parallelkit._errors import ParallelKitError
from parallelkit._public import public

if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
else:  # pyright takes a class whose base has two definitions to have every attribute
    try:
        from concurrent.futures.process import BrokenProcessPool
    except RuntimeError:  # the interpreter is shutting down, and that module registers an exit handler
        from concurrent.futures import BrokenExecutor as BrokenProcessPool


@public
class WorkerDied(ParallelKitError, BrokenProcessPool):
    """The worker process ended while it ran this attempt; no other task is affected.

    ``exitcode``: its exit code, or None if a signal ended it. ``signal``: the number of that signal, or
    None. ``pid``: the id of the process. In another library's pool, and on a lost node of a cluster, all
    three are None, and the attempt may not even have started. ``may_have_run``: always True, since an
    attempt known not to have started is run elsewhere or becomes ``TaskCancelled``.
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
    """The error for a return code as ``subprocess`` gives it: negative means a signal."""
    if status < 0:
        names = [name for name, number in vars(_signal).items() if number == -status and _is_signal(name)]
        name = min(names, default=f"signal {-status}")  # the first of several, as ``signal.Signals`` has it
        hint = ", which the kernel sends when memory runs out" if name == "SIGKILL" else ""
        return WorkerDied(f"worker process {pid} was ended by {name}{hint}", None, -status, pid)
    return WorkerDied(f"worker process {pid} exited with code {status}", status, None, pid)


def _is_signal(name: str) -> bool:
    return name.startswith("SIG") and "_" not in name
