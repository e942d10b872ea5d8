"""Whether worker processes can be had here: told at the call, before anything is started."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache

from parallelkit._executors._greenlets import patched_by
from parallelkit._executors._process._spawn import ENTRY
from parallelkit._system import read

_SELF, _OWN_COMMAND = "/proc/self/exe", "/proc/self/cmdline"
_SERVES = "parallelkit._worker._serve"  # what only a worker has loaded


def check_watchable() -> None:
    """Raise NotImplementedError where the system has nothing to watch a worker by, RuntimeError where no thread could do it."""
    why_not = _pidfds_are_missing()
    if why_not is not None:
        raise NotImplementedError(
            f"worker processes need Linux 5.3 or newer{why_not}; use executor='threads' here"
        )
    library = patched_by()
    if library:
        raise RuntimeError(
            f"{library} has made greenlets of threads here, and worker processes need a thread to watch them: "
            "use executor='threads', whose tasks are greenlets then, or a process that is not patched"
        )


def _pidfds_are_missing() -> str | None:
    """What is said of it, where it is so: Python may offer what its kernel has not, or what a container forbids."""
    if not hasattr(os, "pidfd_open"):
        return ""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        # A lack of descriptors is told in another place.
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return f", and pidfd_open says {error.strerror!r}"
    return None


def check_startable() -> None:
    """Raise RuntimeError where no interpreter is known that could be started, or nothing is there that it could run.

    Asked by each run: what does not change is looked at once.
    """
    executable = getattr(sys, "executable", None)
    if not executable or _is_host(executable) or _is_taken_for_an_interpreter():
        which = ", this program itself, which would be started again" if executable else ""
        raise RuntimeError(
            f"worker processes are fresh interpreters, but sys.executable is {executable!r}{which}: "
            "set it to the path of one, or use executor='threads'"
        )
    if not os.path.isfile(ENTRY):
        raise RuntimeError(
            f"worker processes run the package's own files, and there is no {ENTRY}: "
            "have it installed unpacked, not in an archive, or use executor='threads'"
        )


def _is_host(executable: str) -> bool:
    """Whether this is a program that has Python in it: a frozen one, or one that embeds it, as uwsgi does."""
    own = getattr(sys, "frozen", False) or not getattr(sys, "orig_argv", None)
    return own and os.path.realpath(executable) == os.path.realpath(_SELF)


@cache
def _is_taken_for_an_interpreter() -> bool:
    """Whether it was started as a worker, and is none: a host that cannot be told from an interpreter."""
    if _SERVES in sys.modules:
        return False
    try:
        words = read(_OWN_COMMAND).split("\0")
    except OSError:
        return False
    return os.fsencode(ENTRY).decode("latin-1") in words
