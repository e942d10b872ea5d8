"""The file beside a journal: the lock of the run that uses it, and a count of what that has committed.

Why there is such a file: docs/design/checkpoint.md.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress

from parallelkit._system import read

_held: set[str] = set()  # locks of one process do not exclude each other
_guard = threading.Lock()


class Claim:
    """The exclusive use of a journal. The kernel frees it with this process, however that ends.

    ``count`` is what an earlier run, which did not end in order, had committed since the machine was
    started; 0 where there was none. Raises ValueError where another run has the claim, or no file can be made.
    """

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._path = f"{journal}-run"
        with _guard:
            if journal in _held:
                raise in_use(journal, os.getpid())
            _held.add(journal)
        with ExitStack() as undo:
            undo.callback(_held.discard, journal)
            self._fd = self._lock()
            undo.callback(os.close, self._fd)
            self._boot = boot_id()
            try:
                boot, count = self._read()
                self._is_new = not boot
                self.count = count if boot == self._boot else 0
                self.note(self.count)
            except OSError as error:
                raise not_made(journal, error) from error
            undo.pop_all()  # all went well

    def _lock(self) -> int:
        import fcntl

        check_place(self._journal)
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise not_made(self._journal, error) from error
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                pid = os.pread(fd, 100, 0).partition(b" ")[0].decode()
                os.close(fd)
                raise in_use(self._journal, pid) from None
            if is_at(fd, self._path):
                return fd
            os.close(fd)  # it was taken away by the run before

    def _read(self) -> tuple[str, int]:
        """Boot and count of the run that had the claim last."""
        parts = os.pread(self._fd, 100, 0).decode(errors="replace").split()
        return (parts[1], int(parts[2])) if len(parts) == 3 and parts[2].isdecimal() else ("", 0)

    def note(self, count: int) -> None:
        """So much has been committed."""
        os.pwrite(self._fd, f"{os.getpid():<10} {self._boot} {count:020}\n".encode(), 0)

    def release(self, in_order: bool) -> None:
        """Give the journal free. ``in_order``: all that was committed is in it, so nobody need compare."""
        try:
            if in_order or self._is_new:
                with suppress(FileNotFoundError):  # somebody has tidied up
                    os.unlink(self._path)
        finally:
            _held.discard(self._journal)
            os.close(self._fd)


def check_place(journal: str) -> None:
    """Raise ValueError where a journal has no folder to be in, or is one itself."""
    if os.path.isdir(journal):
        raise ValueError(
            f"checkpoint must be a file, got {journal}: it is a folder; name a file in it, such as "
            f"{os.path.join(journal, 'run.journal')}"
        )
    folder = os.path.dirname(journal)
    if not os.path.isdir(folder):
        raise ValueError(f"checkpoint must be in a folder that exists, got {journal}: there is no {folder}")


def not_made(journal: str, error: Exception) -> ValueError:
    """Why there can be no journal in this place."""
    why = error.strerror if isinstance(error, OSError) else error
    return ValueError(f"checkpoint must be where this program can make files, got {journal}: {why}")


def in_use(journal: str, pid: object) -> ValueError:
    """Why a second run is refused."""
    return ValueError(f"checkpoint must not be in use by another run, got {journal}, used by process {pid}")


def is_at(fd: int, path: str) -> bool:
    """Whether an open file is still the one under this path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def boot_id() -> str:
    """Tells one start of the machine from the next, where the system says (Linux)."""
    try:
        return read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return "-"
