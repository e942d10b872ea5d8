"""Whether code is called by the garbage collector: its thread may hold any lock, so it must not wait for another."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from threading import Thread, get_ident
from typing import Any

_threads: set[int] = set()  # the idents of those that are collecting garbage
os.register_at_fork(after_in_child=_threads.clear)


def watch() -> None:
    """Note every collection from now on. Idempotent."""
    if _note not in gc.callbacks:
        gc.callbacks.append(_note)


# As defaults, because garbage is still collected at shutdown, when the globals of all modules are gone.
def _note(phase: str, info: Any, threads: set[int] = _threads, ident: Callable[[], int] = get_ident) -> None:
    if phase == "start":
        threads.add(ident())
    else:
        threads.discard(ident())


def is_collecting() -> bool:
    """Whether this thread is collecting garbage, so that this code is called by a finalizer."""
    return get_ident() in _threads


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
