"""Detects whether gevent or eventlet has replaced threads by greenlets (monkey patching)."""

from __future__ import annotations

import _thread

_LIBRARIES = ("gevent", "eventlet")


def patched_by() -> str | None:
    """The library that has done so; None if threads are real threads."""
    library = _thread.allocate_lock.__module__.partition(".")[0]
    return library if library in _LIBRARIES else None


def check_lock(allocate_lock: object) -> None:
    """Raise RuntimeError if ``allocate_lock`` was imported before the patching: its locks would block all greenlets."""
    library = patched_by()
    if library and _thread.allocate_lock is not allocate_lock:
        raise RuntimeError(
            f"{library} has turned threads into greenlets after parallelkit was loaded, whose locks would block all greenlets "
            "for ever: let it patch first, before anything imports parallelkit"
        )
