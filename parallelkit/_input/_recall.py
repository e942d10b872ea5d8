"""Outcomes that are known before their tasks start, such as hits of a ``joblib.Memory``.

Their tasks are settled when they are admitted, and take neither a worker nor a start of a rate limit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any, Protocol

from parallelkit._executors._contract import Block, as_block
from parallelkit._input._portion import Portion
from parallelkit._lost import Lost
from parallelkit._marks import UNSET
from parallelkit._named_tuple import NamedTuple
from parallelkit._raised import is_of_signal
from parallelkit._worker._call import keywords


class Recalled(NamedTuple):
    """A known outcome; a failure if ``lost`` is not None. ``source`` is the ``worker`` in its outcome."""

    value: Any
    source: str
    lost: Lost | None = None


class Recall(Protocol):
    """A source of known outcomes."""

    def __call__(self, portion: Portion, first: int) -> Mapping[int, Recalled]:
        """The known outcomes among tasks about to be admitted, by offset; ``first`` is their first index."""


def parted(known: Mapping[int, Recalled], first: int, now: float) -> Iterator[tuple[dict[int, Lost], Block]]:
    """Known outcomes, in their order, as ``Scheduler.recall`` takes them: either failures by index, or values in a block."""
    for ok, some in groupby(known.items(), lambda item: item[1].lost is None):
        if ok:
            yield {}, as_block((first + offset, one.value, now, now, one.source) for offset, one in some)
        else:
            yield {first + offset: one.lost for offset, one in some if one.lost is not None}, as_block(())


class MemoryRecall:
    """Looks up calls of functions that ``joblib.Memory`` caches in its store.

    A call that is not in the store, or whose entry cannot be read, is a task like any other, whose worker
    writes the store.
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
            # Unlike a plain call, this never computes the value here, in the parent. The method of the base class,
            # because a coroutine function's own is a coroutine.
            return sys.modules["joblib.memory"].MemorizedFunc.call_and_shelve(fn, *args, **kwargs).get()
        except Exception as error:  # bad arguments, or a damaged entry: the worker reports or replaces these
            if is_of_signal(error):
                raise
            return UNSET


def is_cached(fn: Any) -> bool:
    """Whether ``joblib.Memory`` caches this function; joblib is not imported to find out."""
    memory = sys.modules.get("joblib.memory")
    return memory is not None and isinstance(fn, memory.MemorizedFunc)


def memory_recall(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> tuple[MemoryRecall, ...]:
    """The recall of this run's cached calls; none if it cannot have any."""
    may_be = is_cached(fn) if fn is not None else "joblib.memory" in sys.modules
    return (MemoryRecall(fn, args, kwargs, star),) if may_be else ()
