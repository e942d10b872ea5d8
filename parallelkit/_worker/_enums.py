"""Enums that are sent by value: with aliases, and with what their own ``__new__`` and ``__init__`` have made of each member.

cloudpickle leaves aliases out, and makes members anew from their values, at a time when the class has no methods yet.
"""

from __future__ import annotations

from copyreg import _slotnames  # type: ignore[attr-defined]  # private; by which objects are pickled
from types import BuiltinMethodType

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any


def parts(cls: Any, reduced: Any) -> tuple[Any, Any]:
    """What ``make_enum`` takes, and the state: as cloudpickle has them, but with all names, and the data and attributes of members."""
    _, (bases, name, qualname, _, module, tracker, _), (attributes, _), *_ = reduced
    members = {key: (member._value_, _data_of(member)) for key, member in cls.__members__.items()}
    spec = bases, name, qualname, members, module, tracker, type(cls)
    kept = {key: value for key, value in attributes.items() if key not in members}
    return spec, (kept, {key: _attributes_of(cls[key]) for key in members})


def _data_of(member: Any) -> tuple[Any, ...]:
    """The arguments with which its data type makes the member, as an object without attributes."""
    kind = _data_type(type(member))
    if kind is object:
        return ()
    if hasattr(kind, "__getnewargs__"):
        # The member's own would not do: that of a named tuple gives the arguments of its own ``__new__``.
        return kind.__getnewargs__(member)  # type: ignore[no-any-return]  # what it returns is not typed
    make, args, *_ = kind.__reduce_ex__(member, 5)
    return args if args and make is type(member) else (kind(member),)


def _data_type(cls: type) -> Any:
    """The builtin class that is mixed in, such as int; else ``object``."""
    return next(base for base in cls.__mro__ if type(vars(base).get("__new__")) is BuiltinMethodType)


def _attributes_of(member: Any) -> dict[str, Any]:
    """The attributes, also those in slots."""
    slots = {key: getattr(member, key) for key in _slotnames(type(member)) if hasattr(member, key)}
    return {**slots, **vars(member)}


def make_enum(
    bases: tuple[type, ...],
    name: str,
    qualname: str,
    members: dict[str, tuple[Any, tuple[Any, ...]]],
    module: str,
    tracker: str,
    metaclass: Any,
) -> type:
    """The enum with its members, which lack their attributes; or the one of this id that this process has.

    What a metaclass of the script's own did as it was made there is among the attributes.
    """
    from enum import EnumType, member

    from cloudpickle import cloudpickle

    data = iter(members.values())

    def new_member(cls: Any, *_: object) -> Any:
        value, args = next(data)
        kind = _data_type(cls)
        made = kind.__new__(cls, *args)
        if kind.__init__ is not object.__init__:  # a list, for one
            kind.__init__(made, *args)
        made._value_ = value
        return made

    namespace: Any = EnumType.__prepare__(name, bases)
    namespace["__module__"], namespace["__qualname__"] = module, qualname
    namespace["__new__"], namespace["__init__"] = new_member, lambda *_: None
    for key, (value, _) in members.items():
        namespace[key] = member(value)
    made = EnumType.__new__(metaclass, name, bases, namespace)
    for key in ("__init__", "__new_member__", "_new_member_", "_use_args_"):
        type.__delattr__(made, key)  # what it has of these itself is among its attributes
    return cloudpickle._lookup_class_or_track(tracker, made)  # type: ignore[no-any-return]  # it has no types


def set_attributes(cls: Any, members: dict[str, dict[str, Any]]) -> None:
    """Give the members of a new enum their attributes."""
    for name, attributes in members.items():
        for key, value in attributes.items():
            if key in _slotnames(cls):
                object.__setattr__(cls[name], key, value)
            else:
                vars(cls[name])[key] = value  # past what the class has of that name, such as a property
