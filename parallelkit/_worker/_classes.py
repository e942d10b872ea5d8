"""Classes that are sent by value: made once in each process, and updated only by what has changed at their origin.

cloudpickle sends an id with a class, by which it finds the one that a process already has. It would then set all
attributes again, to copies: methods with other globals, counters at old values. When a class comes back to the caller,
that would spoil the caller's own; and the next item that brings it to a worker would reset what tasks store in it.
But a worker that stays for several runs must have what the script has by now. So a class that is sent to workers has
its *edition* with it (_editions.py), and only attributes that differ from the last edition are set again.
"""

from __future__ import annotations

from types import MemberDescriptorType

from parallelkit._worker import _enums, _script

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, Protocol

    class Reducer(Protocol):
        """Decides how a class of the script goes into a pickle."""

        by_file: bool

        def reduce(self, cls: type, reduced: Any) -> Any: ...

    Edition = tuple[float, dict[str, bytes]]
    """Since when the class has been so, by the clock of the machine, and a digest of each attribute.

    Of two runs at a time, one may overtake the other: so the instant tells which edition is newer.
    """


NO_EDITION: Edition = -1.0, {}
"""Stands for that of a class that came without: it is older than any, and any differs from it in all attributes."""

TRACKER = -2
"""The place of cloudpickle's id among the arguments that make a class or an enum, which end in (…, class_tracker_id, extra)."""


_once: dict[str, MutableMapping[type, Edition | None]] = {}


def _made() -> MutableMapping[type, Edition | None]:
    """The edition of each class that was made in this process; None if it has no attributes yet."""
    from weakref import WeakKeyDictionary  # late: workers do not need it to start

    # In one step: two threads would get one each from ``cache``.
    return _once.setdefault("made", WeakKeyDictionary())


def reduce_class(cls: type, reduced: Any, editions: Reducer | None) -> Any:
    """The class as cloudpickle reduces it, with what that leaves out, and its edition if there are editions."""
    if len(reduced) < 6:  # the class is found by its name
        return reduced
    from enum import Enum

    reduced = (_enums.reduce_enum if issubclass(cls, Enum) else _whole)(cls, reduced)
    state, _ = reduced[2]
    state.pop("__slotnames__", None)  # which copyreg adds when the first object is pickled or copied
    return reduced if editions is None else editions.reduce(cls, reduced)


def _whole(cls: type, reduced: Any) -> Any:
    """The class with its slots, its qualified name, and attributes that are the same objects as those of a base.

    Without slots, objects made there would have a ``__dict__``, and would not fit the class here.
    """
    make, (kind, name, bases, given, *more), (attributes, own), *rest = reduced
    given = given | {"__qualname__": cls.__qualname__}
    of_bases = [vars(base) for base in cls.__bases__]
    repeated = {k: v for k, v in vars(cls).items() if any(v is known.get(k, cls) for known in of_bases)}
    attributes = repeated | attributes
    # typing.NamedTuple sets slots itself, and refuses them.
    if "__slots__" in vars(cls) and "NamedTuple" not in [getattr(base, "__name__", "") for base in bases]:
        given["__slots__"] = vars(cls)["__slots__"]
        attributes = {k: v for k, v in attributes.items() if type(v) is not MemberDescriptorType}
    return make, (kind, name, bases, given, *more), (attributes, own), *rest


def make_class(*spec: Any) -> type:
    """The class of this id that this process has, or a new one without attributes."""
    from cloudpickle import cloudpickle

    return _find_or_make(cloudpickle._make_skeleton_class, spec)


def make_enum(*spec: Any) -> type:
    """The same for an enum, as ``_enums.reduce_enum`` tells of it."""
    return _find_or_make(_enums.make_enum, spec)


def _find_or_make(make: Callable[..., type], spec: tuple[Any, ...]) -> type:
    from cloudpickle import cloudpickle

    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(spec[TRACKER])
    if known is not None:
        return known
    made = make(*spec)
    _made()[made] = None
    return made


def fill_class(cls: type, state: Any) -> type:
    """Set the attributes of a class that came without an edition; only once, and only if this process has made it."""
    return fill_edition(cls, (*state, NO_EDITION))


def fill_edition(cls: type, state: tuple[dict[str, Any], Any, Edition]) -> type:
    """Set the attributes of a class that was made here, or those that have changed since its last edition.

    The caller's own class is left alone.
    """
    from cloudpickle import cloudpickle

    attributes, own, edition = state
    _script.arrive_class(cls)
    if cls not in _made():
        return cls
    had = _made()[cls]
    if had is not None:
        if had[0] >= edition[0]:
            return cls
        attributes = _renewed(cls, attributes, had[1], edition[1])
    cloudpickle._class_setstate(cls, (attributes, own))
    if had is None:
        _enums.set_attributes(cls, own)  # nothing for a class that is no enum
    _made()[cls] = edition
    return cls


def _renewed(
    cls: type, attributes: dict[str, Any], had: dict[str, bytes], has: dict[str, bytes]
) -> dict[str, Any]:
    """The attributes that have changed; those that the script has deleted are deleted here.

    The others stay, whatever tasks have stored in them; and so do all that an initializer has assigned.
    """
    kept = _script.assigned_to(cls)
    for name in had.keys() - has.keys() - kept:
        if name in vars(cls):
            delattr(cls, name)
    return {n: attributes[n] for n, digest in has.items() if had.get(n) != digest and n not in kept}
