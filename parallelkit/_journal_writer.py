"""Writes records into a journal, in batches, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from parallelkit._journal import Journal, Record

GATHER = 0.02  # seconds that the first record of a batch waits for more
MOST_ENTRIES, MOST_BYTES = 10_000, 64 << 20  # that may wait, before the run waits for the disk


class JournalWriter:
    """``put`` is for the run's thread. After an error, which ``failed`` is told, nothing is written any more."""

    def __init__(self, journal: Journal, failed: Callable[[Exception], None]) -> None:
        self._journal = journal
        self._failed = failed
        self._waiting: dict[str, Record] = {}
        self._bytes = 0
        self._lock = threading.Lock()  # not by way of the condition, whose ``with`` a Ctrl-C may leave locked
        self._changed = threading.Condition(self._lock)
        self._idle = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ended = False  # the thread has written all, or given up
        self._writing: threading.Thread | None = None  # who writes: the first to say so

    def put(self, records: Iterable[Record]) -> None:
        """Record these soon; waits where the disk does not follow."""
        with self._lock:
            if self._closing:
                return  # writing has failed, and the run is about to stop
            for record in records:
                self._waiting[record.key] = record
                self._bytes += len(record.payload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="parallelkit_journal", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the system has none to give, so that there is none to wait for
                    self._thread = None
                    raise
            if self._idle or self._is_full():
                self._changed.notify_all()
            while self._is_full() and not self._closing:
                self._changed.wait()

    def find(self, keys: Iterable[str]) -> dict[str, Record]:
        """What is not yet written of these. Look here first: what is not here any more is in the journal."""
        with self._lock:
            return {key: self._waiting[key] for key in keys if key in self._waiting} if self._waiting else {}

    def close(self) -> None:
        """Write what is left, and end the thread; where Ctrl-C has broken off its start, write without it."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        if self._claim():  # the thread has not come so far, and may never do
            self._write()
        else:
            # Before 3.13, a thread at whose join Ctrl-C comes is taken for ended from then on.
            with self._lock:
                self._changed.wait_for(lambda: self._ended)

    def _is_full(self) -> bool:
        return len(self._waiting) > MOST_ENTRIES or self._bytes > MOST_BYTES

    def _claim(self) -> bool:
        """Whether this thread is the one that writes."""
        with self._lock:
            self._writing = self._writing or threading.current_thread()
            return self._writing is threading.current_thread()

    # In the thread.

    def _work(self) -> None:
        if self._claim():
            try:
                self._write()
            finally:
                with self._lock:
                    self._ended = True
                    self._changed.notify_all()

    def _write(self) -> None:
        while batch := self._next_batch():
            try:
                self._journal.write(batch)
            except Exception as error:
                self._give_up(error)
                return
            self._forget(batch)

    def _next_batch(self) -> list[Record]:
        """What has gathered; empty when all is written and no more will come."""
        with self._lock:
            self._idle = True
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._idle = False
            self._changed.wait_for(lambda: self._closing or self._is_full(), GATHER)
            self._bytes = 0
            return list(self._waiting.values())

    def _forget(self, batch: list[Record]) -> None:
        with self._lock:
            for record in batch:
                if self._waiting[record.key] is record:
                    del self._waiting[record.key]
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._closing = True  # nobody waits for room any more
            self._waiting.clear()
            self._changed.notify_all()
        self._failed(error)
