"""The file beside a journal: the lock of the run that uses it, and the number of batches it has committed.

Why there is such a file: docs/design/checkpoint.md.
"""

from __future__ import annotations

import os
from contextlib import suppress

from parallelkit._system import read

DIGITS = 20  # of the count in the file

_held: dict[str, JournalLock] = {}  # those of this process, within which file locks do not exclude each other
os.register_at_fork(after_in_child=_held.clear)

UNKNOWN = "-"


class JournalLock:
    """The lock of a journal, for one run at a time. The kernel releases it when this process ends, however it ends.

    ``count``: the batches in the journal as of the last run, if that did not close it in order and the machine
    is known not to have been rebooted since; else 0. ``take`` raises ValueError if another run has the lock, or no file can
    be made.
    """

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._path = f"{journal}-run"
        self._opened: list[int] = []  # the file's descriptor, while it is open
        self._is_new = False  # if so, it goes again should the journal not be one
        self.count = 0

    def take(self) -> JournalLock:
        """Take the lock, and return this object. If anything is raised, also by a signal handler, it is not taken."""
        try:
            if _held.setdefault(self._journal, self) is not self:  # in one step, so that it needs no lock
                raise in_use(self._journal, os.getpid())
            self._acquire()
            self._boot = boot_id()
            try:
                boot, count = self._read()
                self.count = count if boot == self._boot != UNKNOWN else 0
                self.note(self.count)
                self._is_new = not boot
            except OSError as error:
                raise not_made(self._journal, error) from error
        except BaseException:
            self.release(in_order=False)
            raise
        return self

    def _acquire(self) -> None:
        """Open the file, and lock it."""
        import fcntl

        check_place(self._journal)
        opened = self._opened
        while True:
            try:
                # One call opens and notes it, for a signal handler may raise after each.
                opened.extend(map(os.open, (self._path,), (os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,), (0o600,)))
            except OSError as error:
                raise not_made(self._journal, error) from error
            (fd,) = opened
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                pid = os.pread(fd, 100, 0).partition(b" ")[0].decode()
                raise in_use(self._journal, pid) from None
            except OSError as error:  # a network file system without locks
                raise not_made(self._journal, error) from error
            if is_at(fd, self._path):
                return
            os.close(opened.pop())  # the run before has deleted the file meanwhile

    def _read(self) -> tuple[str, int]:
        """The boot id and count that the last run wrote. Raises ValueError if the file is not one of a run."""
        written = os.pread(self._opened[0], 100, 0)
        text = written.decode(errors="replace").strip("\0")  # zeros after a power failure
        parts = text.partition("\n")[0].split()  # after it is what was there, if that was longer
        if len(parts) == 3 and len(parts[2]) == DIGITS and parts[2].isdecimal():
            return parts[1], int(parts[2])
        if text:
            raise not_ours(self._journal, self._path)
        return "", 0

    def note(self, count: int) -> None:
        """Write down how many batches the open journal holds."""
        self._is_new = False
        os.pwrite(self._opened[0], f"{os.getpid():<10} {self._boot} {count:0{DIGITS}}\n".encode(), 0)

    def release(self, in_order: bool) -> None:
        """Release the journal. ``in_order``: all that was committed is in the file itself, so no count is needed.

        Does nothing if it was not taken. Where a signal handler has raised in it, another call does the rest.
        """
        if _held.get(self._journal) is not self:
            return
        try:
            # Not a file of the next holder, if this was done before.
            if (in_order or self._is_new) and self._opened and is_at(self._opened[0], self._path):
                with suppress(FileNotFoundError):  # somebody else has deleted it
                    os.unlink(self._path)
        finally:
            try:
                # Should a thread still write: the number may soon be another file's.
                opened, self._opened = self._opened, []
                for fd in opened:
                    os.close(fd)  # frees all locks of this process on the file, that of the next holder too
            finally:
                _held.pop(self._journal, None)


def check_place(journal: str) -> None:
    """Raise ValueError if a journal's folder does not exist, its path is a folder, or a mode forbids the use of either."""
    if os.path.isdir(journal):
        raise ValueError(
            f"checkpoint must be a file, got {journal}: it is a folder; name a file in it, such as "
            f"{os.path.join(journal, 'run.journal')}"
        )
    folder = os.path.dirname(journal)
    if not os.path.isdir(folder):
        raise ValueError(f"checkpoint must be in a folder that exists, got {journal}: there is no {folder}")
    if os.path.exists(journal) and not os.access(journal, os.R_OK | os.W_OK):
        raise not_accessible(journal, "Permission denied")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise not_made(journal, f"{folder} is not writable")


def not_made(journal: str, error: object) -> ValueError:
    """The error for a place where no journal can be created."""
    why = error.strerror if isinstance(error, OSError) else error
    return ValueError(f"checkpoint must be where this program can make files, got {journal}: {why}")


def not_accessible(journal: str, why: object) -> ValueError:
    """The error for a journal that exists, but is out of reach."""
    return ValueError(f"checkpoint must be a file that this program can read and write, got {journal}: {why}")


def not_ours(journal: str, path: str) -> ValueError:
    """The error for a file of the user's that has a name which the journal needs."""
    return ValueError(
        f"checkpoint must leave the names beside it free, got {journal}: {path} is something else; "
        "give the checkpoint another name"
    )


def in_use(journal: str, pid: object) -> ValueError:
    """The error for a journal that another run is using; one that has just begun has not written its ``pid`` yet."""
    holder = f"process {pid}" if pid else "another process"
    return ValueError(f"checkpoint must not be in use by another run, got {journal}, used by {holder}")


def is_at(fd: int, path: str) -> bool:
    """Whether the path still names this open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def boot_id() -> str:
    """An id that changes with each boot of the machine; ``UNKNOWN`` where there is none (other systems than Linux)."""
    try:
        return read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return UNKNOWN
