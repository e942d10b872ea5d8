"""What threads wait on, and threads, as of ``threading``, but whole wherever a signal handler raises.

Of Python's own, a lock stays taken if that happens at an end of their ``with``, so that other threads wait for ever. If it happens
just as ``wait`` has given the lock back, RuntimeError takes the place of what was raised.
"""

from __future__ import annotations

import sys
import threading
from itertools import starmap
from typing import Any

from parallelkit._locks import careful


class Condition(threading.Condition):
    """One with a reentrant lock, whose ``with`` is its own."""

    def __init__(self) -> None:
        super().__init__(careful(threading.RLock))

    __enter__ = property(lambda self: self._lock.__enter__)  # looked up before the lock is taken
    __exit__ = property(lambda self: self._lock.__exit__)  # the same

    def wait(self, timeout: float | None = None) -> bool:
        """As that of ``threading``, but whatever is raised, the lock is held as often as before."""
        own: Any = self  # for what type checkers do not know
        if not own._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = threading.Lock()
        waiter.acquire()
        saved: list[Any] = []
        notified = False
        try:
            own._waiters.append(waiter)
            saved.extend(starmap(own._release_save, ((),)))  # in one call, for a handler may raise after each
            notified = waiter.acquire(timeout=-1 if timeout is None else max(timeout, 0))
            return notified
        finally:
            try:
                if saved:
                    own._acquire_restore(saved[0])
            finally:  # one that is left would take a ``notify`` from another
                if not notified and waiter in own._waiters:
                    own._waiters.remove(waiter)


class Event(threading.Event):
    """One on such a condition."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = Condition()


class Semaphore(threading.Semaphore):
    """One on such a condition."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self._cond = Condition()


class Thread(threading.Thread):
    """One whose ``start`` leaves no lock held if a signal handler raises out of it. Then it may begin, or not.

    And one that is alive as long as it runs: before Python 3.13, it was no more once a handler had raised in ``is_alive`` or ``join``.

    If what is raised is an ``Exception``, Python may end the thread before it begins, with a KeyError that it prints.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._started = Event()

    def start(self) -> None:
        """As that of ``threading``, but what a handler raises comes out of it as it is."""
        try:
            super().start()
            return
        except KeyError as error:
            # Python wanted to take this thread off the list of those that have yet to begin, and it has begun.
            if error.args != (self,) or error.__context__ is None:
                raise
            raised = error.__context__
        raise raised

    if sys.version_info < (3, 13):

        def _wait_for_tstate_lock(self, block: bool = True, timeout: float = -1) -> None:
            """As that of ``threading``, but the lock, which the thread holds while it runs, is released only if it was taken."""
            own: Any = self
            lock, taken = own._tstate_lock, list[bool]()
            if lock is None:
                return
            try:
                taken.extend(starmap(lock.acquire, ((block, timeout),)))  # in one call, as above
            finally:
                if taken and taken[0]:  # without a call, after which a handler may raise
                    lock.release()
                    own._stop()
