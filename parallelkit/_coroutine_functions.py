"""Recognises coroutine functions; refuses them, generator functions and delayed ones, where they would not run."""

from __future__ import annotations

import sys
from functools import cache, partial
from types import CodeType, FunctionType
from typing import Any

from parallelkit._raised import attribute_or_none

# As in ``inspect``, whose import takes 7 ms.
CO_COROUTINE = 0x80
CO_ASYNC_GENERATOR = 0x200
GENERATORS = 0x20 | CO_ASYNC_GENERATOR

DELAYED = "delayed.<locals>.delayed_function"
"""The code of a function that ``delayed`` of joblib or scikit-learn has made."""


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling ``fn`` gives a coroutine: ``async def``, a method, a partial, or an object whose call is one.

    >>> async def fetch(url): ...
    >>> is_coroutine_function(partial(fetch, "https://example.org")), is_coroutine_function(len)
    (True, False)
    """
    # inspect.iscoroutinefunction would take three times as long, and does not look at an object's __call__.
    return bool(flags_of(fn) & CO_COROUTINE) or _is_marked(unwrapped(fn))


def _is_marked(fn: Any) -> bool:
    if sys.version_info >= (3, 12) and "inspect" in sys.modules:  # else nobody can have marked it
        name, value = _mark()
        return attribute_or_none(fn, name) is value
    return False


@cache
def _mark() -> tuple[str, object]:
    """The attribute that ``inspect.markcoroutinefunction`` sets, and its value."""
    import inspect

    ((name, value),) = vars(inspect.markcoroutinefunction(lambda: None)).items()  # type: ignore[attr-defined]  # from 3.12 on
    return name, value


def check_called(name: str, fn: Any) -> None:
    """Raise TypeError if what a run itself calls is asynchronous, which nobody would await, or yields, except for ``then``."""
    flags = flags_of(fn)
    if is_coroutine_function(fn) or flags & CO_ASYNC_GENERATOR:
        raise TypeError(f"{name} must not be defined by 'async def', since nobody would await it, got {fn!r}")
    if flags & GENERATORS and name != "then":  # which may yield new tasks
        raise TypeError(
            f"{name} must not be a generator function, whose call does not run its body, got {fn!r}"
        )


def unwrapped(fn: Any) -> Any:
    """The function inside of a partial, or of partials of partials; any other as it is."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def flags_of(fn: Any) -> int:
    """The ``co_flags`` of the code that a call runs; 0 where that is not Python's."""
    code = code_of(fn)
    return 0 if code is None else code.co_flags


def code_of(fn: Any) -> CodeType | None:
    """The code that a call runs; None where that is not Python's."""
    fn = unwrapped(fn)
    code = attribute_or_none(fn, "__code__")
    if not isinstance(code, CodeType):  # also where a proxy of a remote object has every attribute
        code = attribute_or_none(getattr(type(fn), "__call__", None), "__code__")  # noqa: B004  this is no callable()
    return code if isinstance(code, CodeType) else None


def _is_delayed(fn: Any, code: CodeType | None) -> bool:
    """Whether a call, which runs this code, only describes a call: ``delayed(fn)`` of joblib, scikit-learn or dask."""
    fn = unwrapped(fn)
    if code is not None and code.co_qualname == DELAYED:
        home = attribute_or_none(fn, "__globals__")  # its ``__module__`` is that of what it wraps
        return home is not None and str(home.get("__name__")).startswith(("joblib.", "sklearn."))
    return type(fn) is not FunctionType and attribute_or_none(type(fn), "__dask_graph__") is not None


async def awaited(made: Any) -> Any:
    """Wrap any awaitable in a coroutine."""
    return await made


def check_function(name: str, fn: Any, executor: Any) -> None:
    """Raise TypeError for what would not run: a generator or delayed function, or a coroutine function without an event loop."""
    code = code_of(fn)
    flags = 0 if code is None else code.co_flags
    if _is_delayed(fn, code):
        raise TypeError(
            f"{name} must not be wrapped in delayed, which only notes the call and does not make it, got {fn!r}; "
            "pass the function itself, or Task(f, x) for delayed(f)(x)"
        )
    if flags & GENERATORS:
        way = "a function that returns list(...) of what it gives"
        if flags & CO_ASYNC_GENERATOR:
            way = "a coroutine function that returns [item async for item in ...]"
        raise TypeError(
            f"{name} must not be a generator function, whose call does not run its body, got {fn!r}; pass {way}"
        )
    if executor != "threads" and is_coroutine_function(fn):
        shown = repr(executor) if isinstance(executor, str) else type(executor).__name__
        raise TypeError(
            f"{name} must not be a coroutine function under executor={shown}, got {fn!r}; "
            f"pass executor='threads', which runs it on an event loop"
        )
