"""In a worker: functions that come with calls, and classes that come with items.

What they need is loaded outside the time of the attempts that bring them. Such an attempt has begun all the same, so it, and
no other, is to blame if the worker ends meanwhile. Those of the script are cached by their bytes: what such a function keeps
in a global variable or a cache is still there in the next call, as in a module's function.
"""

from __future__ import annotations

from sys import modules

from parallelkit._raised import add_note, is_of_signal, notes_of
from parallelkit._system import monotonic
from parallelkit._worker import _channel
from parallelkit._worker._channel import DEFINITIONS, HEAD, LOADING_IN_TASK, MASK, PHASE, WAITING
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from mmap import mmap
    from typing import Any

    Key = bytes | tuple[int, bytes]

_NAME = 14
"""Where the name of the module is in a pickle that begins with it; its length is the byte before."""

_LONGEST = 255
"""Length up to which a text is pickled in this way."""

_ring: _channel.Ring | None = None
_keep: Callable[[], None]
_imported = {b""}

MOST = 1 << 24
"""Bytes of the largest pickle that is gone through once more to find out why it could not be unpickled."""

MOST_CACHED = DEFINITIONS
"""How many functions of calls are cached, of classes, and of functions of runs (_jobs.py): those that came last."""

_functions: dict[Key, Any] = {}
_classes: dict[Key, Any] = {}

_defined: dict[int, bytes] = {}
"""The definitions by number."""


def attach(ring: _channel.Ring, keep: Callable[[], None]) -> None:
    """Called once in a worker; ``keep`` keeps what an import has changed around tasks."""
    global _ring, _keep
    _ring, _keep = ring, keep


def as_sent(module: str) -> str:
    """The name of the module that a function needs, as a worker gets it; empty if that is not known, or is the script's."""
    return module if module.isascii() and len(module) <= _LONGEST and module not in NAMES else ""


def unpack_call(blob: bytes | mmap, buffers: Iterable[Any] = ()) -> Any:
    """Unpickle a call, once the module that its function needs is loaded."""
    name = blob[_NAME : _NAME + blob[_NAME - 1]]
    if name not in _imported:
        _imported.add(name)
        with Untimed():
            try:
                __import__(name.decode())
            except Exception:
                pass  # unpickling the call raises it, too, unless the function can do without the module
    return unpack(blob, buffers)


def unpack_definition(blob: bytes | mmap) -> Any:
    """Unpickle what has functions of the script; an error has a note that names the variable which raises it, if that is known."""
    try:
        return unpack(blob)
    except Exception as error:
        # One that has a note is of a function in here that has a pickle of its own.
        if not is_of_signal(error) and not notes_of(error) and len(blob) <= MOST:
            from parallelkit._worker._arrival import blame  # late: workers do not need it to start

            note = blame(blob[:], type(error))
            if note:
                add_note(error, note)
        raise


def define(number: int, blob: bytes) -> None:
    """Take in a definition that items will refer to."""
    _defined[number] = blob


def forget(lane: int) -> None:
    """Drop the definitions of a lane."""
    for number in [number for number in _defined if number // DEFINITIONS == lane]:
        del _defined[number]


def cached_function(packed: bytes | int, scope: int = 0) -> Any:
    """The function in these bytes, which are reversed (see ``Carried``), or in those that are defined under this number.

    ``scope``: functions of equal bytes are one function within a scope. In another they are another, with a closure of its own.
    The bytes name the edition of each class of the script that they refer to (_classes.py), so they differ once one has changed.
    """
    return _cached(_functions, packed, scope)


def cached_class(packed: bytes | int) -> Any:
    """The same for a class that comes with items."""
    return _cached(_classes, packed)


def _cached(cache: dict[Key, Any], packed: bytes | int, scope: int = 0) -> Any:
    blob = packed if isinstance(packed, bytes) else _defined[packed]
    key = (scope, blob) if scope else blob
    thing = cache.pop(key, None)
    if thing is None:
        with Untimed():
            thing = unpack_definition(blob[::-1])
        if len(cache) >= MOST_CACHED:
            del cache[next(iter(cache))]
    cache[key] = thing  # now the most recent
    return thing


class Untimed:
    """While something is loaded for an attempt; at the end the attempt begins anew. Does nothing outside workers."""

    def __enter__(self) -> None:
        if _ring is not None:
            self._modules = len(modules)
            _ring.head[PHASE] = LOADING_IN_TASK

    def __exit__(self, *_: object) -> None:
        if _ring is not None:
            if len(modules) != self._modules:
                _keep()
            _ring.starts[_ring.head[HEAD] & MASK] = monotonic()
            if _channel.WEAKLY_ORDERED:
                _channel.barrier()
            _ring.head[PHASE] = WAITING
