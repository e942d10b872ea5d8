"""Enums that are sent by value: with aliases, and with what their own ``__new__`` and ``__init__`` have made of each member.

cloudpickle leaves aliases out, and makes members anew from their values, at a time when the class has no methods yet.
"""

from __future__ import annotations

from copyreg import __newobj__  # type: ignore[attr-defined]  # private; what objects are pickled with
from types import BuiltinMethodType

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

MAKING = ("_new_member_", "_use_args_")
"""Attributes of an enum that come from its ``__new__``."""


def reduce_enum(cls: Any, reduced: Any, make: Any) -> Any:
    """An enum as cloudpickle reduces it, but with all names, and with the data and the attributes of each member.

    ``make``: calls ``make_enum``.
    """
    _, (bases, name, qualname, _, module, tracker, _), (attributes, _), *rest = reduced
    members = {key: (member._value_, _data_of(member)) for key, member in cls.__members__.items()}
    spec = bases, name, qualname, members, module, tracker, getattr(cls, "_boundary_", None)
    kept = {key: value for key, value in attributes.items() if key not in members}
    kept |= {key: vars(cls)[key] for key in MAKING}
    return make, spec, (kept, {key: _attributes_of(cls[key]) for key in members}), *rest


def _data_of(member: Any) -> tuple[Any, ...]:
    """The arguments with which its data type makes the member, as an object without attributes."""
    make, args, *_ = _data_type(type(member)).__reduce_ex__(member, 5)
    return args[1:] if make is __newobj__ else args  # type: ignore[no-any-return]  # what it returns is not typed


def _data_type(cls: type) -> Any:
    """The builtin class that is mixed in, such as int; else ``object``."""
    return next(base for base in cls.__mro__ if type(vars(base).get("__new__")) is BuiltinMethodType)


def _attributes_of(member: Any) -> dict[str, Any]:
    """The attributes that are not the enum machinery's own."""
    return {key: value for key, value in vars(member).items() if not key[0] == key[-1] == "_"}


def make_enum(
    bases: tuple[type, ...],
    name: str,
    qualname: str,
    members: dict[str, tuple[Any, tuple[Any, ...]]],
    module: str,
    tracker: str,
    boundary: Any,
) -> type:
    """The enum with its members, which lack their attributes; or the one of this id that this process has."""
    from enum import member

    from cloudpickle import cloudpickle

    data = iter(members.values())

    def new_member(cls: Any, *_: object) -> Any:
        value, args = next(data)
        made = _data_type(cls).__new__(cls, *args)
        made._value_ = value
        return made

    metaclass: Any = type(bases[-1])
    namespace = metaclass.__prepare__(name, bases)
    namespace["__new__"], namespace["__init__"] = new_member, lambda *_: None
    for key, (value, _) in members.items():
        namespace[key] = member(value)
    options = {} if boundary is None else {"boundary": boundary}
    made = metaclass.__new__(metaclass, name, bases, namespace, **options)
    del made.__init__, made.__new_member__
    made.__module__, made.__qualname__ = module, qualname
    return cloudpickle._lookup_class_or_track(tracker, made)  # type: ignore[no-any-return]  # it has no types


def set_attributes(cls: Any, members: dict[str, dict[str, Any]]) -> None:
    """Give the members of a new enum their attributes."""
    for name, attributes in members.items():
        vars(cls[name]).update(attributes)
