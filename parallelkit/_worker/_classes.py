"""Classes that are sent by value: made once in each process, and updated only by what has changed at their origin.

cloudpickle sends an id with a class, by which it finds the one that a process already has. It would then set all
attributes again, to copies: methods with other globals, counters at old values. When a class comes back to the caller,
that would spoil the caller's own; and the next item that brings it to a worker would reset what tasks store in it.
But a worker that stays for several runs must have what the script has by now. So a class that is sent to workers has
its *edition* with it (_editions.py), and only attributes that differ from the last edition are set again.
"""

from __future__ import annotations

from _thread import RLock
from functools import partial
from types import MemberDescriptorType, WrapperDescriptorType, resolve_bases

from parallelkit._locks import careful
from parallelkit._worker import _enums, _script
from parallelkit._worker._needed import FIELDS, needed_by_objects

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, Protocol

    class Reducer(Protocol):
        """Decides how a class of the script goes into a pickle."""

        by_file: bool
        """Whether the pickle has the name of an array that is a file (``pack``)."""
        known: dict[int, Any]
        """What stands for classes that many pickles bring, by their ids."""

        def reduce(self, cls: type, reduced: Any) -> Any: ...

    Edition = tuple[float, dict[str, bytes]]
    """Since when the class has been so, by the clock of the machine, and a digest of each attribute.

    Of two runs at a time, one may overtake the other: so the instant tells which edition is newer.
    """


NO_EDITION: Edition = -1.0, {}
"""Stands for that of a class that came without: it is older than any, and any differs from it in all attributes."""

TRACKER = -2
"""The place of cloudpickle's id among the arguments that make a class or an enum, which end in (…, class_tracker_id, extra)."""

CACHES = "__slotnames__", "__msgspec_cache__"
"""What copyreg adds to a class when its first object is pickled or copied, and msgspec when it makes one; each does so anew."""

HOOK = "__init_subclass__"
ABSTRACT = "__abstractmethods__"
REGISTERED = "_abc_impl"
"""Stands in a pickle for the classes that are registered with an abstract one."""

_lock = careful(RLock)  # threads of a task may unpickle, too

_once: dict[str, MutableMapping[type, Edition | None]] = {}


def _made() -> MutableMapping[type, Edition | None]:
    """The edition of each class that was made in this process; None if it has no attributes yet."""
    if "made" not in _once:
        from weakref import WeakKeyDictionary  # late: workers do not need it to start

        # In one step: two threads would get one each from ``cache``.
        _once.setdefault("made", WeakKeyDictionary())
    return _once["made"]


def reduce_class(cls: type, reduced: Any, pickler: Any) -> Any:
    """The class as cloudpickle reduces it, with what that leaves out, and its edition if the pickler has editions."""
    if len(reduced) < 6:  # the class is found by its name
        return reduced
    from enum import Enum

    from parallelkit._worker import _annotations, _built  # late: workers do not need it to start

    known = _built.expression(cls)
    if known is not None:
        return known
    if issubclass(cls, Enum):
        reduced = make_enum, *_enums.parts(cls, reduced), *reduced[3:]
    else:
        reduced = _whole(cls, reduced)
    state, _ = reduced[2]
    for name in CACHES:
        state.pop(name, None)
    _annotations.set_annotations(cls, state, type(pickler))
    editions: Reducer | None = pickler.editions
    if editions is not None:
        reduced = editions.reduce(cls, reduced)
        if len(reduced) < 6:  # something stands for the class
            return reduced
    return _ahead(cls, reduced)


def _ahead(cls: type, reduced: Any) -> Any:
    """The same, but a class that is new at the other end gets what the unpickling of its objects calls before all else.

    An attribute, or a global that a method names, may lead to objects of the class itself, be it as keys of a dict. What is
    not set by then is not in their way: the ``__new__`` of a singleton, a ``__setattr__`` that refuses, a ``__getattr__``.
    """
    from parallelkit._worker import _virtual  # late: workers do not need it to start
    from parallelkit._worker._built import Called

    make, spec, (attributes, members, *others), *rest = reduced
    order = {name: place for place, name in enumerate(vars(cls))}
    whole = dict(sorted(attributes.items(), key=lambda each: order.get(each[0], len(order))))
    given = dict(whole)
    if FIELDS in whole:
        from dataclasses import fields

        # Class variables are among them, too, which may lead to objects of the class.
        given[FIELDS] = {field.name: field for field in fields(cls)}
    hashing, reading = (
        [Called(set_first, cls, name, given[name]) for name in group if name in whole]
        for group in needed_by_objects(cls)
    )
    # The hash of an enum's members may be made of their attributes.
    filled = [Called(set_members, cls, members)] if members else []
    virtual = [Called(_virtual.register, base, cls) for base in _virtual.bases_of(cls)]
    first: dict[int | str, Any] = dict(enumerate([*hashing, *filled, *reading, *virtual]))
    return make, spec, (first | whole, *others), *rest


def set_first(cls: type, name: str, value: object) -> str:
    """Set an attribute of a class that has no edition yet, and return its name."""
    if _made().get(cls, NO_EDITION) is None:
        _setter(cls)(cls, name, value)
    return name


def set_members(cls: type, members: dict[str, Any]) -> None:
    """Give the members of an enum that has no edition yet their attributes, or a class of ``ctypes`` its fields."""
    if _made().get(cls, NO_EDITION) is not None:
        return
    if hasattr(cls, "__members__"):
        _enums.set_attributes(cls, members)
    else:
        for name, value in members.items():
            setattr(cls, name, value)


def _setter(cls: type) -> Callable[[type, str, Any], None]:
    """How to set an attribute: without the ``__setattr__`` of a metaclass of the script, which has accepted it already."""
    return _in_c(type(cls), "__setattr__") if type(cls) in _made() else setattr


def _in_c(metaclass: type, name: str) -> Any:
    """The first method of this name, of the metaclass and its bases, that is code in C: that of ``type``, or of ``ctypes``."""
    methods = (vars(kind).get(name) for kind in metaclass.__mro__)
    return next(method for method in methods if type(method) is WrapperDescriptorType)


def _whole(cls: type, reduced: Any) -> Any:
    """The class with its slots, its qualified name, and attributes that are the same objects as those of a base.

    Without slots, objects made there would have a ``__dict__``, and would not fit the class here.
    """
    from typing import TypedDict, is_typeddict

    from parallelkit._worker._built import definition  # late: workers do not need it to start

    make, (kind, name, bases, given, tracker, keywords), (attributes, own), *rest = reduced
    if is_typeddict(cls) and "__orig_bases__" not in vars(cls):  # nearly all have it from Python 3.12 on
        bases = (TypedDict,)  # in place of dict, which the metaclass refuses
    given = given | {"__qualname__": cls.__qualname__}
    of_bases = [vars(base) for base in cls.__bases__]
    repeated = {k: v for k, v in vars(cls).items() if any(v is known.get(k, cls) for known in of_bases)}
    repeated.pop("__weakref__", None)  # since Python 3.15 the same object in all classes; each gets its own
    attributes = repeated | attributes
    built = definition(cls, attributes)
    if built is not None:
        body, keywords, attributes, own = built
        given |= body
    # typing.NamedTuple sets slots itself, and refuses them.
    elif "__slots__" in vars(cls) and "NamedTuple" not in [getattr(base, "__name__", "") for base in bases]:
        given["__slots__"] = vars(cls)["__slots__"]
        attributes = {k: v for k, v in attributes.items() if type(v) is not MemberDescriptorType}
    return make, (kind, name, bases, given, tracker, keywords), (attributes, own), *rest


def make_class(*spec: Any) -> type:
    """The class of this id that this process has, or a new one without attributes."""
    return _find_or_make(_make_bare, spec)


def _make_bare(
    kind: Any, name: str, bases: tuple[Any, ...], given: dict[str, Any], tracker: str, keywords: Any
) -> type:
    """Make a class without the hooks of its metaclass and its bases, as far as those are the script's, too.

    They have run where the class was made, and what they did to it is among its attributes. Here they would have neither
    these nor the keyword arguments that they may require.
    """
    from cloudpickle import cloudpickle

    made = _made()
    maker = next(base for base in kind.__mro__ if base not in made)
    make = kind if maker is kind else partial(_make_by, maker, kind)
    if keywords:
        make = partial(make, **keywords)
    with _lock:
        above = [cls for base in resolve_bases(bases) for cls in base.__mro__ if cls in made]
        hooks = {cls: vars(cls)[HOOK] for cls in above if HOOK in vars(cls)}
        try:
            for cls in hooks:
                _in_c(type(cls), "__delattr__")(cls, HOOK)
            bare: type = cloudpickle._make_skeleton_class(make, name, bases, given, tracker, None)
        finally:
            for cls, hook in hooks.items():
                _in_c(type(cls), "__setattr__")(cls, HOOK, hook)
    if ABSTRACT in vars(bare):  # as long as it lacks its methods, which may lead to objects of it
        _in_c(kind, "__setattr__")(bare, ABSTRACT, frozenset())
    return bare


def _make_by(maker: Any, kind: type, *args: Any, **keywords: Any) -> type:
    """What the metaclass makes without code of its own, as ``maker`` makes it, which is one of its bases."""
    cls: type = maker.__new__(kind, *args, **keywords)
    _in_c(kind, "__init__")(cls, *args, **keywords)  # what that does may be no attribute, as in ctypes
    return cls


def make_enum(*spec: Any) -> type:
    """The enum of this id that this process has, or a new one made of what ``_enums.parts`` gives."""
    return _find_or_make(_enums.make_enum, spec)


def _find_or_make(make: Callable[..., type], spec: tuple[Any, ...]) -> type:
    known = find(spec[TRACKER])
    if known is not None:
        return known
    made = make(*spec)
    _made()[made] = None
    return made


def find(tracker: str) -> type | None:
    """The class of this id that this process has, if any."""
    from cloudpickle import cloudpickle

    return cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)  # type: ignore[no-any-return]  # it has no types


def is_made(cls: type) -> bool:
    """Whether this process has made the class of what another has sent."""
    return cls in _made()


def fill_class(cls: type, state: Any) -> type:
    """Set the attributes of a class that came without an edition; only once, and only if this process has made it."""
    return fill_edition(cls, (state[0], NO_EDITION))


def fill_edition(cls: type, state: tuple[dict[str, Any], Edition]) -> type:
    """Set the attributes of a class that was made here, or those that have changed since its last edition.

    The caller's own class is left alone.
    """
    _script.arrive_class(cls)
    if cls in _made():
        with _lock:
            _fill(cls, *state)
    return cls


def _fill(cls: type, attributes: dict[Any, Any], edition: Edition) -> None:
    had = _made()[cls]
    if had is None:
        first = {name for at, name in attributes.items() if type(at) is int}  # see _ahead
        for name in first.intersection(vars(cls)):
            _in_c(type(cls), "__delattr__")(cls, name)  # and so it gets its place among the others
        attributes = {name: value for name, value in attributes.items() if type(name) is str}
    elif had[0] >= edition[0]:
        return
    else:
        attributes = _renewed(cls, attributes, had[1], edition[1])
    registered, assign = attributes.pop(REGISTERED, ()), _setter(cls)
    for name, value in attributes.items():
        assign(cls, name, value)
    for other in registered:
        cls.register(other)  # type: ignore[attr-defined]  # it is abstract
    _made()[cls] = edition


def _renewed(
    cls: type, attributes: dict[str, Any], had: dict[str, bytes], has: dict[str, bytes]
) -> dict[str, Any]:
    """The attributes that have changed; those that the script has deleted are deleted here.

    The others stay, whatever tasks have stored in them; and so do all that an initializer has assigned.
    """
    kept = _script.assigned_to.get(cls, frozenset())
    for name in had.keys() - has.keys() - kept:
        if name in vars(cls):
            delattr(cls, name)
    return {n: attributes[n] for n, digest in has.items() if had.get(n) != digest and n not in kept}
