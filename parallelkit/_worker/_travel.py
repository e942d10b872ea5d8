"""Pickling of functions, items and values that go to another process, and unpickling there.

What can be imported by name is sent as a reference (plain pickle). What belongs to the user's ``__main__``, or
is defined inside a function, is sent by value (cloudpickle), because workers do not import ``__main__``.
"""

from __future__ import annotations

import types
from _pickle import PickleBuffer, Pickler, Unpickler, dumps, loads
from _struct import Struct
from _thread import _local
from collections.abc import Callable, Iterable
from functools import cache
from io import BytesIO
from mmap import mmap
from sys import modules, version_info
from types import CellType, CodeType, FunctionType, ModuleType

from parallelkit._raised import is_of_signal
from parallelkit._worker import _classes, _connections, _script
from parallelkit._worker._by_name import SPOILED, dump_by_name
from parallelkit._worker._channel import LARGE
from parallelkit._worker._global_generators import HINT, may_have_global, send_by_name
from parallelkit._worker._storages import STORAGES, with_storages

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

CLOUDPICKLE = "cloudpickle.cloudpickle"

_READ_ONLY, _WRITABLE = Struct("<cI"), Struct("<cQ")
"""The opcodes BINBYTES and BYTEARRAY8 with a length, by which buffers of either kind begin in a pickle."""


def pack(
    thing: object,
    apart: Apart | None = None,
    by_file: bool = False,
    editions: _classes.Reducer | None = None,
) -> bytes:
    """Pickle the thing; raises whatever pickling it raises.

    ``apart``: gathers the large buffers, which are then not in the pickle. ``by_file``: an array that is a file
    is sent as the file's name (_memmaps.py). ``editions``: for workers that stay, what tells them which classes
    of the script have changed (_editions.py); these say ``by_file`` themselves.
    """
    if apart is not None and (apart.buffers or apart.left):
        apart.forget()  # of a thing that could not be pickled
    known = None
    if editions is not None:
        known, by_file = editions.known, editions.by_file
    try:
        if by_file:
            blob = dump(Pickler, thing, apart, by_file=True)
        elif known or STORAGES in modules:
            blob = dump_by_name(thing, apart, known or {})
        else:
            blob = dumps(thing, 5, buffer_callback=apart)
    except Exception as error:
        if is_of_signal(error):
            raise
        return pack_by_value(thing, apart, editions, by_file)
    bare = apart.bare(blob) if apart is not None and apart.left else blob
    return blob if is_plain(bare) else pack_by_value(thing, apart, editions, by_file)


def is_plain(blob: bytes) -> bool:
    """Whether the other process can use this plain pickle, so that it need not be made by value."""
    # ``__main__`` is another module there. (``rfind`` takes half the time of ``find``, and a quarter of that of ``in``.)
    by_name = blob.rfind(_script.MARK) < 0 or not _script.is_meant(blob)
    has_global = blob.rfind(HINT) >= 0 and may_have_global(blob)
    return by_name and not has_global and not _connections.may_have_connection(blob)


def pack_by_value(
    thing: object, apart: Apart | None, editions: _classes.Reducer | None = None, by_file: bool = False
) -> bytes:
    """The same as ``pack``, for a thing that plain pickle does not serve."""
    if apart is not None:
        apart.forget()
    return dump(by_value_pickler(), thing, apart, editions, by_file=by_file)


def dump(
    make: Any,
    thing: object,
    apart: Apart | None,
    editions: _classes.Reducer | None = None,
    file: BytesIO | None = None,
    by_file: bool = False,
) -> bytes:
    """Pickle the thing with the pickler class ``make``; into this file, if one is given."""
    if by_file or (editions is not None and editions.by_file):
        from parallelkit._worker import _memmaps  # late: workers do not need it to start

        make = _memmaps.by_file(make)
    if apart is not None:
        make = with_storages(make)
    file = file or BytesIO()
    pickler = make(file, 5, buffer_callback=apart)
    if editions is not None:
        pickler.editions = editions
    pickler.dump(thing)
    return file.getvalue()


MEDIUM = 4096
"""Bytes of a buffer that stays in a pickle, from which on the pickle is searched without it."""


class Apart:
    """The ``buffer_callback`` of a pickler: gathers the large buffers, and leaves smaller ones in the pickle."""

    def __init__(self, least: int = LARGE) -> None:
        self.least = least
        """Bytes from which on a buffer is large."""
        self.buffers: list[memoryview[int]] = []
        self.left: list[tuple[bytes, int]] = []
        """Of each medium buffer that stays in the pickle, what stands before it there, and its length."""

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Whether this buffer stays in the pickle, because it is small, or not contiguous."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes >= self.least:
            self.buffers.append(raw)
            return False
        if raw.nbytes >= MEDIUM:
            head = _READ_ONLY.pack(b"B", raw.nbytes) if raw.readonly else _WRITABLE.pack(b"\x96", raw.nbytes)
            self.left.append((head, raw.nbytes))
        return True

    def bare(self, blob: bytes) -> bytes:
        """The pickle without its medium buffers. They refer to nothing, and to search them takes longer than to pickle them."""
        parts, end = [], 0
        for head, length in self.left:
            at = blob.find(head, end)
            if at >= 0:
                parts.append(blob[end:at])
                end = at + len(head) + length
        return b"".join((*parts, blob[end:]))

    def forget(self) -> None:
        """Be as at the start."""
        self.buffers.clear()
        self.left.clear()

    def take(self) -> list[memoryview[int]]:
        """Return what was gathered, and forget it."""
        buffers, self.buffers = self.buffers, []
        return buffers


def by_value_pickler() -> Any:
    """Our subclass of cloudpickle's pickler, made to handle ends of pipes and the random generators of modules.

    Its table is put together at each call: what is in it may have been imported or registered since the last. So may
    cloudpickle: ``mock.patch.dict(sys.modules)`` removes what was imported meanwhile.
    """
    from cloudpickle import cloudpickle  # late: it takes 20 ms to import

    from parallelkit._worker import _by_value, _caches, _elsewhere

    pickler = _by_value_pickler(cloudpickle)
    table: dict[type, Callable[[Any], Any]] = {}
    for known in reversed(pickler.tables):
        table |= known
    _connections.refuse_connections(table)
    send_by_name(table)
    _by_value.send_modules(table)
    _by_value.send_wrapped(table)
    _caches.send_managers(table)
    _elsewhere.send_unplaced(table)
    pickler.dispatch_table.update(table)  # in one step, since other threads may be using it
    return pickler


@cache
def _by_value_pickler(cloudpickle: Any) -> Any:
    from parallelkit._worker._by_value import MAKERS
    from parallelkit._worker._elsewhere import elsewhere
    from parallelkit._worker._tokens import reduce_function, reduce_object

    by_name = MAKERS.union(made for made in vars(cloudpickle).values() if type(made) is FunctionType)

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        tables = _reducers(cloudpickle), *cloudpickle.Pickler.dispatch_table.maps
        _dynamic_function_reduce = reduce_function
        dispatch_table: dict[type, Any] = {}  # noqa: RUF012  # in a ChainMap, to look up each object takes twice the rest
        editions: _classes.Reducer | None = None

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind is FunctionType:  # those that make the others need no search for their names
                return NotImplemented if obj in by_name else super().reducer_override(obj)
            if not issubclass(kind, type):  # as nearly always: this is called for each object
                return reduce_object(self, obj)
            if self.editions is not None and id(obj) in self.editions.known:
                return self.editions.known[id(obj)]
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented:
                return reduced
            return elsewhere(obj) or _classes.reduce_class(obj, reduced, self)

    if "__mp_main__" not in modules:
        return ByValue

    class Spawned(ByValue):
        """For a process that multiprocessing has spawned: cloudpickle takes ``__mp_main__`` for a module that can be imported."""

        def reducer_override(self, obj: Any) -> Any:
            if getattr(obj, "__module__", None) != "__mp_main__":
                return super().reducer_override(obj)
            if isinstance(obj, type):
                reduced = cloudpickle._dynamic_class_reduce(obj)
                return _classes.reduce_class(obj, reduced, self)
            return self._dynamic_function_reduce(obj) if isinstance(obj, FunctionType) else NotImplemented

    return Spawned


def _reducers(cloudpickle: Any) -> dict[type, Callable[[Any], Any]]:
    """How we pickle objects of types that cloudpickle handles in another way, or not at all."""
    import dataclasses
    import os
    from typing import ForwardRef

    from parallelkit._worker import _by_value, _caches, _tokens, _type_names

    def reduce_module(module: ModuleType) -> Any:
        by_name = cloudpickle._should_pickle_by_reference(module)
        return _by_value.reduce_module(module) if by_name else cloudpickle._module_reduce(module)

    ours: dict[type, Callable[[Any], Any]] = {
        CodeType: _by_value.reduce_code,
        CellType: _by_value.reduce_cell,
        ModuleType: reduce_module,
        type(os.environ): lambda known: (getattr, (os, "environb" if known is os.environb else "environ")),
        _local: lambda local: (_empty_local, tuple(vars(local))),
        Struct: lambda known: (Struct, (known.format,)),
        **_tokens.of_sys(),
        **_caches.reducers(),
    }
    SPOILED.add(type(dataclasses.MISSING))
    if version_info >= (3, 15):  # it is a sentinel, of which there are others
        ours[type(dataclasses.MISSING)] = _type_names.reduce_sentinel
        ours[_by_value.LAZY] = _by_value.reduce_lazy
    else:  # it is compared by identity
        ours[type(dataclasses.MISSING)] = lambda _: (getattr, (dataclasses, "MISSING"))
    if version_info >= (3, 14):
        ours[ForwardRef] = _type_names.reduce_reference
    return ours | dict.fromkeys(_type_names.kinds(), _type_names.reduce_name)


def _empty_local(*_: str) -> _local:
    """An empty ``threading.local()``, as a new thread finds it. Only _initial.py needs the names: to see that one has been filled."""
    return _local()


def unpack(blob: bytes | mmap, buffers: Iterable[Any] = ()) -> Any:
    """Unpickle what ``pack`` has made; raises whatever unpickling it raises."""
    if blob.rfind(b"cloudpickle") < 0:
        return loads(blob, buffers=buffers)
    return _Unpacker(BytesIO(blob) if isinstance(blob, bytes) else blob, buffers=buffers).load()


class _Unpacker(Unpickler):
    """Replaces the functions by which cloudpickle makes classes.

    A class that this process has is not filled again unless it has changed (_classes.py). Types that are builtin, but have
    no name there, need no cloudpickle.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module == CLOUDPICKLE and name in CAREFUL:
            return CAREFUL[name]
        return super().find_class(module, name)


CAREFUL: dict[str, Callable[..., Any]] = {
    "_make_skeleton_class": _classes.make_class,
    "_class_setstate": _classes.fill_class,
    "_builtin_type": types.__dict__.__getitem__,
}


def describe(thing: object) -> str:
    """A short text for messages; never raises, whatever the object's methods do."""
    kind = type(thing)
    try:
        name, module = getattr(thing, "__qualname__", None), getattr(thing, "__module__", None)
    except Exception:  # the attributes of a proxy, such as Flask's, raise any error
        name = module = None
    if isinstance(name, str):
        return f"{module}.{name}" if isinstance(module, str) else name
    return f"an object of type {kind.__module__}.{kind.__qualname__}"
