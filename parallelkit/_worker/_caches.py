"""Functions under ``functools.cache``, ``lru_cache`` or ``cached_property`` that workers cannot import: sent by value.

Their caches are not sent; the values of a ``cached_property`` lie in its objects, and travel with these. A function under
``singledispatch`` keeps what it has found in a ``WeakKeyDictionary``, and a class may keep its objects in a
``WeakValueDictionary``: these are sent with their present content. A function that was decorated with what a function under
``contextmanager`` returned has that, and its generator, which has not begun: another is made at the other end.
"""

from __future__ import annotations

import sys
from functools import _lru_cache_wrapper, cached_property, lru_cache, partialmethod, update_wrapper

from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from weakref import WeakKeyDictionary, WeakValueDictionary

CACHED = _lru_cache_wrapper


def reducers() -> dict[type, Callable[[Any], Any]]:
    """How a pickler is to reduce all these."""
    # Late: workers, which load this module, do not need them to start.
    from weakref import WeakKeyDictionary, WeakValueDictionary

    ours: dict[type, Callable[[Any], Any]] = {
        CACHED: reduce_cached,
        WeakKeyDictionary: reduce_weak,
        WeakValueDictionary: reduce_weak,
    }
    if sys.version_info < (3, 12):
        ours[cached_property] = reduce_property
    if sys.version_info >= (3, 14):
        ours[partialmethod] = reduce_partial
    return ours


def reduce_cached(cached: Any) -> Any:
    """For a pickler: the function's name if the other side can import it, else its parts.

    A recursive function refers to its own cache, so the wrapped function follows as state.
    """
    from cloudpickle import cloudpickle

    # cloudpickle takes ``__mp_main__`` for a module that can be imported.
    of_script = getattr(cached, "__module__", None) in NAMES
    if not of_script and cloudpickle._lookup_module_and_qualname(cached) is not None:
        return cached.__reduce__()
    kept = cached.cache_parameters()
    return _make, (kept["maxsize"], kept["typed"]), cached.__wrapped__, None, None, _fill


def _make(maxsize: int | None, typed: bool) -> Any:
    wrapped: Callable[..., Any] | None = None

    def call(*args: Any, **kwargs: Any) -> Any:
        assert wrapped is not None, "_fill comes before any call"
        return wrapped(*args, **kwargs)

    return lru_cache(maxsize, typed)(call)


def _fill(cached: Any, wrapped: Callable[..., Any]) -> None:
    (cell,) = cached.__wrapped__.__closure__
    cell.cell_contents = wrapped
    update_wrapper(cached, wrapped)


def reduce_property(cached: cached_property[Any]) -> Any:
    """For a pickler, before Python 3.12: without the lock, of which a new one is made at the other end."""
    return cached_property, (None,), {name: value for name, value in vars(cached).items() if name != "lock"}


def reduce_partial(method: partialmethod[Any]) -> Any:
    """For a pickler, since Python 3.14: made of any function, as its class refuses to make it of none; its own follows as state."""
    return partialmethod, (len,), vars(method)


def reduce_weak(table: WeakKeyDictionary[Any, Any] | WeakValueDictionary[Any, Any]) -> Any:
    """For a pickler: a table of the same entries. What nothing else refers to at the other end is gone there."""
    return type(table), (), None, None, iter(list(table.items()))


def send_managers(table: dict[type, Any]) -> None:
    """Have a pickler with this table send what functions under ``contextmanager`` return, or under one like it, such as opentelemetry's."""
    from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager

    for base in _GeneratorContextManager, _AsyncGeneratorContextManager:
        kinds: list[Any] = [base]
        for kind in kinds:
            if kind.__init__ is base.__init__:  # else it may be made of other things
                table.setdefault(kind, reduce_manager)
            kinds += type.__subclasses__(kind)


def reduce_manager(manager: Any) -> Any:
    """For a pickler: made anew, as a function that it decorates makes one for each call; one that was entered cannot be."""
    state = {name: value for name, value in vars(manager).items() if name != "gen"}
    if "func" not in state:
        return object.__reduce_ex__(manager, 4)
    return type(manager), (state["func"], state["args"], state["kwds"]), state
