"""What threads share without a lock of their own, in interpreters without a global lock too: copies of deques, and numbers.

Steps of deques, lists, dicts and sets are atomic in both; but not to iterate over a deque that changes, nor to draw from an iterator.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import count
from threading import RLock
from typing import TypeVar

from parallelkit._locks import careful

T = TypeVar("T")

FREE_THREADED = "t" in sys.abiflags
"""Whether this interpreter is built to run without a global lock."""


def snapshot(things: deque[T]) -> list[T]:
    """A copy of a deque that other threads change. Each try that fails is another thread's progress."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # mutated during iteration
            pass


class Numbers:
    """Numbers that no two threads are given."""

    def __init__(self, first: int = 0) -> None:
        self._lock = careful(RLock)  # reentrant: a finalizer may draw one while another is drawn
        self._next = count(first)

    def draw(self) -> int:
        """The next one."""
        with self._lock:
            return next(self._next)
