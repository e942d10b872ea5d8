"""Whether code is called by the garbage collector: its thread may hold any lock, so it must not wait for another."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from threading import Thread


class _Here(threading.local):
    """Whether this thread is collecting garbage: the collector reads the property that its phase names.

    All of this is code in C, which no signal handler interrupts. In a function in Python, the handlers of all signals
    that arrived during a collection would be called, and the KeyboardInterrupt that one raises be lost: the collector
    ignores errors of its callbacks.
    """

    collecting = False
    start = property(methodcaller("__setattr__", "collecting", True))
    stop = property(methodcaller("__setattr__", "collecting", False))


_here = _Here()
_note = partial(getattr, _here)  # called with the phase and, as the default of ``getattr``, its statistics


def watch() -> None:
    """Note every collection from now on. Idempotent."""
    if _note not in gc.callbacks:
        gc.callbacks.append(_note)


def is_collecting() -> bool:
    """Whether this thread is collecting garbage, so that this code is called by a finalizer."""
    return _here.collecting


class _Closing(Thread):
    """A thread that closes what the collector found."""


def do_freely(work: Callable[[], object]) -> None:
    """Do work that waits for other threads. In a finalizer, have a new thread do it, whose start waits for no lock."""
    if is_collecting() and not sys.is_finalizing():
        _Closing(target=work, name="parallelkit_closing", daemon=True).start()
    else:
        work()


def wait_apart() -> None:
    """Wait for the threads of ``do_freely``, before the interpreter exits and freezes them."""
    for thread in threading.enumerate():
        if isinstance(thread, _Closing):
            with suppress(RuntimeError):  # a daemon thread is starting it at this moment
                thread.join()
