"""Tasks whose outcome is known before they start: hits of a ``joblib.Memory``, and what else remembers.

They take no worker and no token of a limit: the scheduler settles them as they are admitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from parallelkit._lost import Lost
from parallelkit._marks import UNSET
from parallelkit._portion import Portion
from parallelkit._raised import is_of_signal
from parallelkit._worker._call import keywords


class Recalled(NamedTuple):
    """An outcome from before; ``lost`` where it is a failure. ``source`` stands in its outcome as the worker."""

    value: Any
    source: str
    lost: Lost | None = None


class Recall(Protocol):
    """What remembers outcomes."""

    def __call__(self, portion: Portion, first: int) -> Mapping[int, Recalled]:
        """The known outcomes among tasks about to be admitted, by offset; ``first`` is their first index."""


class MemoryRecall:
    """Answers calls of functions that ``joblib.Memory`` caches, from its store.

    A call that is not in the store, or whose entry cannot be read, is a task like any other; the
    worker that runs it writes the store.
    """

    def __init__(
        self, fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
    ) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._star = star

    def __call__(self, portion: Portion, first: int) -> dict[int, Recalled]:
        known = {}
        for offset, item in enumerate(portion.items):
            fn, args, kwargs = self._call_of(item)
            if is_cached(fn):
                value = self._look_up(fn, args, kwargs)
                if value is not UNSET:
                    known[offset] = Recalled(value, "cache")
        return known

    def _call_of(self, item: Any) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
        if self._fn is None:
            fn, args, kwargs = item
            return fn, (*args, *self._args), keywords(kwargs, self._kwargs)
        return self._fn, (*(item if self._star else (item,)), *self._args), self._kwargs

    def _look_up(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            if not fn.check_call_in_cache(*args, **kwargs):
                return UNSET
            # Unlike a plain call, this cannot end in computing the value here, in the parent.
            return fn.call_and_shelve(*args, **kwargs).get()
        except Exception as error:  # of arguments or a damaged entry: the worker says so, or makes it anew
            if is_of_signal(error):
                raise
            return UNSET


def is_cached(fn: Any) -> bool:
    """Whether ``joblib.Memory`` caches this function; joblib is not imported to find out."""
    memory = sys.modules.get("joblib.memory")
    return memory is not None and isinstance(fn, memory.MemorizedFunc)


def memory_recall(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> MemoryRecall | None:
    """What answers cached calls of this run; None where there can be none."""
    may_be = is_cached(fn) if fn is not None else "joblib.memory" in sys.modules
    return MemoryRecall(fn, args, kwargs, star) if may_be else None
