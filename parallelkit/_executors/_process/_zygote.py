"""The parent's end of a zygote, the process that forks workers."""

from __future__ import annotations

import os
import sys
from _pickle import dumps
from _signal import SIGKILL  # type: ignore[import-not-found]  # see _killing.py
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from errno import EPROTO
from mmap import PAGESIZE

from parallelkit._executors._process._killing import kill_child
from parallelkit._executors._process._preload import is_standard, stand_ins
from parallelkit._executors._process._spawn import cut_lifeline, new_lifeline, start
from parallelkit._system import environment, monotonic, read
from parallelkit._worker._channel import BORN, PID, map_file, new_file

PATIENCE = 10.0
"""Seconds that a zygote may take to start."""

ANSWER = 0.2
"""Seconds that it may take to answer, a hundred times what it needs: the supervisor waits, and watches no deadline."""

_AT_EXEC = ("LD_", "PYTHON", "LC_", "LANG", "GLIBC_", "MALLOC_", "TZ")
"""Beginnings of the names of environment variables that count when a program starts."""
_OF_THE_C_LIBRARY = 0b11 << 31
"""Signals 32 and 33, in a mask: the C library changes how they are handled when the first thread starts."""

_STATUS = (
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigIgn",
    "SigBlk",
    "Cap",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed:",
)
"""Beginnings of the lines of ``/proc/…/status`` that tell what a process inherits."""


class Zygote:
    """Starts at once; ready when it has loaded these modules and says so. Raises OSError if it cannot be started."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.ready = False
        self.deadline = monotonic() + PATIENCE
        self._inherited = inheritance()
        with ExitStack() as theirs, ExitStack() as ours:
            self.socket, their_socket = socketpair(AF_UNIX, SOCK_SEQPACKET)
            theirs.callback(their_socket.close)
            ours.callback(self.socket.close)
            self.socket.settimeout(ANSWER)
            born = new_file("parallelkit-zygote")
            theirs.callback(os.close, born)
            os.ftruncate(born, PAGESIZE)
            self._born = map_file(born, PAGESIZE)
            ours.callback(self._born.close)
            life, self._lifeline = new_lifeline()
            theirs.callback(os.close, life)
            ours.callback(cut_lifeline, self._lifeline)
            self._modules = tuple(modules)
            fds = (their_socket.fileno(), life, born)
            self._process = start(fds, ("zygote", *fds, *self._modules))
            ours.pop_all()  # all went well: keep our ends open

    def fits(self) -> bool:
        """Whether a fork of it is, as far as can be told, like a worker that is started now.

        That is so if both inherit the same from the system, and no module of the program has the name of one that
        the zygote has loaded.
        """
        try:
            return inheritance() == self._inherited and all(map(is_standard, self._modules))
        except OSError:
            return False

    def receive(self) -> None:
        """Read its one unasked message: that it is ready. Raises OSError if it cannot be, or is gone."""
        if self._answer():
            raise OSError(EPROTO, "the zygote speaks out of turn")
        self.ready = True

    def fork(self, fds: tuple[int, ...], environ: dict[str, str]) -> int:
        """Fork a worker that gets these descriptors; return its pid. Raises OSError; if it was for want of an answer, close it."""
        streams = [fd for fd in (1, 2) if _is_open(fd)]
        directory = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            request = dumps({"environ": environ, "streams": streams, "stand_ins": stand_ins()}, 5)
            rights = array("i", [*fds, directory, *streams])
            self.socket.sendmsg([request], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        finally:
            os.close(directory)
        pid = self._answer()
        BORN.pack_into(self._born, 0, 0)
        try:
            os.setpgid(pid, pid)
        except OSError:
            pass  # the worker has done so itself, or is gone already
        return pid

    def _answer(self) -> int:
        said = self.socket.recv(PID.size)
        if len(said) != PID.size:
            raise OSError(EPROTO, "the zygote is gone")
        (number,) = PID.unpack(said)
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return int(number)

    def close(self) -> None:
        """Kill the zygote. Its workers go on, except one that it forked and had not yet told us of."""
        try:
            os.killpg(self._process.pid, SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # other code has reaped it, or this process has changed its user
        self.socket.close()
        cut_lifeline(self._lifeline)
        self._process.wait()
        (unknown,) = BORN.unpack_from(self._born)  # the kernel writes it, whatever becomes of the zygote
        self._born.close()
        if unknown:
            kill_child(unknown)


def inheritance() -> tuple[object, ...]:
    """What a worker inherits from its parent, be that this process or a zygote: user, limits, masks and the like."""
    status = read("/proc/thread-self/status").splitlines()
    kept = [_our_part(line) for line in status if line.startswith(_STATUS)]
    environ = sorted(item for item in environment().items() if item[0].startswith(_AT_EXEC))
    streams = [_is_open(fd) for fd in (1, 2)]
    digits = sys.get_int_max_str_digits()
    return kept, read("/proc/self/limits"), os.getpriority(os.PRIO_PROCESS, 0), environ, streams, digits


def _our_part(line: str) -> object:
    name, _, value = line.partition(":")
    return (name, int(value, 16) & ~_OF_THE_C_LIBRARY) if name == "SigIgn" else line


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
