"""Detects whether gevent or eventlet has replaced threads by greenlets (monkey patching)."""

from __future__ import annotations

import _thread

_LIBRARIES = ("gevent", "eventlet")


def patched_by() -> str | None:
    """The library that has done so; None if threads are real threads."""
    library = _thread.allocate_lock.__module__.partition(".")[0]
    return library if library in _LIBRARIES else None


def refuse_late_patching() -> None:
    """Raise RuntimeError if there was patching; the caller has imported ``allocate_lock`` before that."""
    library = patched_by()
    if library:
        raise RuntimeError(
            f"{library} has turned threads into greenlets after parallelkit was loaded, whose locks would block all greenlets "
            "for ever: let it patch first, before anything imports parallelkit"
        )


def refuse_deaf_pool(executor: object) -> None:
    """Raise RuntimeError if this is gevent's own pool and threads are real: its futures are done only while gevent's loop runs."""
    if not patched_by() and any(kind.__module__ == "gevent.threadpool" for kind in type(executor).__mro__):
        raise RuntimeError(
            f"executor must not be gevent's {type(executor).__name__} where gevent has not patched threads: the run would keep "
            "gevent's loop from telling that a call is done, and wait for ever; use executor='threads', or let gevent patch first"
        )
