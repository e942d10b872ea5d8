"""Whether the collector has called: the thread may then hold any lock, ours or the caller's, and must wait for nobody."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from threading import Thread, get_ident
from typing import Any

_threads: set[int] = set()  # those that are collecting garbage
os.register_at_fork(after_in_child=_threads.clear)


def watch() -> None:
    """From now on, know of every collection. Idempotent."""
    if _note not in gc.callbacks:
        gc.callbacks.append(_note)


# Defaults, because garbage is collected even when the globals of all modules are gone.
def _note(phase: str, info: Any, threads: set[int] = _threads, ident: Callable[[], int] = get_ident) -> None:
    if phase == "start":
        threads.add(ident())
    else:
        threads.discard(ident())


def is_collecting() -> bool:
    """Whether this thread is collecting garbage, and so runs a finalizer."""
    return get_ident() in _threads


class _Closing(Thread):
    """A thread that closes what the collector has found."""


def do_freely(work: Callable[[], object]) -> None:
    """Do what waits for others: where the collector has called, in a thread of its own, which needs no lock to begin."""
    if is_collecting() and not sys.is_finalizing():
        _Closing(target=work, name="parallelkit_closing", daemon=True).start()
    else:
        work()


def wait_apart() -> None:
    """Wait until what is being done apart is done: at exit, which would freeze those threads."""
    for thread in threading.enumerate():
        if isinstance(thread, _Closing):
            with suppress(RuntimeError):  # it is being started at this moment, by a daemon thread
                thread.join()
