"""Locks that a ``with`` gives back, whatever is raised and wherever: by a signal handler, or by a profile function that a task has set."""

from __future__ import annotations

import sys
from _thread import RLock

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    L = TypeVar("L")

LOSES = sys.version_info >= (3, 14)
"""Whether anything can be raised when ``with`` has taken a lock, and does not know so yet (issue 148874 of CPython)."""


class CarefulLock(RLock):  # type: ignore[misc]  # typeshed calls it final, CPython does not
    """Gives itself back if ``__enter__`` is cut off after it was taken. ``__exit__`` is RLock's own, which nothing cuts off.

    No signal handler runs between the end of an ``__enter__`` that is written in Python and the block.
    """

    def __enter__(self) -> bool:  # type: ignore[override]  # ``with`` passes no arguments
        count: Callable[[], int] = self._recursion_count  # type: ignore[attr-defined]  # private
        held = count()
        try:
            return self.acquire()
        except BaseException:
            if count() > held:
                self.release()
            raise


def careful(make: Callable[[], L]) -> L:
    """A lock as ``make`` makes it; a careful one in its place where a ``with`` might lose it, if it is Python's own."""
    lock = make()
    return CarefulLock() if LOSES and type(lock).__module__ == "_thread" else lock  # type: ignore[return-value]
