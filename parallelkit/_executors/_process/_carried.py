"""Packs a script's function apart from the call that brings it, and a class apart from items: a worker knows them by their bytes."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from types import FunctionType
from typing import Any
from weakref import WeakSet

from parallelkit._executors._contract import Call
from parallelkit._executors._process._at_import import refuse_packed
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._generators import AlikeError, refuse_alike
from parallelkit._tasks import call_star
from parallelkit._worker._caches import CACHED
from parallelkit._worker._call_functions import cached_class, cached_function
from parallelkit._worker._chunk import Chunk
from parallelkit._worker._editions import Editions
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import Apart, pack_by_value

SMALL = 64 << 10
"""Size in bytes up to which workers keep a packed function, with what it refers to."""

_large: WeakSet[Callable[..., Any]] = WeakSet()
"""Functions that are larger: they are packed with their calls, whose large buffers are set apart."""


class Carried:
    """A packed function, in place of the function itself in a call that is about to be packed."""

    def __init__(self, packed: bytes | int) -> None:
        self.packed = packed

    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("what a partial is made of must be callable, and is not called here")

    def __reduce__(self) -> Any:
        return cached_function, (self.packed,)


class CarriedClasses:
    """Has a class that many items bring packed once for all of them, apart; for the rest, it leaves classes to ``Editions``.

    ``mapped``: an array that is a file is sent as the file's name with a class or a function, though not with the items themselves.
    ``definitions``: what the items may refer to by number, if there are workers that know it.
    """

    def __init__(self, mapped: bool, definitions: Definitions | None = None) -> None:
        self.by_file = False
        self.mapped = mapped
        self.known: dict[int, Any] = {}
        self.editions = Editions()
        self.seen: set[type] = set()
        self._definitions = definitions

    def reduce(self, cls: type, reduced: Any) -> Any:
        """What stands for the class in an item; the class itself if it is large."""
        if cls not in self.seen:
            self.seen.add(cls)
            self._carry(cls)
        return self.known.get(id(cls)) or self.editions.reduce(cls, reduced)

    def _carry(self, cls: type) -> None:
        apart = Apart()
        blob = pack_by_value(cls, apart, self.mapped, self.editions)
        refuse_packed(blob)
        if not apart.buffers and len(blob) <= SMALL:
            self.known[id(cls)] = cached_class, (self.reference(blob),)

    def reference(self, blob: bytes) -> bytes | int:
        """What a call or an item refers to this pickle by: a number, or else the bytes themselves.

        They are reversed, so that a search of the item's pickle for names of the script does not find those in here.
        """
        return blob[::-1] if self._definitions is None else self._definitions.reference(blob[::-1])


def carry(call: Call, classes: CarriedClasses, several: bool) -> Call:
    """The call with its function packed, if that belongs to the script; raises what packing the function raises.

    ``several``: the call is one of a run's tasks, so its function must not bring a random generator along.
    """
    fn, args, kwargs = call
    if fn is call_star:
        return fn, (_carried(args[0], classes, several), *args[1:]), kwargs
    if isinstance(fn, Chunk):
        chunk = copy(fn)
        chunk.fn = _carried(fn.fn, classes, several)
        return chunk, args, kwargs
    return _carried(fn, classes, several), args, kwargs


def _carried(fn: Callable[..., Any], classes: CarriedClasses, several: bool) -> Any:
    if type(fn) is partial:
        inner = _carried(fn.func, classes, several)
        return fn if inner is fn.func or vars(fn) else partial(inner, *fn.args, **fn.keywords)
    if not isinstance(fn, (FunctionType, CACHED)) or getattr(fn, "__module__", None) not in NAMES:
        return fn
    if fn in _large:
        return fn
    functions = classes.editions.functions
    if fn in functions:
        return functions[fn]
    blob = pack_by_value(fn, None, classes.mapped, classes.editions)
    refuse_packed(blob)
    if several:
        try:
            refuse_alike(blob, fn, (), {}, star=True)
        except TypeError as error:
            raise AlikeError(str(error)) from None
    if len(blob) > SMALL:
        _large.add(fn)
        return fn
    carried = functions[fn] = Carried(classes.reference(blob))
    return carried
