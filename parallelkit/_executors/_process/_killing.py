"""Kills a worker process with its group, and reaps it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` may be a module of the program
import os
from typing import Any

from parallelkit._worker import _kernel

PATIENCE = 5.0
"""Seconds after its kill at which a worker is given up that has not ended. No signal ends a process in some calls to a driver or file system."""


def kill(pid: int, pidfd: int) -> bool:
    """Send SIGKILL to its process group and, as it may have left that, to itself; False if this is not permitted."""
    try:
        # Until it is reaped, its number cannot be that of another group; this raises if it has been.
        os.waitid(_kernel.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        os.killpg(pid, _signal.SIGKILL)
    except (ChildProcessError, ProcessLookupError, PermissionError):
        pass  # other code has reaped it, or it or this process has changed its user
    return ask(pidfd, _signal.SIGKILL)


def ask(pidfd: int, number: int) -> bool:
    """Send a signal to the process alone; False if this is not permitted, as one of the two has changed its user."""
    try:
        _kernel.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        return False
    return True


def kill_child(pid: int) -> None:
    """Kill a child that nobody has been told of yet, and reap it."""
    try:
        os.kill(pid, _signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # other code has reaped it


def status_of(pid: int, pidfd: int) -> int | None:
    """Reap a process that has ended: its status as in ``subprocess``, or None if other code has reaped it, or it cannot be reaped yet."""
    try:
        info: Any = os.waitid(_kernel.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        info = None
    _reap_rest(pid)
    if info is None:
        return None
    status: int = info.si_status
    return status if info.si_code == os.CLD_EXITED else -status


_groups: set[int] = set()
"""Process groups of workers, in which this process had children that could not be reaped yet when it last looked."""


def _reap_rest(group: int) -> None:
    """Reap what is left of this group, and of earlier ones, as far as that has ended.

    It may be the worker itself: a debugger that is attached to it keeps it until it lets go. And if this process is
    number 1 of a container, processes that tasks have started become its children when their worker ends.
    """
    _groups.add(group)
    for each in tuple(_groups):
        try:
            while os.waitid(os.P_PGID, each, os.WEXITED | os.WNOHANG) is not None:
                pass
        except ChildProcessError:  # there are no more
            _groups.discard(each)
