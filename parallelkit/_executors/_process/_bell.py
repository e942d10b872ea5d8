"""A descriptor by which any thread wakes one that waits for descriptors."""

from __future__ import annotations

import os
from threading import RLock


class Bell:
    """Locked, lest somebody ring when it is closed and its number is another file's."""

    def __init__(self) -> None:
        self._lock = RLock()  # a finalizer that rings may come in the midst of it
        self._closed = True
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False

    def hear(self) -> None:
        """Take note that it rang."""
        os.eventfd_read(self.fd)

    def ring(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)

    def __del__(self) -> None:
        self.close()  # of an engine that Ctrl-C kept from being made
