"""At interpreter exit, wait for the calls that were submitted to executors, as the standard pools do."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from parallelkit._collector import living, wait_apart


class Unfinished(Protocol):
    """Something with work to finish: an executor's dispatcher."""

    def shut(self, cancel_futures: bool, stop: bool = False) -> None:
        """Take no more work; ``stop``: cut off what is under way, as far as that can be done."""

    def join(self) -> None:
        """Wait until all work is done."""


FIRST = 100  # priority among the finalizers of multiprocessing: before it closes its own queues and pools

_child = 0  # the child of multiprocessing that has been told to wait
_exiting = False
_unfinished: WeakValueDictionary[int, Unfinished] = WeakValueDictionary()  # by their ``id``


def finish_at_exit(one: Unfinished) -> None:
    """At exit, wait for this one if it still exists."""
    _unfinished[id(one)] = one


def finish_at_child_exit() -> None:
    """Also wait at the end of a child of multiprocessing: a forked one calls no function of ``atexit`` before Python 3.13."""
    global _child
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None and _child != os.getpid():
        from multiprocessing.util import Finalize

        _child = os.getpid()
        Finalize(None, _finish_all, exitpriority=FIRST)


def is_exiting() -> bool:
    """Whether the interpreter is exiting."""
    return _exiting


def _is_interrupted() -> bool:
    """Whether Ctrl-C ends the program or, as far as can be told before Python 3.13, the child of multiprocessing."""
    kind = sys.exc_info()[0] or getattr(sys, "last_type", None)
    # At a prompt, it may have been pressed lines ago.
    return isinstance(kind, type) and issubclass(kind, KeyboardInterrupt) and not hasattr(sys, "ps1")


def _finish_all() -> None:
    global _exiting
    _exiting = True
    unfinished = living(_unfinished)
    for one in unfinished:
        _unfinished.pop(id(one), None)  # once: if Ctrl-C ends the wait for it, nobody waits again
    if _is_interrupted():
        for one in unfinished:  # first, for the calls of one may wait for those of another
            one.shut(False, stop=True)
    for one in unfinished:
        one.shut(False)
        one.join()
    wait_apart()  # for executors that the garbage collector found, and that close in threads of their own


def _finish_before_others() -> None:
    """Finish all, and let other exit handlers open executors of their own."""
    global _exiting
    _finish_all()
    _exiting = False


atexit.register(_finish_all)
with suppress(RuntimeError):  # the interpreter is exiting already
    # Called as the main thread ends. What is registered last is called first: the calls are done before other exit handlers take away
    # what they use (the folder of a TemporaryDirectory, a connection), but after the threads have ended that may submit more.
    threading._register_atexit(partial(atexit.register, _finish_before_others))  # type: ignore[attr-defined]  # not in typeshed
