"""A worker does not outlive its parent: the kernel kills it, whatever it is doing, when the lifeline breaks.

The parent holds the only write end of a pipe. When it is gone, the kernel signals the read end's owner,
which we set to our process group: the worker and its children end, even with the GIL held by C code.
"""

from __future__ import annotations

import os
import sys

SIGKILL = 9  # the module signal would cost a worker 2 ms


def arm(fd: int) -> None:
    """Tie this process, which leads its own group, to the write end of the pipe."""
    if sys.platform != "linux":
        _watch(fd)
        return
    from fcntl import F_GETFL, F_SETFL, F_SETOWN, F_SETSIG, fcntl
    from select import POLLHUP, poll

    fcntl(fd, F_SETSIG, SIGKILL)
    fcntl(fd, F_SETOWN, -os.getpid())
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    # A parent that died before this was armed has sent its signal to nobody.
    hangup = poll()
    hangup.register(fd, POLLHUP)
    if hangup.poll(0):
        os.killpg(0, SIGKILL)


def _watch(fd: int) -> None:
    """Elsewhere a thread waits for the end of the pipe; it needs the GIL to notice."""
    from _thread import start_new_thread

    def wait_for_the_end() -> None:
        while os.read(fd, 1):
            pass
        os.killpg(0, SIGKILL)

    start_new_thread(wait_for_the_end, ())
