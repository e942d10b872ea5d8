"""The lifeline, by which no worker outlives its parent: when it breaks, the kernel kills the worker at once.

The parent holds the only write end of a pipe. When that closes, the kernel signals the owner of the read end, which
we set to our process group: the worker and its children end, even while C code holds the GIL.
"""

from __future__ import annotations

import os

SIGKILL = 9  # importing signal would cost a worker 2 ms


def arm(fd: int) -> None:
    """Tie this process, which leads its own group, to the write end of the pipe."""
    from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl
    from select import POLLHUP, poll

    fcntl(fd, F_SETSIG, SIGKILL)
    fcntl(fd, F_SETOWN, -os.getpid())
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    # If the parent died before this was armed, the kernel has signalled nobody.
    hangup = poll()
    hangup.register(fd, POLLHUP)
    if hangup.poll(0):
        os.killpg(0, SIGKILL)
