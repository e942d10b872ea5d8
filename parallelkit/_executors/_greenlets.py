"""Tells where gevent or eventlet, by monkey patching, has made greenlets of threads."""

from __future__ import annotations

import _thread

_LIBRARIES = ("gevent", "eventlet")


def patched_by() -> str | None:
    """Which of the two has done so; None where threads are threads."""
    library = _thread.allocate_lock.__module__.partition(".")[0]
    return library if library in _LIBRARIES else None


def check_lock(allocate_lock: object) -> None:
    """Raise RuntimeError where this made locks of threads before, and makes none of greenlets."""
    library = patched_by()
    if library and _thread.allocate_lock is not allocate_lock:
        raise RuntimeError(
            f"{library} has made greenlets of threads after parallelkit was loaded, whose locks would hold up all of them "
            "for ever: have it patch first, before anything that imports parallelkit is imported"
        )
