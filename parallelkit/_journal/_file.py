"""The journal of a checkpoint: an SQLite file of outcomes by key, for one run at a time.

The format, and why it is what it is: docs/design/checkpoint.md.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from threading import Lock
from typing import Any

from parallelkit._interrupt import Guard
from parallelkit._journal._identity import difference
from parallelkit._journal._lock import JournalLock, not_accessible, not_made, not_ours
from parallelkit._locks import careful
from parallelkit._named_tuple import NamedTuple

APPLICATION = 0x706B6A6C  # "pkjl"
VERSION = 1
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
PRAGMA journal_mode = WAL;
CREATE TABLE journal (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE outcomes (
    key TEXT PRIMARY KEY, function TEXT, ok INTEGER NOT NULL, payload BLOB NOT NULL, crc INTEGER NOT NULL
) WITHOUT ROWID;
"""

PAGE = 4096
DRAFT = 3 * PAGE
"""Bytes of a journal of nothing."""

CHUNKS = (128, 16, 1)  # rows a statement: each statement releases the interpreter lock and must get it back

OF_THE_SYSTEM = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")
"""SQLite's names of errors that do not mean damage: the disk may be full, or another program may have locked the file."""


class Record(NamedTuple):
    """One outcome: key as text, identity of the function (None: the journal's own), whether it is a success, payload."""

    key: str
    function: str | None
    ok: bool
    payload: bytes

    @property
    def crc(self) -> int:
        """The checksum of all four."""
        head = f"{self.key}\0{self.function}\0{self.ok:d}\0"
        return zlib.crc32(self.payload, zlib.crc32(head.encode()))


class Journal:
    """A journal; ``open`` opens it. Raises ValueError, naming the file, if it is damaged, in use or another function's.

    ``function``: the identity of the function whose outcomes it holds. ``find`` is for one thread, ``write`` for another.
    """

    def __init__(self, path: str, function: str) -> None:
        self.path, self._function = path, function
        self._lock = JournalLock(path)
        self._connections: list[Any] = []
        self._busy = careful(Lock)  # what one thread uses must not be closed by another: Python may crash
        self._closed = False

    def open(self, guard: Guard = nullcontext, *, whole: bool = True) -> Journal:
        """Open it, and return this object. If anything is raised, it is closed.

        ``whole``: whether all records of an existing file are checked, which takes 2 s a million; ``guard`` is entered
        around that.
        """
        try:
            self._lock.take()
            with damage(self.path):
                if not os.path.lexists(self.path):
                    create(self.path, self._function, self._lock.count)
                self._writing, self._reading = self._connect(), self._connect()
                with guard():
                    self._check(self._function, whole)
        except BaseException:
            self._close(in_order=False)
            raise
        return self

    def _connect(self) -> Any:
        import sqlite3

        connect = partial(sqlite3.connect, isolation_level=None, check_same_thread=False)
        # One call opens and notes it, for a signal handler may raise after each.
        self._connections.extend(map(connect, (self.path,)))
        connection = self._connections[-1]
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _check(self, function: str, whole: bool) -> None:
        read = self._reading.execute
        if read("PRAGMA application_id").fetchone() != (APPLICATION,):
            raise damaged(self.path, "it is something else, or empty")
        if read("PRAGMA user_version").fetchone() != (VERSION,):
            raise damaged(self.path, "it is of another version of parallelkit")
        if read("PRAGMA journal_mode").fetchone() != ("wal",):
            raise damaged(self.path, "its file system cannot share memory between two connections")
        if whole:
            self._check_records()
        facts = dict(read("SELECT name, value FROM journal"))
        batches, recorded = facts.get("batches"), facts.get("function")
        if not (isinstance(batches, int) and isinstance(recorded, str)):
            raise damaged(self.path, "it does not say whose it is")
        if batches < self._lock.count:
            what = f"the last of {self._lock.count} batches are missing (in {self.path}-wal)"
            raise damaged(self.path, what)
        if (why := difference(recorded, function, "this run")) is not None:
            raise another_journal(self.path, why)
        self._batches = batches
        self._lock.note(batches)

    def _check_records(self) -> None:
        """Raise ValueError unless every record is whole, and in its place, so that a search finds it."""
        problems = self._reading.execute("PRAGMA quick_check(1)").fetchone()
        if problems != ("ok",):
            raise damaged(self.path, problems[0])
        before = ""
        for key, function, ok, payload, crc in self._reading.execute(
            "SELECT key, function, ok, payload, crc FROM outcomes"
        ):
            if not (isinstance(key, str) and key > before and isinstance(payload, bytes)):
                raise damaged(self.path, f"there is something wrong with the record of {key!r}")
            if Record(key, function, ok == 1, payload).crc != crc:
                raise damaged(self.path, f"the record of {key} is not as it was written")
            before = key

    def find(self, keys: Sequence[str]) -> Iterator[Record]:
        """Yield the records of those keys that have one; 1.5 µs a key."""
        with damage(self.path):
            for chunk in chunks(keys):
                marks = ",".join("?" * len(chunk))
                found = self._reading.execute(
                    f"SELECT key, function, ok, payload FROM outcomes WHERE key IN ({marks})", chunk
                )
                for key, function, ok, payload in found.fetchall():
                    yield Record(key, function, ok == 1, payload)

    def write(self, records: Sequence[Record]) -> None:
        """Write all records or none; each replaces an earlier one of its key. Once this returns, a kill loses none."""
        with self._busy:
            if self._closed:
                raise InterruptedError("the run that was to wait for it was interrupted again")
            self._write(records)

    def _write(self, records: Sequence[Record]) -> None:
        os.stat(self.path)  # raises if it was deleted: SQLite would go on, in a file that nobody finds again
        write = self._writing.execute
        write("BEGIN IMMEDIATE")
        try:
            for chunk in chunks(records):
                marks = ",".join(["(?,?,?,?,?)"] * len(chunk))
                values = [value for record in chunk for value in (*record, record.crc)]
                write(f"INSERT OR REPLACE INTO outcomes VALUES {marks}", values)
            write("UPDATE journal SET value = value + 1 WHERE name = 'batches'")
            write("COMMIT")
        except BaseException:
            if self._writing.in_transaction:
                write("ROLLBACK")
            raise
        self._batches += 1
        self._lock.note(self._batches)

    def close(self) -> None:
        """Merge the write-ahead log into the journal, and release it. Idempotent."""
        self._close(in_order=True)

    def _close(self, in_order: bool) -> None:
        merged = False
        try:
            with self._busy, ExitStack() as open_ones:
                self._closed = True
                for connection in self._connections:
                    open_ones.callback(connection.close)
            # If another connection is open, SQLite keeps the log, and so the count is needed.
            merged = not os.path.exists(f"{self.path}-wal")
        finally:  # even if a second Ctrl-C comes: the next run, in this process too, must find the journal free
            self._lock.release(in_order and merged)


def create(path: str, function: str, count: int) -> None:
    """Create a journal that is complete from the moment it exists; ``count`` is that of the lock."""
    if count or os.path.lexists(f"{path}-wal"):
        rest = ", ".join(f"{path}{end}" for end in ("-wal", "-shm", "-run"))
        raise damaged(path, f"the file is gone, but not what belongs to it; to start anew, delete {rest}")
    import sqlite3

    draft = f"{path}-new"
    if not is_draft(draft):
        raise not_ours(path, draft)
    try:
        discard(draft)  # left by a run that was killed at this point
        with open(draft, "xb", opener=partial(os.open, mode=0o600)) as file:
            with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
                connection.executescript(f"PRAGMA synchronous = OFF; {SCHEMA}")
                facts = [("function", function), ("batches", 0)]
                connection.executemany("INSERT INTO journal VALUES (?, ?)", facts)
            os.fsync(file)  # once; SQLite would wait for the disk nineteen times
        os.rename(draft, path)
    except BaseException as error:
        with suppress(OSError):
            discard(draft)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise not_made(path, error) from error
        raise  # Ctrl-C, say


def is_draft(path: str) -> bool:
    """Whether a file is missing, empty or a journal of nothing: what a run leaves that is killed as it makes its own."""
    import sqlite3

    try:
        with open(path, "rb") as file:
            start = file.read(DRAFT + 1)
        if not start[:PAGE].strip(b"\0"):  # zeros after a power failure
            return True
        if start[68:72] != APPLICATION.to_bytes(4, "big") or os.path.exists(f"{path}-run"):
            return False  # no journal, or that of a run
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'outcomes'").fetchall()
            return not tables or connection.execute("SELECT 1 FROM outcomes").fetchone() is None
    except FileNotFoundError:
        return True
    except OSError:
        return False
    except sqlite3.Error:  # a power failure may have left zeros, or nothing, in place of any page
        pages = (start[at : at + PAGE] for at in range(0, DRAFT, PAGE))
        return len(start) <= DRAFT and not all(page.strip(b"\0") for page in pages)


def discard(draft: str) -> None:
    """Delete a draft, and what SQLite has put beside it."""
    for leftover in (draft, f"{draft}-wal", f"{draft}-shm"):
        if os.path.lexists(leftover):
            os.unlink(leftover)


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Turn an error of SQLite in this block into one that names the file, and says whether that is damaged."""
    import sqlite3

    try:
        yield
    except (sqlite3.Error, UnicodeError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(OF_THE_SYSTEM):
            raise not_accessible(path, f"{error} ({name})") from error
        raise damaged(path, str(error)) from error


def damaged(path: str, what: object) -> ValueError:
    """The error for a file that is damaged, or no journal."""
    return ValueError(f"checkpoint must be a whole journal of parallelkit, got {path}: {what}")


def another_journal(path: str, why: str) -> ValueError:
    """The error for the journal of another function."""
    return ValueError(f"checkpoint must be a journal of the same function, got {path}: {why}")


def another_function(path: str, key: str, why: str) -> ValueError:
    """The error for the record of another function."""
    rule = "checkpoint must have an outcome of the same function under a key"
    return ValueError(f"{rule}, got {path}, key {key}: {why}")


def chunks(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """All rows, in chunks of only a few sizes, so that only a few statements are prepared."""
    at = 0
    for size in CHUNKS:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size
