"""Calls of the Linux kernel that a Python may have been built without, since it was built for older systems.

Those of conda are, and those of uv were until the middle of 2026. The kernel that they run on has the calls all the same.
"""

from __future__ import annotations

import os
import sys
from errno import ENOSYS
from functools import cache

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

# Numbers of the kernel's, the same on every processor.
P_PIDFD = 3
F_ADD_SEALS = 1033
F_SEAL_SHRINK, F_SEAL_GROW = 2, 4
_MFD_CLOEXEC, _MFD_ALLOW_SEALING = 1, 2
_PIDFD_SEND_SIGNAL, _PIDFD_OPEN = 424, 434
_MAP_FIXED = 0x10


def pidfd_open(pid: int) -> int:
    """A descriptor of a process, readable once that has ended."""
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _call("syscall", _PIDFD_OPEN, pid, 0)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process alone."""
    import _signal  # type: ignore[import-not-found]  # ``signal`` may be a module of the program

    if hasattr(_signal, "pidfd_send_signal"):
        _signal.pidfd_send_signal(pidfd, number)
    else:
        _call("syscall", _PIDFD_SEND_SIGNAL, pidfd, number, None, 0)


def memfd_create(name: str) -> int:
    """A descriptor of a file without a place, which can be sealed."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return _call("memfd_create", name.encode(), _MFD_CLOEXEC | _MFD_ALLOW_SEALING)


def map_privately(address: int, length: int, fd: int) -> None:
    """Replace a mapping of this file by a private one: what either side writes from now on, the other does not see."""
    from mmap import MAP_PRIVATE, PROT_READ, PROT_WRITE

    _call("mmap", address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | _MAP_FIXED, fd, 0)


def _call(name: str, *args: int | bytes | None) -> int:
    """Call a function of the C library. Raises OSError: what the kernel says, or ENOSYS if there is no such function."""
    function, c_long, get_errno = _function(name)
    result: int = function(*(c_long(arg) if isinstance(arg, int) else arg for arg in args))
    if result == -1:
        number = get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def _function(name: str) -> tuple[Any, Any, Any]:
    """The function, and what its call takes."""
    if sys.platform != "linux":  # where the numbers mean other calls
        raise OSError(ENOSYS, os.strerror(ENOSYS))
    try:
        from ctypes import CDLL, c_long, get_errno

        return CDLL(None, use_errno=True)[name], c_long, get_errno
    except (ImportError, AttributeError):  # a Python without ctypes; a C library without the function
        raise OSError(ENOSYS, os.strerror(ENOSYS)) from None
