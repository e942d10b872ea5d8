"""Objects that a module has once, and looks for with ``is``, such as ``botocore.UNSIGNED``: a task would have another one by value."""

from __future__ import annotations

import sys
from copyreg import __newobj__  # type: ignore[attr-defined]  # public by its name alone
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType

from parallelkit._raised import tolerated
from parallelkit._worker import _by_value
from parallelkit._worker._elsewhere import elsewhere, is_importable, is_of_library, is_sent
from parallelkit._worker._functions import is_set
from parallelkit._worker._script import NAMES

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

_USUAL = "__eq__", "__reduce__", "__reduce_ex__", "__getstate__"
"""What a token's class has of ``object``."""

_PICKLED = FunctionType, BuiltinFunctionType, MethodType, type, NoneType
"""What picklers know; classes of any metaclass are among it."""


def of_sys() -> dict[type, Any]:
    """How ``sys.version_info`` and the like are pickled, whose classes have no name: by that which they have in ``sys``."""
    names = {type(known): name for name, known in vars(sys).items() if type(known).__module__ == "sys"}
    return dict.fromkeys(names, lambda known: (getattr, (sys, names[type(known)])))


def reduce_function(pickler: Any, function: FunctionType) -> Any:
    """As ``_by_value.reduce_function``, but by name if a module of its library has it.

    Tokens among what the function uses, and callables written in C, are then sent by name, wherever else they are.
    """
    if (by_name := elsewhere(function)) is not None:
        return by_name
    reduced = _by_value.reduce_function(pickler, function)
    _, rest = reduced[2]
    captured = [cell.cell_contents for cell in rest["__closure__"] or () if is_set(cell)]
    for value in (*rest["__globals__"].values(), *captured):
        kind = type(value)
        if kind in pickler.dispatch_table or issubclass(kind, _PICKLED) or not _is_usual(kind):
            continue
        made_of = _made_of(value)
        if made_of is None and callable(value) and elsewhere(value) is not None:
            pickler.dispatch_table[kind] = _reduce_callable
        elif made_of == (__newobj__, (kind,), None) and _name_of(value) is not None:
            pickler.dispatch_table[kind] = _reduce_token
    return reduced


def _is_usual(kind: type) -> bool:
    """Whether its objects have no way of their own to be compared or pickled."""
    return all(type.__getattribute__(kind, name) is getattr(object, name) for name in _USUAL)


def _made_of(value: object) -> Any:
    """How it is pickled: by what, of what, and with which state; None if it cannot be."""
    with tolerated():  # it may refuse in any way
        return object.__reduce_ex__(value, 5)[:3]
    return None


def _name_of(token: object) -> tuple[ModuleType, str, type | None] | None:
    """The module of its class, the name that it has there, and its class if that is found by name, too.

    None if there is none, or if the module is sent by value.
    """
    home = type.__getattribute__(type(token), "__module__")
    module = sys.modules.get(home) if type(home) is str and home not in NAMES else None
    if type(module) is not ModuleType or is_sent(module):
        return None
    # A list, as another thread may be importing it.
    name = next((name for name, value in list(vars(module).items()) if value is token), None)
    if name is None:
        return None
    kind = type(token)
    if is_importable(kind):
        return module, name, kind
    # Often the token has the name of its class. Else the program may have put it there, and made its class.
    return (module, name, None) if kind.__name__ == name or is_of_library(home) else None


def find_token(module: ModuleType, name: str, kind: Any) -> Any:
    """The token of this process; if it has another object there, or none, the program has put it there: then one of that class."""
    found = getattr(module, name) if kind is None else getattr(module, name, None)
    return found if kind is None or type(found) is kind else kind.__new__(kind)


def _reduce_token(token: object) -> Any:
    return token.__reduce_ex__(5) if (found := _name_of(token)) is None else (find_token, found)


def _reduce_callable(known: Any) -> Any:
    return elsewhere(known) or known.__reduce_ex__(5)
