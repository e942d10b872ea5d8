"""Classes of ``ctypes`` and msgspec, which code in C builds from their definition, sent by value.

Their fields are descriptors that no pickle has, and setting attributes makes none. So the definition is sent.
"""

from __future__ import annotations

import sys
from functools import partial
from operator import mul
from types import MemberDescriptorType

from parallelkit._raised import tolerated
from parallelkit._worker._by_value import annotations_of

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Definition = tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any], dict[str, Any]]

BODY = (
    "_type_",
    "_length_",
    "_flags_",
    "_restype_",
    "_argtypes_",
    "_anonymous_",
    "_pack_",
    "_layout_",
    "_align_",
)
"""What a class of ``ctypes`` must have as it is made, or before its fields."""

KINDS = "Structure", "Union", "Array", "_Pointer", "_SimpleCData", "_CFuncPtr"
ENDS = {"little": ("__ctype_le__", "__ctype_be__"), "big": ("__ctype_be__", "__ctype_le__")}


class Called:
    """Stands for what a function returns at the other end."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._reduced = function, args

    def __reduce__(self) -> Any:
        return self._reduced


def makers_of(cls: type) -> set[str]:
    """The modules that the class's metaclass and its bases are of."""
    metaclass: Any = type(cls)
    return {kind.__module__.partition(".")[0] for kind in metaclass.__mro__}


def expression(cls: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """How a class that is not found by its name is had from others.

    Types of ``ctypes``: an array's, a pointer's, a number's of the other byte order. The metaclass of msgspec, before 0.20.
    """
    if cls.__module__ == "msgspec._core" and issubclass(cls, type):
        return type, (sys.modules["msgspec"].Struct,)
    if "_ctypes" not in makers_of(cls) | {cls.__module__}:
        return None
    import ctypes

    for kind in [getattr(ctypes, name) for name in KINDS]:
        if cls is type(kind):  # a metaclass, to which the module gives no name
            return type, (kind,)
    return _made_of_one(cls) if "_type_" in vars(cls) else None


def _made_of_one(cls: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    import ctypes

    if issubclass(cls, ctypes._SimpleCData):
        usual, other = ENDS[sys.byteorder]
        is_other = getattr(cls, other, None) is cls and getattr(cls, usual) is not cls
        return (getattr, (getattr(cls, usual), other)) if is_other else None
    if issubclass(cls, ctypes.Array):
        return (mul, (cls._type_, cls._length_)) if cls is cls._type_ * cls._length_ else None
    is_pointer = issubclass(cls, ctypes._Pointer) and cls is ctypes.POINTER(cls._type_)
    return (pointer_to, (cls._type_,)) if is_pointer else None


def pointer_to(cls: Any) -> Any:
    """The type of pointers to objects of the class. Its own name is ``_ctypes.POINTER``; but ``ctypes``, as it is imported, forgets all."""
    import ctypes

    return ctypes.POINTER(cls)


def is_field(value: object) -> bool:
    """Whether an attribute of a class of ``ctypes`` is one of its fields, which are not sent as such."""
    return type(value).__name__ == "CField"


def definition(cls: Any, attributes: Mapping[str, Any]) -> Definition | None:
    """What the body of the class must have, its keywords, what is set later, and its fields if these are set, too.

    ``attributes``: what would be set otherwise. None if the class is a usual one.
    """
    makers = makers_of(cls)
    if "_ctypes" in makers:
        return _of_ctypes(cls, attributes)
    return _of_msgspec(cls, attributes) if "msgspec" in makers else None


def _of_ctypes(cls: type, attributes: Mapping[str, Any]) -> Definition:
    body = {name: attributes[name] for name in BODY if name in attributes}
    fields = {name: attributes[name] for name in ["_fields_"] if name in attributes}
    rest = {name: value for name, value in attributes.items() if not is_field(value)}
    return body, None, {name: value for name, value in rest.items() if name not in body | fields}, fields


def _of_msgspec(cls: Any, attributes: Mapping[str, Any]) -> Definition:
    from typing import get_type_hints

    msgspec: Any = sys.modules["msgspec"]
    names, config = cls.__struct_fields__, cls.__struct_config__
    defaults = dict(zip(reversed(names), reversed(cls.__struct_defaults__), strict=False))
    own = [name for name in annotations_of(cls) if name in names]
    body: dict[str, Any] = {
        "__annotations__": dict.fromkeys(own, object)
    }  # the real ones follow, which may name the class
    body |= {name: attributes[name] for name in ["__post_init__"] if name in attributes}
    for name in own:
        default = defaults.get(name, msgspec.NODEFAULT)
        if type(default).__name__ == "Factory":
            body[name] = Called(partial(msgspec.field, default_factory=default.factory))
        elif default is not msgspec.NODEFAULT:
            body[name] = Called(partial(msgspec.field, default=default))
    keywords = {word: getattr(config, word) for word in dir(config) if word[:1] != "_"}
    keywords["rename"] = dict(zip(names, cls.__struct_encode_fields__, strict=True))
    keywords["kw_only"] = any(name not in cls.__match_args__ for name in own)
    rest = {name: value for name, value in attributes.items() if type(value) is not MemberDescriptorType}
    rest.pop("__slots__", None)
    with tolerated():  # else they stay as they are
        hints = get_type_hints(cls, include_extras=True)
        rest["__annotations__"] = {name: hints[name] for name in annotations_of(cls)}
    return body, keywords, rest, {}
