"""Which functions are coroutine functions, where they may not be passed, and why no generator function may."""

from __future__ import annotations

import inspect
from functools import partial
from types import CodeType
from typing import Any

MARK = getattr(inspect, "_is_coroutine_mark", object())  # inspect.markcoroutinefunction, from Python 3.12 on

GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling ``fn`` gives a coroutine: ``async def``, a method, a partial, or an object whose call is one.

    >>> async def fetch(url): ...
    >>> is_coroutine_function(partial(fetch, "https://example.org")), is_coroutine_function(len)
    (True, False)
    """
    # inspect.iscoroutinefunction would take three times as long, and knows no objects.
    return bool(flags_of(fn) & inspect.CO_COROUTINE) or _asked(unwrapped(fn), "_is_coroutine_mark") is MARK


def check_called(name: str, fn: Any) -> None:
    """Raise TypeError for a coroutine function where the run itself calls it: nobody would await what it gives."""
    if is_coroutine_function(fn):
        raise TypeError(f"{name} must not be a coroutine function, which nobody would await here, got {fn!r}")


def unwrapped(fn: Any) -> Any:
    """What a partial calls in the end."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def _asked(fn: Any, name: str) -> Any:
    try:
        return getattr(fn, name, None)
    except Exception:  # an object may answer by code of its own, and need not know such questions
        return None


def flags_of(fn: Any) -> int:
    """What is known of the code that a call runs; 0 where it is not Python's."""
    fn = unwrapped(fn)
    code = _asked(fn, "__code__")
    if not isinstance(code, CodeType):  # an object that stands for a remote one has whatever it is asked for
        code = _asked(getattr(type(fn), "__call__", None), "__code__")  # noqa: B004  not whether it can be called
    return code.co_flags if isinstance(code, CodeType) else 0


def check_function(name: str, fn: Any, executor: Any) -> None:
    """Raise TypeError for what would not run: a generator function, or a coroutine function without an event loop."""
    flags = flags_of(fn)
    if flags & GENERATORS:
        way = "a function that returns list(...) of what it gives"
        if flags & inspect.CO_ASYNC_GENERATOR:
            way = "a coroutine function that returns [item async for item in ...]"
        raise TypeError(
            f"{name} must not be a generator function, a call of which runs nothing of its body, got {fn!r}; pass {way}"
        )
    if executor != "threads" and is_coroutine_function(fn):
        shown = repr(executor) if isinstance(executor, str) else type(executor).__name__
        raise TypeError(
            f"{name} must not be a coroutine function under executor={shown}, got {fn!r}; "
            f"pass executor='threads', which runs it on an event loop"
        )
