"""Makes the functions of the script in a worker without cloudpickle, which would take as long to load as the worker takes to start.

These are in place of cloudpickle's functions that the pickle of a function names. Other things, such as classes, load cloudpickle.
"""

from __future__ import annotations

import builtins
import sys
import types

from parallelkit._worker import _script

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _import(name: str) -> types.ModuleType:
    __import__(name)
    return sys.modules[name]


def _fill(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give the function what it refers to, which may be the function itself: so that was made first, with empty cells."""
    own, rest = state
    vars(function).update(own)
    function.__globals__.update(rest.pop("__globals__"), __builtins__=builtins)
    for cell, given in zip(function.__closure__ or (), rest.pop("__closure__") or (), strict=True):
        try:
            cell.cell_contents = given.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    rest.pop("_cloudpickle_submodules")  # which are loaded by now
    for name, value in rest.items():
        setattr(function, name, value)
    _script.arrive(function)


MAKERS: dict[str, Callable[..., Any]] = {
    "_make_function": types.FunctionType,
    "_function_setstate": _fill,
    "_builtin_type": types.__dict__.__getitem__,
    "_make_cell": types.CellType,
    "_make_empty_cell": types.CellType,
    "subimport": _import,
}
"""By the names in cloudpickle."""
