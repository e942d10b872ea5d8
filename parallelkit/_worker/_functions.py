"""Functions of the script: how a worker makes them (_by_value.py: what is pickled of them), and what their code names."""

from __future__ import annotations

import builtins
import sys
import types

from parallelkit._worker import _script

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def make_function(
    code: types.CodeType, shared: dict[str, Any], closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """Make a function without what it refers to, which may be the function itself."""
    return types.FunctionType(code, shared, None, None, closure)


def make_code(*parts: Any) -> types.CodeType:
    """Make code of what ``reduce_code`` takes of it."""
    return types.CodeType(*parts)


def make_cell(*contents: Any) -> types.CellType:
    """Make a captured variable, with its value if it has one."""
    return types.CellType(*contents)


def import_module(name: str) -> types.ModuleType:
    """Import a module."""
    __import__(name)
    return sys.modules[name]


def make_lazy(statement: str) -> Any:
    """Make a lazy import, as Python 3.15 has it: it has no other way to make one."""
    scope: dict[str, Any] = {}
    exec(statement, scope)
    *_, made = scope.values()  # after the builtins
    return made


def fill_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give a function what it refers to."""
    own, rest = state
    vars(function).update(own)
    function.__globals__.update(rest.pop("__globals__"), __builtins__=builtins)
    for cell, given in zip(function.__closure__ or (), rest.pop("__closure__") or (), strict=True):
        if is_set(given):
            cell.cell_contents = given.cell_contents
    rest.pop("submodules")  # which are loaded by now
    for name, value in rest.items():
        setattr(function, name, value)
    _script.arrive(function)


def is_set(cell: types.CellType) -> bool:
    """Whether a captured variable has a value."""
    try:
        cell.cell_contents  # noqa: B018  # raises if it has none
    except ValueError:
        return False
    return True


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from codes(const)


def names(code: types.CodeType) -> Iterator[str]:
    """The globals, attributes and closure variables that the code of a function names, and of the functions inside it."""
    for each in codes(code):
        yield from each.co_names
        yield from each.co_freevars
