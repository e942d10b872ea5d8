"""Packs a script's function apart from the run or call that brings it, and a class apart from items: a worker knows them by their bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from io import BytesIO
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from parallelkit._executors._contract import Call
from parallelkit._executors._process._at_import import refuse_packed
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._generators import AlikeError, refuse_alike
from parallelkit._executors._shared import Numbers
from parallelkit._tasks import call_star
from parallelkit._worker._by_value import pack_function
from parallelkit._worker._caches import CACHED
from parallelkit._worker._call_functions import cached_class, cached_function
from parallelkit._worker._chunk import Chunk
from parallelkit._worker._editions import Editions
from parallelkit._worker._elsewhere import MoreError
from parallelkit._worker._jobs import kept_function, new_function
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import Apart, by_value_pickler, dump, pack_by_value

SMALL = 64 << 10
"""Size in bytes up to which workers keep a packed function, with what it refers to."""

_large: WeakSet[Callable[..., Any]] = WeakSet()
"""Functions that are larger: they are packed with their calls, whose large buffers are set apart."""

_numbers: WeakKeyDictionary[Callable[..., Any], int] = WeakKeyDictionary()
"""Of lambdas and nested functions that were submitted: each is another function, even if the bytes of two are the same."""

_unused = Numbers(1)


class Carried:
    """A packed function, in place of the function itself in a call or job that is about to be packed."""

    def __init__(self, load: Callable[..., Any], *packed: Any) -> None:
        self._reduced = load, packed

    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("what a partial is made of must be callable, and is not called here")

    def __reduce__(self) -> Any:
        return self._reduced


class CarriedClasses:
    """Has a class that many items bring packed once for all of them, apart; for the rest, it leaves classes to ``Editions``.

    ``definitions``: what the items may refer to by number; None for workers on other machines, which are not sent these.
    There may be other files there, too. Here, an array that is a file is sent as the file's name with a class or a function,
    though not with the items themselves.
    """

    by_file = False

    def __init__(self, definitions: Definitions | None) -> None:
        self.known: dict[int, Any] = {}
        self.editions = Editions(by_file=definitions is not None)
        self.seen: set[type] = set()
        self.functions: dict[object, Carried] = {}
        """Those of calls, which are packed once for these pickles, too."""
        self.lane = definitions.lane if definitions is not None else 0
        self._definitions = definitions

    def reduce(self, cls: type, reduced: Any) -> Any:
        """What stands for the class in an item; the class itself if it is large."""
        if cls not in self.seen:
            self.seen.add(cls)
            self._carry(cls)
        return self.known.get(id(cls)) or self.editions.reduce(cls, reduced)

    def _carry(self, cls: type) -> None:
        apart = Apart()
        blob = pack_by_value(cls, apart, self.editions)
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

    ``several``: the call is one of a run's tasks, so its function must not bring a random generator along; and a lambda or
    nested function is the same for tasks of the run that bring equal bytes. Elsewhere, only the same object is the same.
    """
    fn, args, kwargs = call
    if fn is call_star:
        return fn, (_carried(args[0], classes, several), *args[1:]), kwargs
    if isinstance(fn, Chunk):
        chunk = copy(fn)
        chunk.fn = _carried(fn.fn, classes, several)
        return chunk, args, kwargs
    return _carried(fn, classes, several), args, kwargs


def carry_for_run(fn: Any, *, bare: bool) -> tuple[Any, bytes]:
    """The function of a run, or what stands for it in the job if it is one of the script's, and its pickle then; else no bytes.

    A lambda or nested function may be made anew for each run, from the same bytes, and must then find its closure as it was made.
    In that may be what it is passed, too, so it has a pickle of its own only if it is ``bare``: nothing is passed to all tasks.
    """
    if type(fn) is partial and not vars(fn):
        inner, blob = carry_for_run(fn.func, bare=False)
        return (partial(inner, *fn.args, **fn.keywords) if blob else fn), blob
    name = name_of(fn)
    is_new = "<" in name
    packed = _packed(fn, Editions(by_file=True)) if is_of_script(fn) and (bare or not is_new) else None
    if packed is None:
        return fn, b""
    return Carried(new_function if is_new else kept_function, name, packed[::-1]), packed


def is_of_script(fn: object) -> bool:
    """Whether this is a function of the script, cached or not."""
    return isinstance(fn, (FunctionType, CACHED)) and getattr(fn, "__module__", None) in NAMES


def _carried(fn: Callable[..., Any], classes: CarriedClasses, several: bool) -> Any:
    if type(fn) is partial:
        inner = _carried(fn.func, classes, several)
        return fn if inner is fn.func or vars(fn) else partial(inner, *fn.args, **fn.keywords)
    if not is_of_script(fn):
        return fn
    if fn in classes.functions:
        return classes.functions[fn]
    blob = _packed(fn, classes.editions)
    if blob is None:
        return fn
    if several:
        try:
            refuse_alike(blob, fn, (), {}, star=True)
        except TypeError as error:
            raise AlikeError(str(error)) from None
    scope = _scope_of(fn, classes.lane if several else 0)
    carried = classes.functions[fn] = Carried(cached_function, classes.reference(blob), scope)
    return carried


def _scope_of(fn: Callable[..., Any], lane: int) -> int:
    """Among which functions one of equal bytes is the same: all (0). A lambda or nested one: those of a lane, or only this object (< 0)."""
    if "<" not in name_of(fn):
        return 0
    return lane or _numbers.setdefault(fn, -_unused.draw())


def name_of(fn: object) -> str:
    """The qualified name, which ``lru_cache`` may not have found."""
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else "<callable object>"


def _packed(fn: Callable[..., Any], editions: Editions) -> bytes | None:
    """A function by itself; None if it is large. Then most of it is not packed in vain."""
    if fn in _large:
        return None
    apart = Apart()
    try:
        blob = b""
        with suppress(MoreError, RecursionError):  # not the context of what cloudpickle raises
            blob = pack_function(fn, _Small())
        blob = blob or dump(by_value_pickler(), fn, apart, editions, _Small())
        if not apart.buffers and len(blob) <= SMALL:
            refuse_packed(blob)
            return blob
    except _LargeError:
        pass
    _large.add(fn)
    return None


class _LargeError(Exception):
    """There is too much to pack."""


class _Small(BytesIO):
    """A file that takes little."""

    def write(self, piece: Any) -> int:
        if self.tell() + memoryview(piece).nbytes > SMALL:  # of an array, it is a buffer, which has no length
            raise _LargeError
        return super().write(piece)
