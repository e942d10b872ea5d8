"""The garbage collector: whether it calls the code that asks, whose thread may hold any lock; and pauses of it."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from threading import RLock, Thread
from typing import TypeVar
from weakref import WeakValueDictionary

from parallelkit._locks import careful

T = TypeVar("T")


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


@atexit.register  # before ``_exit`` and ``_stream``, whose functions are called first and may need the notes
def _ignore_the_last() -> None:
    """Note no collection once the interpreter goes: the locals of gevent and eventlet raise by then, which is printed."""
    if _note in gc.callbacks:
        gc.callbacks.remove(_note)


def is_collecting() -> bool:
    """Whether this thread is collecting garbage, so that this code is called by a finalizer."""
    return _here.collecting


class _Pause:
    """Keeps the collector off as long as any thread needs that, and on afterwards if it was on before."""

    def __init__(self) -> None:
        self._lock = careful(RLock)  # reentrant: a finalizer may begin a pause of its own
        self._needs: list[object] = []
        self._was_on = False

    def begin(self, need: object) -> None:
        with self._lock:
            self._needs.append(need)
            if gc.isenabled():
                self._was_on = True
                gc.disable()

    def end(self, need: object) -> None:
        """Idempotent, also where a signal handler has raised in the midst of an earlier call."""
        with self._lock:
            others = [other for other in self._needs if other is not need]
            if self._was_on and not others:
                gc.enable()
                self._was_on = False
            self._needs = others

    def end_in_child(self) -> None:
        """In a forked child: the threads that would end their pauses are not there."""
        self._lock = careful(RLock)  # one of them may hold the old one
        if self._was_on:
            gc.enable()
        self._needs, self._was_on = [], False


_pause = _Pause()
os.register_at_fork(after_in_child=_pause.end_in_child)


def without_collector(work: Callable[[], T]) -> T:
    """Do work while no garbage is collected, in any thread."""
    need = object()
    try:
        # Ctrl-C may strike as this returns. On the way into a ``with`` it would leave the pause without an end.
        _pause.begin(need)
        return work()
    finally:
        try:
            _pause.end(need)
        finally:
            _pause.end(need)  # again, in case a signal handler has raised in the first


class _Closing(Thread):
    """A thread that closes what the collector found."""


def do_freely(work: Callable[[], object]) -> None:
    """Do work that waits for other threads. In a finalizer, have a new thread do it, whose start waits for no lock."""
    if is_collecting() and not sys.is_finalizing():
        _Closing(target=work, name="parallelkit_closing", daemon=True).start()
    else:
        work()


def living(registry: WeakValueDictionary[int, T]) -> list[T]:
    """What a registry still has, read at once: other threads may add to it meanwhile, at which an iteration would fail."""
    return [one for reference in registry.valuerefs() if (one := reference()) is not None]


def wait_apart() -> None:
    """Wait for the threads of ``do_freely``, before the interpreter exits and freezes them."""
    for thread in threading.enumerate():
        if isinstance(thread, _Closing):
            with suppress(RuntimeError):  # a daemon thread is starting it at this moment
                thread.join()
