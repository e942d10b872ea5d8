"""The zygote: a process without threads that forks workers. Each is ready within 2 ms; a fresh interpreter takes 15.

It loads what a worker needs, none of the user's code, and runs no tasks. The workers are children of *its parent*
(``CLONE_PARENT``): so the supervisor waits for them, and kills them, like any others, and once they are there it does not
depend on the zygote.
"""

from __future__ import annotations

import gc
import os
import sys
from _pickle import loads
from _socket import socket as Socket  # noqa: N812  # a class
from _thread import _count as number_of_threads

from parallelkit._worker import _lifeline
from parallelkit._worker._channel import PID, map_file, receive, socket_of
from parallelkit._worker._serve import serve
from parallelkit._worker._surroundings import set_environment

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any, NoReturn

LONGEST = 1 << 20  # bytes of a request: an environment


def tend(socket: int, lifeline: int, born: int, modules: list[str]) -> None:
    """Fork a worker for each request, until the parent is gone. End at once, which tells it so, if that is impossible here."""
    _lifeline.arm(lifeline)
    if number_of_threads() > 0:
        return  # a debugger's, beside this one: a fork would lack them, and stop at a breakpoint for ever
    _fill_streams()
    bare = frozenset(sys.modules)
    _preload(modules)
    try:
        clone = Clone(born)
    except (ImportError, OSError):  # no ctypes; another C library, processor or kernel than it needs
        return
    parent = socket_of(socket)
    try:
        parent.send(PID.pack(0))
        _answer_all(parent, clone, lifeline, bare)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, and the lifeline is about to end us


def _answer_all(parent: Socket, clone: Clone, lifeline: int, bare: frozenset[str]) -> None:
    while True:
        message, fds, _ = receive(parent, LONGEST)
        if not message:
            parent.close()
            return
        try:
            pid = clone()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            os.close(lifeline)
            parent.close()
            _become_worker(loads(message), fds, bare)
        for fd in fds:
            os.close(fd)
        parent.send(PID.pack(pid))


def _fill_streams() -> None:
    """Where a standard stream is closed, occupy its number, so that no received descriptor gets it."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.dup(fd)
    os.close(fd)


def _preload(modules: list[str]) -> None:
    """Load parts of the standard library, and from there alone, whatever else is on the path."""
    path, folder = sys.path, os.path.dirname(os.__file__)
    sys.path = [folder, folder + "/lib-dynload"]
    for name in modules:
        __import__(name)
    sys.path = path
    gc.freeze()  # else the collector of each worker would go through all this, and thereby copy its pages
    gc.enable()


def _become_worker(request: dict[str, Any], fds: list[int], bare: frozenset[str]) -> NoReturn:
    """Become a worker, in the forked process; never return to the zygote's loop, whatever happens."""
    try:
        os.setpgid(0, 0)
        socket, ring, lifeline, directory, *streams = fds
        for fd, stream in zip(request["streams"], streams, strict=True):
            os.dup2(stream, fd)
            os.close(stream)
        os.fchdir(directory)
        os.close(directory)
        set_environment(request["environ"])
        forget(request["stand_ins"], bare)
        serve(socket, ring, lifeline)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def forget(stand_ins: list[str], bare: frozenset[str]) -> None:
    """Unload what has the name of one of the program's own modules, so that those are found."""
    if stand_ins:
        for name in sys.modules.keys() - bare:
            if name.partition(".")[0] in stand_ins:
                del sys.modules[name]


class Clone:
    """Does what ``os.fork`` does, except that the new process is a child of our parent. Raises OSError or ImportError if it cannot.

    The flags are those of the C library's own ``fork``, plus ``CLONE_PARENT``, and one that has the kernel write the new
    pid into a page that the parent sees, before the new process runs. As in ``fork``, the kernel writes the new thread's
    id where the C library keeps it, and the new process registers its list of robust mutexes. These places are known
    for glibc only. (The kernel would tell the address that is cleared as a thread ends; since glibc 2.43 that is another one.)
    """

    CALLS = {  # noqa: RUF012  clone, set_robust_list, get_robust_list
        "x86_64": (56, 273, 274),
        "aarch64": (220, 99, 100),
    }
    # CLONE_PARENT, PARENT_SETTID, CHILD_SETTID, CHILD_CLEARTID; SIGCHLD
    FLAGS = 0x8000 | 0x00100000 | 0x01000000 | 0x00200000 | 17
    TID = 16
    """How far before the head of the list glibc keeps the id."""

    def __init__(self, born: int) -> None:
        import ctypes
        from mmap import MADV_DONTFORK, PAGESIZE

        machine = os.uname().machine
        if machine not in self.CALLS or not _is_glibc():
            raise OSError("how to fork for the parent is not known here")
        self._clone, self._set_list, get_list = self.CALLS[machine]
        self._errno = ctypes.get_errno
        # PyDLL keeps the GIL. (Only in a process without threads may one fork in another way than os.fork.)
        self._python = ctypes.PyDLL(None, use_errno=True)
        self._python.syscall.restype = ctypes.c_long
        self._long = ctypes.c_long
        head, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._call(get_list, 0, ctypes.addressof(head), ctypes.addressof(size))
        self._robust = head.value or 0, size.value
        tid = self._robust[0] - self.TID
        if not head.value or ctypes.c_int.from_address(tid).value != os.getpid():
            raise OSError("the C library does not keep the id of its thread where it is expected")
        self._page = map_file(born, PAGESIZE)
        os.close(born)
        self._page.madvise(MADV_DONTFORK)  # so that no task can write to it
        seen = ctypes.addressof(ctypes.c_int.from_buffer(self._page))
        # The arguments after the flags: 0, for a copy of our stack, and where to write the numbers.
        self._places = (0, seen, tid, 0) if machine == "x86_64" else (0, seen, 0, tid)

    def __call__(self) -> int:
        """The pid of the new process; 0 in the new process."""
        python = self._python
        python.PyOS_BeforeFork()
        pid = -1
        try:
            pid = self._call(self._clone, self.FLAGS, *self._places)
        finally:
            if pid == 0:
                self._call(self._set_list, *self._robust)
                python.PyOS_AfterFork_Child()
            else:
                python.PyOS_AfterFork_Parent()
        return pid

    def _call(self, number: int, *args: int) -> int:
        return self._checked(self._python.syscall(*map(self._long, (number, *args))))

    def _checked(self, result: int) -> int:
        if result == -1:
            number = self._errno()
            raise OSError(number, os.strerror(number))
        return result


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False
