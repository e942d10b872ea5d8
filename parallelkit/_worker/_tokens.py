"""Objects that a module has once, and looks for with ``is``, such as ``botocore.UNSIGNED``: a task would have another one by value.

Whatever holds one: a function, a schema of marshmallow (``missing``), a list.
"""

from __future__ import annotations

import sys
from copyreg import __newobj__  # type: ignore[attr-defined]  # public by its name alone
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType

from parallelkit._raised import tolerated
from parallelkit._worker import _by_value
from parallelkit._worker._by_name import SPOILED
from parallelkit._worker._elsewhere import elsewhere, is_importable, is_of_library, is_sent, loaded
from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from typing import Any

    Places = dict[int, tuple[str, str]]
    """Modules, by their names, and the names that they have for objects, by the ids of these."""

_USUAL = "__eq__", "__reduce__", "__reduce_ex__", "__getstate__"
"""What a token's class has of ``object``."""

_PICKLED = FunctionType, BuiltinFunctionType, MethodType, type, NoneType
"""What picklers know; classes of any metaclass are among it."""


_TEXTS = {str, NoneType}


def of_sys() -> dict[type, Any]:
    """How ``sys.version_info`` and the like are pickled, whose classes have no name: by that which they have in ``sys``."""
    names = {type(known): name for name, known in vars(sys).items() if type(known).__module__ == "sys"}
    return dict.fromkeys(names, lambda known: (getattr, (sys, names[type(known)])))


def reduce_function(pickler: Any, function: FunctionType) -> Any:
    """As ``_by_value.reduce_function``, but by name if a module of its library has it."""
    return elsewhere(function) or _by_value.reduce_function(pickler, function)


def reduce_object(pickler: Any, thing: object) -> Any:
    """How an object that is neither a function nor a class is pickled by name; NotImplemented if it is not.

    ``pickler.ways``: what is known of the types that this pickler has met.
    """
    kind = type(thing)
    try:
        way = pickler.ways[kind]
    except (AttributeError, KeyError):  # there are none yet
        way = _way_of(thing, kind, pickler.dispatch_table)
        vars(pickler).setdefault("ways", {})[kind] = way
    return NotImplemented if way is None else way(thing)


def _way_of(thing: object, kind: type, known: Container[type]) -> Callable[[Any], Any] | None:
    """What tells how objects of this type are pickled by name, if any are. ``known``: the types that the pickler knows."""
    home = type.__getattribute__(kind, "__module__")
    if kind in known or type(home) is not str or home in NAMES:
        return None
    if issubclass(kind, _PICKLED) or not _is_usual(kind):
        return None
    return _reduce_callable if callable(thing) and _made_of(thing) is None else _Tokens(kind).reduce


class _Tokens:
    """The tokens of a type. Where they are is looked for once there is an object that may be one."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._places: Places | None = None

    def reduce(self, thing: object) -> Any:
        if self._places == {} or (texts := _texts_of(thing)) is None:
            return NotImplemented
        if self._places is None:
            self._places = _places_of(self._kind)
        found = _name_of(thing, self._places)
        if found is None:
            return NotImplemented
        SPOILED.add(self._kind)
        return find_token, (*found, texts)


def _is_usual(kind: type) -> bool:
    """Whether its objects have no way of their own to be compared or pickled."""
    return all(type.__getattribute__(kind, name) is getattr(object, name) for name in _USUAL)


def _made_of(value: object) -> Any:
    """How it is pickled: by what, of what, and with which state; None if it cannot be."""
    with tolerated():  # it may refuse in any way
        return object.__reduce_ex__(value, 5)[:3]
    return None


def _texts_of(thing: object) -> dict[str, Any] | None:
    """The state of a token: nothing, or texts, such as its name; None if it is no token."""
    made_of = _made_of(thing)
    if made_of is None or made_of[:2] != (__newobj__, (type(thing),)):
        return None
    state = made_of[2] or {}
    return state if type(state) is dict and {*map(type, state.values())} <= _TEXTS else None


def _is_homeless(kind: type) -> bool:
    """Whether the module of its objects is not that which it tells: that of plain objects, or of what a function has made."""
    return kind is object or "<locals>" in type.__getattribute__(kind, "__qualname__")


def _places_of(kind: type) -> Places:
    """Where objects of this type are."""
    if not _is_homeless(kind):
        return _places([type.__getattribute__(kind, "__module__")], lambda other: other is kind)
    return _all_places(*loaded())


@lru_cache(1)
def _all_places(*_: object) -> Places:
    """Where those are whose type tells no module of theirs. What it is given tells whether other modules have been loaded since."""
    modules = [(path, module) for path, module in list(sys.modules.items()) if type(module) is ModuleType]
    found = [
        path for path, module in modules if vars(module).get("__spec__") is not None
    ]  # else no worker finds it
    return _places([path for path in found if path not in NAMES], _is_homeless)


def _places(paths: Iterable[str], is_meant: Callable[[type], bool]) -> Places:
    """Where objects of such types are: in a library's module if one has them, for others may do anything as they are imported."""
    found: Places = {}
    known: dict[type, bool] = {}  # of the types that there are; there may be 100,000 objects
    for path in paths:
        module = sys.modules.get(path)
        if type(module) is not ModuleType or vars(module).get("__name__") != path:
            continue
        held = vars(module).copy()  # as another thread may be importing it
        kinds = {*map(type, held.values())}
        known |= {kind: is_meant(kind) for kind in kinds if kind not in known}
        if not any(map(known.__getitem__, kinds)):
            continue
        for name, value in held.items():
            if known[type(value)] and (id(value) not in found or _is_better(path, found[id(value)][0])):
                found[id(value)] = path, name
    return found


def _is_better(path: str, other: str) -> bool:
    """Whether the first is a library's module, and the other is not."""
    return is_of_library(path) and not is_of_library(other)


def _name_of(token: object, places: Places) -> tuple[ModuleType, str, type | None] | None:
    """The module that has it, the name that it has there, and its class if that is found by name, too.

    None if there is none, or if the module is sent by value.
    """
    kind = type(token)
    path, name = places.get(id(token), ("", ""))
    module = sys.modules.get(path)
    if module is None or vars(module).get(name) is not token or is_sent(module):
        return None
    if is_importable(kind):
        return module, name, kind
    # Often the token has the name of its class. Else the program may have put it there, and made its class.
    return (module, name, None) if kind.__name__ == name or is_of_library(path) else None


def find_token(module: ModuleType, name: str, kind: Any, texts: dict[str, Any]) -> Any:
    """The token of this process; if it has another object there, or none, the program has put it there: then one like that."""
    if kind is None:
        return getattr(module, name)
    found = getattr(module, name, None)
    if type(found) is kind and _texts_of(found) == texts:
        return found
    made = kind.__new__(kind)
    if texts:
        vars(made).update(texts)
    return made


def _reduce_callable(known: Any) -> Any:
    return elsewhere(known) or NotImplemented
