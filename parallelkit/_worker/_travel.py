"""Functions, items and values made fit to travel between two processes, and unpacked at the other end.

What can be imported by name travels as a reference (plain pickle); what belongs to the user's
``__main__`` or is defined inside a function travels by value (cloudpickle), for no worker imports that
module.
"""

from __future__ import annotations

from _pickle import PickleBuffer, Pickler, Unpickler, dumps, loads
from collections import ChainMap
from collections.abc import Callable, Iterable, MutableMapping
from functools import cache
from io import BytesIO
from mmap import mmap
from sys import modules
from types import CodeType, FunctionType

from parallelkit._raised import is_of_signal
from parallelkit._worker import _chance, _classes, _ends, _script
from parallelkit._worker._channel import LARGE

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    from parallelkit._worker._classes import Edition

CLOUDPICKLE = "cloudpickle.cloudpickle"

METHODS = FunctionType, classmethod, staticmethod, property
"""What most attributes with functions are; any other is looked into."""

SHORT = 8
"""Bytes of a digest."""


def pack(
    thing: object,
    apart: Apart | None = None,
    by_file: bool = False,
    editions: _classes.Editions | None = None,
) -> bytes:
    """The thing as bytes, its large buffers set apart if there is where; raises whatever pickling it raises.

    ``by_file``: arrays that are files stay so (_memmaps.py). ``editions``: of the script's classes, for a worker.
    """
    try:
        blob = dump(Pickler, thing, apart, True) if by_file else dumps(thing, 5, buffer_callback=apart)
    except Exception as error:
        if is_of_signal(error):
            raise
        return pack_by_value(thing, apart, by_file, editions)
    return blob if is_plain(blob) else pack_by_value(thing, apart, by_file, editions)


def is_plain(blob: bytes) -> bool:
    """Whether what plain pickle has made means the same at the other end, and is what shall go there."""
    # A reference into the script means another module there. (``find`` takes half the time of ``in``.)
    by_name = blob.find(_script.MARK) < 0 or not _script.is_meant(blob)
    return by_name and not _ends.may_have_end(blob) and not _chance.may_have_own(blob)


def pack_by_value(
    thing: object, apart: Apart | None, by_file: bool = False, editions: _classes.Editions | None = None
) -> bytes:
    if apart is not None:
        apart.buffers.clear()
    return dump(by_value_pickler(), thing, apart, by_file, editions)


def dump(
    make: Any, thing: object, apart: Apart | None, by_file: bool, editions: _classes.Editions | None = None
) -> bytes:
    """The thing as bytes, by a pickler of this kind."""
    if by_file:
        from parallelkit._worker import _memmaps  # which no worker needs as it starts

        make = _memmaps.by_file(make)
    file = BytesIO()
    pickler = make(file, 5, buffer_callback=apart)
    if editions is not None:
        editions.by_file = by_file
        pickler.editions = editions
    pickler.dump(thing)
    return file.getvalue()


class Editions:
    """Which edition of each class of the script is being sent. Each is looked at once."""

    by_file = False
    """As it is sent: of an array that is a file the name is looked at."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[type, Any]] = {}

    def reduce(self, cls: type, reduced: Any) -> Any:
        """The class with its edition; what it is made of is that of the same time."""
        if id(cls) not in self._known:
            # Those that it names are looked at here, too: not further down, one within another.
            _, _, state, *_ = reduced
            names = _Names(self.by_file)
            names.met.append((cls, state))
            for one, its in names.met:
                if id(one) not in self._known:
                    self._known[id(one)] = one, (*its, _edition_of(one, its[0], names))
        make, spec, *_ = reduced
        return make, spec, self._known[id(cls)][1], None, None, _classes.fill_edition


def _edition_of(cls: type, attributes: dict[str, Any], names: _Names) -> Edition:
    from parallelkit._system import monotonic

    now = monotonic()  # before the look: of two at a time, who looks later has the later one
    digests = _digests_of(attributes, names)
    known = _latest().get(cls)
    if known is not None and known[1] == digests:
        # With the texts of now: what was pickled once already in a pickle is told by being the same object.
        return known[0], digests
    if known is None or known[0] <= now:
        _latest()[cls] = now, digests
    return now, digests


@cache
def _latest() -> MutableMapping[type, Edition]:
    """Of each class: it is the same one for as long as nothing changes."""
    from weakref import WeakKeyDictionary

    return WeakKeyDictionary()


def _digests_of(attributes: dict[str, Any], names: _Names) -> dict[str, bytes]:
    """Of all that travels with each attribute. Those with functions, which have their globals in common, have one."""
    methods = {name: value for name, value in attributes.items() if isinstance(value, METHODS)}
    others = {name: _digest(attributes[name], names) for name in attributes if name not in methods}
    also = [name for name, (_, calls) in others.items() if calls]
    shared = _digest([methods, [attributes[name] for name in also]], names)[0]
    return {name: digest for name, (digest, _) in others.items()} | dict.fromkeys([*methods, *also], shared)


def _digest(value: object, names: _Names) -> tuple[bytes, bool]:
    """And whether there are functions in it."""
    from hashlib import sha1  # late, and one that processors compute themselves

    apart = Apart()
    blob = pack(value, apart, names.by_file, names)
    digest = sha1(blob, usedforsecurity=False)
    for buffer in apart.buffers:
        digest.update(buffer)
    return digest.digest()[:SHORT], blob.find(b"_make_function") >= 0


class _Names:
    """In a digest other classes of the script stand for themselves: they have editions of their own."""

    def __init__(self, by_file: bool) -> None:
        self.by_file = by_file
        self.met: list[tuple[type, Any]] = []

    def reduce(self, cls: type, reduced: Any) -> Any:
        """What cloudpickle knows the class by."""
        _, spec, state, *_ = reduced
        self.met.append((cls, state))
        return str, (spec[_classes.TRACKER],)


class Apart:
    """Gathers the large buffers of what is being pickled."""

    def __init__(self) -> None:
        self.buffers: list[memoryview[int]] = []

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Whether it shall be in the pickle: a small one, or one that does not lie in one piece."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < LARGE:
            return True
        self.buffers.append(raw)
        return False

    def take(self) -> list[memoryview[int]]:
        """What was gathered; then it is empty again."""
        buffers, self.buffers = self.buffers, []
        return buffers


def by_value_pickler() -> Any:
    """The class of cloudpickle's pickler, which knows ends of pipes and the random generators of modules."""
    pickler = _by_value_pickler()
    _ends.refuse_ends(pickler.dispatch_table)
    _chance.send_by_name(pickler.dispatch_table)
    return pickler


@cache
def _by_value_pickler() -> Any:
    """Made late, because cloudpickle takes 20 ms to import."""
    from cloudpickle import Pickler, cloudpickle

    from parallelkit._worker._caches import CACHED, reduce_cached

    def reduce_code(code: CodeType) -> Any:
        # cloudpickle hides the file name, without which a traceback cannot show where an error is.
        make, args = cloudpickle._code_reduce(code)
        return make, tuple(code.co_filename if _is_hidden(arg) else arg for arg in args)

    class ByValue(Pickler):  # type: ignore[misc]  # it has no types
        dispatch_table = ChainMap(  # noqa: RUF012  # as the base has it
            {CodeType: reduce_code, CACHED: reduce_cached}, Pickler.dispatch_table
        )

        editions: _classes.Editions | None = None

        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented or not isinstance(obj, type):
                return reduced
            return _classes.reduce_class(obj, reduced, self.editions)

    if "__mp_main__" not in modules:
        return ByValue

    class Spawned(ByValue):
        """cloudpickle takes this module for one that others can import."""

        def reducer_override(self, obj: Any) -> Any:
            if getattr(obj, "__module__", None) != "__mp_main__":
                return super().reducer_override(obj)
            if isinstance(obj, type):
                reduced = cloudpickle._dynamic_class_reduce(obj)
                return _classes.reduce_class(obj, reduced, self.editions)
            return self._dynamic_function_reduce(obj) if isinstance(obj, FunctionType) else NotImplemented

    return Spawned


def _is_hidden(arg: object) -> bool:
    return isinstance(arg, str) and arg == "<dynamic-code>"  # with -bb, bytes must not be compared to it


def unpack(blob: bytes | mmap, buffers: Iterable[Any] = ()) -> Any:
    """What ``pack`` was given; raises whatever unpickling it raises."""
    if blob.find(b"cloudpickle") < 0:
        return loads(blob, buffers=buffers)
    return _Unpacker(BytesIO(blob) if isinstance(blob, bytes) else blob, buffers=buffers).load()


class _Unpacker(Unpickler):
    """Gives functions what an initializer has assigned, and fills no class anew that this process has (_classes.py)."""

    def find_class(self, module: str, name: str) -> Any:
        if module == CLOUDPICKLE and name in _CAREFUL:
            return _CAREFUL[name]
        return super().find_class(module, name)


def _fill_function(function: FunctionType, state: Any) -> None:
    from cloudpickle import cloudpickle

    cloudpickle._function_setstate(function, state)
    _script.arrive(function)


_CAREFUL: dict[str, Callable[..., Any]] = {
    "_make_skeleton_class": _classes.make_class,
    "_make_skeleton_enum": _classes.make_enum,
    "_class_setstate": _classes.fill_class,
    "_function_setstate": _fill_function,
}


def describe(thing: object) -> str:
    """A short text for messages; never raises, whatever the object's own methods do."""
    name = getattr(thing, "__qualname__", None)
    if isinstance(name, str):
        module = getattr(thing, "__module__", None)
        return f"{module}.{name}" if isinstance(module, str) else name
    kind = type(thing)
    return f"an object of type {kind.__module__}.{kind.__qualname__}"
