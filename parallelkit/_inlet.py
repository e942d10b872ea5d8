"""An input that may be slow, read by a thread of its own: whoever takes from it can see whether it would wait.

Input is otherwise read in the caller's thread, where a stream that waits for the next line of a pipe
cannot yield the outcome of the last.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

AHEAD = 1024  # items that are read and not taken


class Inlet:
    """Items in their order; an error of the source comes in its place. The thread begins with ``start``.

    It is a daemon, for nothing can end a read that waits; a source that is not read to its end is the
    thread's to the end. For streams whose loop has a thread (not inline): only they wait for both.

    >>> inlet = Inlet(iter("ab"))
    >>> inlet.start()
    >>> list(inlet)
    ['a', 'b']
    """

    def __init__(self, source: Iterator[Any]) -> None:
        self.wake: Callable[[], None] = lambda: None  # is called when something has come
        self._source = source
        self._items: deque[Any] = deque()
        self._room = threading.Semaphore(AHEAD)
        self._came = threading.Semaphore(0)
        self._error: Exception | None = None
        self._ended = False
        self._closed = False

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="parallelkit_input", daemon=True).start()

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
        """How often ``next`` will not wait; the end, or an error, counts as one."""
        ended = self._ended  # looked at first: what came before the end is there then
        return len(self._items) + ended

    def __iter__(self) -> Inlet:
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
        """Nobody will take any more: the thread ends after the item at which it is."""
        self._closed = True
        self._room.release()
