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
