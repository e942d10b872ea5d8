"""A function of the script that comes with each call is packed by itself, so that a worker finds it again by its bytes."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from types import FunctionType
from typing import Any
from weakref import WeakSet

from parallelkit._executors._contract import Call
from parallelkit._executors._process._at_import import refuse_packed
from parallelkit._executors._process._generators import AlikeError, refuse_alike
from parallelkit._recalled import recall
from parallelkit._tasks import call_star
from parallelkit._worker._caches import CACHED
from parallelkit._worker._chunk import Chunk
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import Editions, pack

SMALL = 64 << 10
"""Bytes of a function, with what it names, which workers may keep."""

_large: WeakSet[Callable[..., Any]] = WeakSet()
"""Functions that are longer: they go with their calls, whose large buffers are set apart."""


class Carried:
    """Stands for a function in a call that is about to be packed."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("what a partial is made of must be callable, and is not called here")

    def __reduce__(self) -> Any:
        # Backwards, for whoever looks in the pickle of the call for names in the script would find these.
        return recall, (self.blob[::-1],)


def carry(call: Call, editions: Editions | None = None, several: bool = False) -> Call:
    """The call, its function packed where it is one of the script's; raises what packing that raises.

    ``several``: of one run, whose functions may not bring a random generator along.
    """
    fn, args, kwargs = call
    if fn is call_star:
        return fn, (_carried(args[0], editions, several), *args[1:]), kwargs
    if isinstance(fn, Chunk):
        chunk = copy(fn)
        chunk.fn = _carried(fn.fn, editions, several)
        return chunk, args, kwargs
    return _carried(fn, editions, several), args, kwargs


def _carried(fn: Callable[..., Any], editions: Editions | None, several: bool) -> Any:
    if type(fn) is partial:
        inner = _carried(fn.func, editions, several)
        return fn if inner is fn.func or vars(fn) else partial(inner, *fn.args, **fn.keywords)
    if not isinstance(fn, (FunctionType, CACHED)) or getattr(fn, "__module__", None) not in NAMES:
        return fn
    if fn in _large:
        return fn
    blob = pack(fn, editions=editions)
    refuse_packed(blob)
    if several:
        try:
            refuse_alike(blob, fn, (), {}, star=True)
        except TypeError as error:
            raise AlikeError(str(error)) from None
    if len(blob) > SMALL:
        _large.add(fn)
        return fn
    return Carried(blob)
