"""Writes records to a journal, in batches, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from parallelkit._conditions import Condition, Thread
from parallelkit._journal._file import Journal, Record
from parallelkit._raised import is_of_signal

GATHER = 0.02  # seconds that the first record of a batch waits for more
MOST_ENTRIES, MOST_BYTES = 10_000, 64 << 20  # that may be waiting before ``put`` blocks


class JournalWriter:
    """Records go in by ``put``, in the run's thread. After an error, passed to ``failed``, no more are written."""

    def __init__(self, journal: Journal, failed: Callable[[Exception], None]) -> None:
        self._journal = journal
        self._failed = failed
        self._waiting: dict[str, Record] = {}
        self._bytes = 0
        self._changed = Condition()
        self._idle = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ended = False  # the thread has written all, or given up
        self._writing: threading.Thread | None = None  # the one thread that writes: the first to claim it

    def put(self, records: Iterable[Record]) -> None:
        """Queue these records; blocks while too much is waiting for the disk. Writes them if there can be no thread."""
        with self._changed:
            if self._closing:
                return  # writing has failed, and the run is about to stop
            for record in records:
                self._waiting[record.key] = record
                self._bytes += len(record.payload)
            if self._has_thread():
                if self._idle or self._is_full():
                    self._changed.notify_all()
                while self._is_full() and not self._closing:
                    self._changed.wait()
                return
            batch = self._take()
        self._save(batch)

    def _has_thread(self) -> bool:
        """Start the thread, if there is none yet; return False if the system has none left, which the next records may change."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="parallelkit_journal", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                if is_of_signal(error):
                    raise
                self._thread = None
        return self._thread is not None

    def find(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records of these keys that are not written yet. Ask here first, since they move from here to the journal."""
        with self._changed:
            return {key: self._waiting[key] for key in keys if key in self._waiting} if self._waiting else {}

    def close(self) -> None:
        """Write what is left, and end the thread; if Ctrl-C broke off its start, write in this thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        if self._claim():  # the thread has not begun to write, and may never do
            self._write()
        else:
            # Before 3.13, a thread counts as ended once Ctrl-C has interrupted a join of it.
            with self._changed:
                self._changed.wait_for(lambda: self._ended)

    def _is_full(self) -> bool:
        return len(self._waiting) > MOST_ENTRIES or self._bytes > MOST_BYTES

    def _claim(self) -> bool:
        """Claim the writing for this thread; return whether it has it."""
        with self._changed:
            self._writing = self._writing or threading.current_thread()
            return self._writing is threading.current_thread()

    # In the thread.

    def _work(self) -> None:
        if self._claim():
            try:
                self._write()
            finally:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()

    def _write(self) -> None:
        while batch := self._next_batch():
            if not self._save(batch):
                return

    def _save(self, batch: list[Record]) -> bool:
        try:
            self._journal.write(batch)
        except Exception as error:
            self._give_up(error)
            return False
        self._forget(batch)
        return True

    def _next_batch(self) -> list[Record]:
        """Wait for records, and return what has gathered; empty when all is written and no more will come."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._idle = False
            self._changed.wait_for(lambda: self._closing or self._is_full(), GATHER)
            return self._take()

    def _take(self) -> list[Record]:
        self._bytes = 0
        return list(self._waiting.values())

    def _forget(self, batch: list[Record]) -> None:
        with self._changed:
            for record in batch:
                if self._waiting[record.key] is record:
                    del self._waiting[record.key]
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            self._closing = True  # so that nobody waits for room any more
            self._waiting.clear()
            self._changed.notify_all()
        self._failed(error)
