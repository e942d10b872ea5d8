"""A job as a function of one item, the same for threads and for worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from parallelkit._star import check_unpacks, refuse_names

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any


def bind(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> Callable[[Any], Any]:
    """``fn`` with its further arguments; ``fn`` itself if there are none. Without ``fn``, each item is a ``Call``."""
    if fn is None:
        return lambda call: call[0](*call[1], *args, **keywords(call[2], kwargs))
    if star:
        return starred(fn, args, kwargs)
    if args or kwargs:
        return lambda item: fn(item, *args, **kwargs)
    return fn


def starred(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    """``fn``, called with the elements of an item as arguments."""

    def call(item: Any) -> Any:
        if isinstance(item, dict):
            refuse_names(item)
        try:
            return fn(*item, *args, **kwargs)
        except TypeError:
            check_unpacks(item)
            raise

    return call


def first(thing: object, after: object) -> object:
    """Unpickles a function that was packed with something after it (_executors/_process/_sharing.py)."""
    return thing


def keywords(own: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call that brings its own, which take precedence over those of the run."""
    return {**given, **own} if given else own
