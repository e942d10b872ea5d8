"""Which attributes of a class the unpickling of its objects needs."""

from __future__ import annotations

from types import FunctionType

from parallelkit._worker._caches import CACHED
from parallelkit._worker._functions import names

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

FIELDS = "__dataclass_fields__"
REBUILDING = "__setstate__", FIELDS, "__hash__", "__eq__"
"""What the unpickling of an object calls, or needs, for its state and for its place in a set or dict."""

ARGUMENTS = "__getnewargs__", "__getnewargs_ex__", "__reduce__", "__reduce_ex__"
MAKING = "__new__", "__init__", *ARGUMENTS
"""What it calls, too, if the class says how its objects are made, by one of ARGUMENTS."""

READING = (
    "__str__",
    "__repr__",
    "__format__",
    "__bool__",
    "__int__",
    "__float__",
    "__len__",
    "__getitem__",
    "__iter__",
)
"""What these may call without naming it, as in ``hash(tuple(self))``. Pickle itself calls none of them."""

WRAPPERS = FunctionType, classmethod, staticmethod, CACHED


def needed_by_objects(cls: type) -> tuple[list[str], list[str]]:
    """The names of the attributes by which objects are made and hashed, and of others that these may call, inherited ones included.

    In both lists, what an attribute names stands before it, as it must be set before. The second list is to be set after the first,
    because it may lead to a dict whose keys are objects of the class.
    """
    bases = [vars(base) for base in cls.__mro__ if base.__module__ == cls.__module__]

    def with_named(roots: Iterable[str]) -> list[str]:
        found = [*roots]
        for name in found:  # which grows
            for value in [base[name] for base in bases if name in base]:  # one may call the next by ``super``
                named = _named_by(value, cls.__module__)
                found += [other for other in named if other not in found]
        return found[::-1]

    making = MAKING if any(name in base for base in bases for name in ARGUMENTS) else ()
    return with_named((*REBUILDING, *making)), with_named(READING)


def _named_by(value: Any, module: str) -> dict[str, None]:
    """What a method or property names, and what the functions of the module that it calls do.

    But ``object.__setattr__``, say, is not that of its own class.
    """
    found: dict[str, None] = {}
    calls = [value.fget, value.fset] if type(value) is property else [value]
    for one in calls:  # which grows
        if type(one) in WRAPPERS:
            calls.append(getattr(one, "__wrapped__", None))
        if type(one) is FunctionType:
            own, known = [*names(one.__code__)], one.__globals__
            found.update(dict.fromkeys(name for name in own if name[:2] != "__"))
            called = [known[name] for name in own if type(known.get(name)) is FunctionType]
            calls += [each for each in called if each.__module__ == module and each not in calls]
    return found
