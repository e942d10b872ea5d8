"""Checks whether worker processes can be had here; asked at the call, before anything is started."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import NoReturn

from parallelkit._executors._greenlets import patched_by
from parallelkit._executors._process._spawn import ENTRY
from parallelkit._system import read
from parallelkit._worker._channel import is_worker
from parallelkit._worker._kernel import pidfd_open

INSTEAD = (
    "use executor='threads' here, or for CPU-bound work executor=ProcessPoolExecutor() of concurrent.futures"
)
_SELF, _OWN_COMMAND = "/proc/self/exe", "/proc/self/cmdline"


def check_watchable() -> None:
    """Raise NotImplementedError if the system has no pidfds to watch workers by, RuntimeError if there can be no thread for it."""
    if sys.platform != "linux":
        _refuse_system()
    # Workers and we read each other's words of eight bytes.
    if sys.byteorder != "little" or sys.maxsize < 1 << 32:
        _refuse_system(f" on a 64-bit little-endian processor, and this is {os.uname().machine}")
    try:
        os.close(pidfd_open(os.getpid()))
    except OSError as error:  # the kernel may not have it, or a container may forbid it
        # Other errors, such as a lack of descriptors, are reported where they matter.
        if error.errno in (errno.ENOSYS, errno.EPERM):
            _refuse_system(f", and pidfd_open says {error.strerror!r}")
    library = patched_by()
    if library:
        raise RuntimeError(
            f"{library} has turned threads into greenlets here, and worker processes need a thread to watch them: "
            "use executor='threads', whose tasks are greenlets then, or a process that is not patched"
        )


def _refuse_system(why: str = "") -> NoReturn:
    raise NotImplementedError(f"worker processes need Linux 5.4 or newer{why}; {INSTEAD}")


def check_startable() -> None:
    """Raise RuntimeError if there is no interpreter to start, or no file for it to run. Every run asks."""
    executable = getattr(sys, "executable", None)
    if not executable or _is_host(executable) or _is_taken_for_an_interpreter():
        which = ", this program itself, which would be started again" if executable else ""
        # No other interpreter would find the modules of a frozen program.
        cure = "" if getattr(sys, "frozen", False) else "set it to the path of one, or "
        raise RuntimeError(
            f"worker processes are fresh interpreters, but sys.executable is {executable!r}{which}: {cure}{INSTEAD}"
        )
    if not os.path.isfile(ENTRY):
        raise RuntimeError(
            f"worker processes run the package's own files, and there is no {ENTRY}: "
            f"have it installed unpacked, not in an archive, or {INSTEAD}"
        )


def _is_host(executable: str) -> bool:
    """Whether this is not an interpreter but a host: a frozen program, or one that embeds Python, as uwsgi does."""
    own = getattr(sys, "frozen", False) or not getattr(sys, "orig_argv", None)
    return own and os.path.realpath(executable) == os.path.realpath(_SELF)


@cache
def _is_taken_for_an_interpreter() -> bool:
    """Whether this is a host that was started in place of a worker: ``_is_host`` does not know every host."""
    if is_worker():
        return False
    try:
        words = read(_OWN_COMMAND).split("\0")
    except OSError:
        return False
    return os.fsencode(ENTRY).decode("latin-1") in words
