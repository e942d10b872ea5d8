"""Functions of the script: what is pickled of them, and how a worker makes them.

The pickles are cloudpickle's, but a worker does not load it for them, which would take as long as the worker takes to
start. Other things, such as classes, load it.
"""

from __future__ import annotations

import builtins
import sys
import types

from parallelkit._worker import _script

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


CO_OPTIMIZED = 1
"""A flag of the code of functions, which the code in the body of a class has not."""

BODY_LOADS = "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"
"""How that gets the value of a global, unless the class has a variable of this name by then."""


def reduce_function(pickler: Any, function: types.FunctionType) -> Any:
    """In place of cloudpickle's ``_dynamic_function_reduce``, from whose result this hardly differs.

    For each package that the function names (``np``), that looks through all modules that are loaded. Where there are a
    thousand, it takes longer than all the rest, with each call that brings its function. And of the code inside the function
    it does not see which modules within the package (``np.linalg``) that uses, nor which globals, if it is a class's.
    """
    from cloudpickle import cloudpickle  # late: it takes 20 ms to import

    code, variables = function.__code__, function.__globals__
    used = {name: variables[name] for name in global_names(code) if name in variables}
    captured = map(cloudpickle._get_cell_contents, function.__closure__ or ())
    rest = {
        # Copies: otherwise the pickle would tell whether a text happens to be the same object as another.
        "__name__": "".join(function.__name__),
        "__qualname__": "".join(function.__qualname__),
        "__annotations__": function.__annotations__,
        "__kwdefaults__": function.__kwdefaults__,
        "__defaults__": function.__defaults__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
        "__closure__": function.__closure__,
        "_cloudpickle_submodules": list(_submodules(code, [*used.values(), *captured])),
        "__globals__": used,
    }
    own = {"".join(name): value for name, value in vars(function).items()}
    args = pickler._function_getnewargs(function)
    return cloudpickle._make_function, args, (own, rest), None, None, cloudpickle._function_setstate


def global_names(code: types.CodeType) -> Iterable[str]:
    """The names of the globals that the code of a function may use, in an order that is always the same."""
    from cloudpickle import cloudpickle

    names: dict[str, Any] = cloudpickle._extract_code_globals(code)
    bodies = [each for each in codes(code) if not each.co_flags & CO_OPTIMIZED]
    if not bodies:
        return names
    from dis import get_instructions

    steps = (step for each in bodies for step in get_instructions(each))
    return dict.fromkeys([*names, *(step.argval for step in steps if step.opname in BODY_LOADS)])


def _submodules(code: types.CodeType, values: Iterable[object]) -> Iterator[types.ModuleType]:
    """The loaded modules within these packages that the code may reach by attributes: they must be loaded there, too."""
    modules = [value for value in values if isinstance(value, types.ModuleType)]
    ahead = [module.__name__ for module in modules if getattr(module, "__package__", None)]
    names = dict.fromkeys(name for each in codes(code) for name in each.co_names) if ahead else ()
    while ahead:
        package = ahead.pop()
        for name in names:
            module = sys.modules.get(f"{package}.{name}")
            if module is not None:
                ahead.append(f"{package}.{name}")
                yield module


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
"""By the names in cloudpickle, for whose functions in the pickle of a function these stand."""
