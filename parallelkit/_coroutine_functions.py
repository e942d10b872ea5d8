"""Which functions are coroutine functions, and where they may not be passed."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

MARK = getattr(inspect, "_is_coroutine_mark", object())  # inspect.markcoroutinefunction, from Python 3.12 on


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling ``fn`` gives a coroutine: ``async def``, a method, a partial, or an object whose call is one.

    >>> async def fetch(url): ...
    >>> is_coroutine_function(partial(fetch, "https://example.org")), is_coroutine_function(len)
    (True, False)
    """
    # inspect.iscoroutinefunction would take three times as long, and knows no objects.
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    if code is None:
        code = getattr(getattr(type(fn), "__call__", None), "__code__", None)  # noqa: B004  not whether it can be called
    return bool(getattr(code, "co_flags", 0) & inspect.CO_COROUTINE) or (
        getattr(fn, "_is_coroutine_mark", None) is MARK
    )


def check_plain(name: str, fn: Any, executor: Any) -> None:
    """Raise TypeError for a coroutine function under an executor that has no event loop."""
    if is_coroutine_function(fn):
        shown = repr(executor) if isinstance(executor, str) else type(executor).__name__
        raise TypeError(
            f"{name} must not be a coroutine function under executor={shown}, got {fn!r}; "
            f"pass executor='threads', which runs it on an event loop"
        )
