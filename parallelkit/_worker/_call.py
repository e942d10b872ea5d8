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
    return suggesting(call) if lacks_arguments(fn, args, kwargs) else call


def lacks_arguments(fn: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether no call of the function with an item and these arguments can succeed, because it requires more.

    >>> lacks_arguments(lambda a, b: a, (), {}), lacks_arguments(lambda a, b: a, (), {"b": 1})
    (True, False)
    """
    if type(fn) is not FunctionType:
        return False
    code = fn.__code__
    required = code.co_varnames[: code.co_argcount - len(fn.__defaults__ or ())]
    return any(name not in kwargs for name in required[1 + len(args) :])


def suggesting(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A call that ``lacks_arguments``; a note on its error says how an item becomes several."""

    def attempt(item: Any) -> Any:
        try:
            return call(item)
        except TypeError as error:
            add_note(error, UNPACK)
            raise

    return attempt


def keywords(own: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call that brings its own, which take precedence over those of the run."""
    return {**given, **own} if given else own
