"""An input that may be slow, read by a thread of its own, so that its consumer can tell whether taking would block.

Other input is read in the caller's thread: there a stream that waits for the next line of a pipe could
not yield the outcome of the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from parallelkit._conditions import Semaphore, Thread

AHEAD = 1024  # at most so many items are read and not yet taken


class Prefetch:
    """The items of a source, in order, then its error, if it raises one. ``start`` starts the thread that reads.

    The thread is a daemon, because nothing can end a read that blocks; a source that is not read to its end stays
    in use by it. For streams whose loop has a thread (not inline): only they wait for input and outcomes at once.

    >>> prefetch = Prefetch(iter("ab"))
    >>> prefetch.start()
    >>> list(prefetch)
    ['a', 'b']
    """

    def __init__(self, source: Iterator[Any]) -> None:
        self.wake: Callable[[], None] = lambda: None  # called when an item, or the end, has come
        self._source = source
        self._items: deque[Any] = deque()
        self._room = Semaphore(AHEAD)
        self._came = Semaphore(0)
        self._error: Exception | None = None
        self._ended = False
        self._closed = False

    def start(self) -> None:
        """Begin to read."""
        Thread(target=self._read, name="parallelkit_input", daemon=True).start()

    def _read(self) -> None:
        try:
            for item in self._source:
                self._items.append(item)
                self._tell()
                self._room.acquire()
                if self._closed:
                    return
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._tell()

    def _tell(self) -> None:
        self._came.release()
        self.wake()

    def available(self) -> int:
        """How many calls of ``next`` will not block; the end, or an error, counts as one."""
        ended = self._ended  # read first: once it is set, all items are there
        return len(self._items) + ended

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Any:
        self._came.acquire()
        if self._items:
            self._room.release()
            return self._items.popleft()
        self._came.release()  # the end stays the end
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Take no more: the thread ends after the item that it is reading."""
        self._closed = True
        self._room.release()
