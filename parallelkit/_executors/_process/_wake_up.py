"""A descriptor with which any thread wakes one that waits in ``epoll``."""

from __future__ import annotations

import os
from threading import RLock


class WakeUp:
    """An eventfd with a lock, so that nobody writes to it once it is closed, when its number may be another file's."""

    def __init__(self) -> None:
        self._lock = RLock()  # reentrant: a finalizer may call ``set`` while this thread does
        self._closed = True
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False

    def clear(self) -> None:
        """Reset it once the thread is awake."""
        os.eventfd_read(self.fd)

    def set(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)

    def __del__(self) -> None:
        self.close()  # Ctrl-C may have kept its engine from being made
