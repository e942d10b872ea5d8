"""How a worker process is killed, with its group, and how its status is asked for, once."""

from __future__ import annotations

import os
import signal
from typing import Any


def kill(pid: int, pidfd: int) -> bool:
    """Send SIGKILL to its group, it and its children; and to itself, should it have left the group. False where we may not."""
    try:
        # While it is not reaped, its number is that of no other group.
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        os.killpg(pid, signal.SIGKILL)
    except (ChildProcessError, ProcessLookupError, PermissionError):
        pass  # other code has reaped it, or one of us took another user's identity
    return ask(pidfd, signal.SIGKILL)


def ask(pidfd: int, number: int) -> bool:
    """Send a signal to the process alone; False where we may not, as one of us took another user's identity."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        return False
    return True


def status_of(pidfd: int) -> int | None:
    """Reap one that has ended: its status as subprocess gives it; None where other code has waited for it."""
    try:
        info: Any = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return None
    status: int = info.si_status
    return status if info.si_code == os.CLD_EXITED else -status
