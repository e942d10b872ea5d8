"""A job as a function of one item, the same for threads and for worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType

from parallelkit._raised import add_note
from parallelkit._star import starred

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

UNPACK = "an item is one argument: star=True unpacks a tuple into several, and lambda item: fn(**item) a dict"
ALONE = "every item is passed to the function; to call one without arguments n times, write run_parallel([fn] * n)"
VARARGS = 0x04  # inspect.CO_VARARGS, without its import


def bind(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> Callable[[Any], Any]:
    """``fn`` with its further arguments; ``fn`` itself if there are none.

    Without ``fn``, each item is a ``Call``, or ends with what one consists of (_call_functions.py).
    """
    if fn is None:
        return lambda call: call[-3](*call[-2], *args, **keywords(call[-1], kwargs))
    if star:
        return starred(fn, args, kwargs)
    call = (lambda item: fn(item, *args, **kwargs)) if args or kwargs else fn
    hint = misfit(fn, args, kwargs)
    return suggesting(call, hint) if hint else call


def misfit(fn: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What to write if no call of the function with an item and these arguments can succeed; else nothing.

    >>> misfit(lambda a, b: a, (), {}) == UNPACK, misfit(lambda: 1, (), {}) == ALONE
    (True, True)
    >>> misfit(lambda a, b: a, (), {"b": 1}), misfit(lambda *a: a, (), {})
    ('', '')
    """
    if type(fn) is not FunctionType:
        return ""
    code = fn.__code__
    if not code.co_argcount and not code.co_flags & VARARGS:
        return ALONE
    required = code.co_varnames[: code.co_argcount - len(fn.__defaults__ or ())]
    return UNPACK if any(name not in kwargs for name in required[1 + len(args) :]) else ""


def suggesting(call: Callable[[Any], Any], hint: str) -> Callable[[Any], Any]:
    """A call that cannot succeed; a note on its error is the hint."""

    def attempt(item: Any) -> Any:
        try:
            return call(item)
        except TypeError as error:
            add_note(error, hint)
            raise

    return attempt


def keywords(own: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call that brings its own, which take precedence over those of the run."""
    return {**given, **own} if given else own
