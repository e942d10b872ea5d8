"""Starts a worker process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from _socket import AF_UNIX, SOCK_STREAM, socketpair  # ``socket`` takes a millisecond to load
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from threading import Lock
from typing import Any

from parallelkit import _worker
from parallelkit._executors._process._killing import kill_child
from parallelkit._executors._width import usable_cpus
from parallelkit._locks import careful
from parallelkit._named_tuple import NamedTuple
from parallelkit._system import environment
from parallelkit._worker import _channel, _kernel
from parallelkit._worker._channel import inherited_width, is_worker

ENTRY = os.path.join(os.path.dirname(os.path.abspath(_worker.__file__)), "__main__.py")

_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM", "NUMBA", "RAYON")
_OTHERS = ("POLARS_MAX_THREADS", "OPENCV_FOR_THREADS_NUM", "BLOSC_NTHREADS", "LOKY_MAX_CPU_COUNT")
THREADS = (*(name + "_NUM_THREADS" for name in _LIBRARIES), *_OTHERS)
"""Environment variables for libraries that would otherwise start a thread for each cpu in every worker.

Rayon is what libraries written in Rust use, such as tokenizers. By the last, joblib counts the cpus, and so does LightGBM.
"""

Fork = Callable[[tuple[int, ...], dict[str, str]], int]
"""Forks a worker that gets these descriptors and this environment; returns its pid, or raises OSError."""


def check_popen() -> None:
    """Raise RuntimeError if a test has put a mock in place of ``Popen``: a mock's pid would be taken for 1."""
    found: Any = subprocess.Popen
    if not isinstance(found, type) or not hasattr(found, "_execute_child"):
        raise RuntimeError(
            f"worker processes are started by subprocess.Popen, which is {found!r} here: where a test has replaced it, "
            "have its runs inline (parallelkit.testing.inline_runs)"
        )


check_popen()


def unwrapped(function: Any) -> Any:
    """The function that decorators have wrapped; ``inspect``, which has this, takes 5 ms to load."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


class Started(subprocess.Popen[bytes]):
    """A fresh interpreter; a subclass, so that whatever replaces ``Popen`` later does not replace this."""

    # Profilers wrap it, to start themselves in each Python that the program starts; a worker cannot be started so.
    __init__ = unwrapped(subprocess.Popen.__init__)


class Spawned(NamedTuple):
    """A fresh worker process and the parent's ends of what it was given."""

    pid: int
    pidfd: int
    socket: Any
    ring: _channel.Ring
    lifeline: int


def spawn(width: int, fork: Fork | None = None) -> Spawned:
    """Start a worker; raises OSError, and leaves nothing behind, if the system cannot give what it takes."""
    with ExitStack() as theirs, ExitStack() as ours:
        our_socket, their_socket = socketpair(AF_UNIX, SOCK_STREAM)
        theirs.callback(their_socket.close)
        ours.callback(our_socket.close)
        ring_fd = _channel.new_file("parallelkit-ring")
        theirs.callback(os.close, ring_fd)
        os.ftruncate(ring_fd, _channel.SIZE)
        # If a task could shorten it, reading it would kill this process.
        fcntl.fcntl(ring_fd, _kernel.F_ADD_SEALS, _kernel.F_SEAL_SHRINK | _kernel.F_SEAL_GROW)
        ring = _channel.Ring(ring_fd)
        ours.callback(ring.close)
        ring.head[_channel.LIMIT] = _channel.UNLIMITED
        ring.head[_channel.MARK] = _channel.MARKED
        life, lifeline = new_lifeline()
        theirs.callback(os.close, life)
        ours.callback(cut_lifeline, lifeline)
        fds, environ = (their_socket.fileno(), ring_fd, life), _environment(width)
        pid = _start_alone(fds, environ) if fork is None else fork(fds, environ)
        ours.callback(kill_child, pid)
        pidfd = _kernel.pidfd_open(pid)
        our_socket.setblocking(False)
        ours.pop_all()  # all went well: keep our ends open
    return Spawned(pid, pidfd, our_socket, ring, lifeline)


def _start_alone(fds: tuple[int, ...], environ: dict[str, str]) -> int:
    process = start(fds, fds, environ)
    process.returncode = 0  # else Popen would reap it some time: that is done by its pidfd
    return process.pid


def start(
    fds: tuple[int, ...], args: Iterable[object], environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter that leads a process group of its own, and inherits these descriptors."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # private; multiprocessing uses it, too
    # That passes on only some -X options. One of the others the program may also have set without an option.
    digits = sys.get_int_max_str_digits()
    options = sys._xoptions | {"int_max_str_digits": str(digits)}
    if digits == sys.int_info.default_max_str_digits:
        del options["int_max_str_digits"]
    flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in options.items()]
    started: subprocess.Popen[bytes] = Started(
        [sys.executable, *flags, "-S", "-P", ENTRY, *map(str, args)],
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        process_group=0,
        env=environ,
    )
    return started


def _environment(width: int) -> dict[str, str]:
    """The parent's environment, with the cpus shared out among the workers' numerical libraries."""
    cpus = usable_cpus() // inherited_width()
    shares, own = dict.fromkeys(THREADS, str(max(1, cpus // width))), environment()
    if is_worker():  # its workers are to share what it was given itself
        given = dict.fromkeys(THREADS, str(max(1, cpus))).items()
        own = dict(own.items() - given)
    return {**shares, **own}


# A forked child of this process closes its copies: they would keep our workers alive.
_lifelines: set[int] = set()
_lifelines_lock = careful(Lock)


def new_lifeline() -> tuple[int, int]:
    """Both ends of a pipe; a process that is given the first is killed when the second is closed."""
    with _lifelines_lock:
        life, lifeline = os.pipe()
        _lifelines.add(lifeline)
    return life, lifeline


def cut_lifeline(fd: int) -> None:
    """Close a write end, if it is open: the kernel kills what is left of that worker's process group."""
    with _lifelines_lock:
        if fd in _lifelines:
            _lifelines.discard(fd)
            os.close(fd)


def _after_fork() -> None:
    _lifelines_lock.release()
    while _lifelines:
        os.close(_lifelines.pop())


os.register_at_fork(
    before=_lifelines_lock.acquire,
    after_in_parent=_lifelines_lock.release,
    after_in_child=_after_fork,
)
