"""Pickles functions of the script by value, as cloudpickle would, but without loading it, which takes as long as a worker takes to start.

Only a pickle that needs more than functions, such as a class of the script, loads it.
"""

from __future__ import annotations

import sys
import types
from _pickle import Pickler
from abc import ABCMeta
from functools import lru_cache
from io import BytesIO
from itertools import accumulate

from parallelkit._raised import is_of_signal
from parallelkit._worker._elsewhere import MoreError, elsewhere, is_importable
from parallelkit._worker._functions import (
    codes,
    fill_function,
    import_module,
    is_set,
    make_cell,
    make_code,
    make_function,
    make_lazy,
)

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MAKERS = frozenset([fill_function, import_module, make_cell, make_code, make_function, make_lazy])

OF_GLOBALS = frozenset(
    ["LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"]
)
"""The operations that name a global; the last two, of a class's body and of types in it, if the class has no such variable by then."""

OF_CODE = (
    "argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames filename name qualname "
    "firstlineno linetable exceptiontable freevars cellvars"
)
"""The attributes of code, without their ``co_``, of which ``types.CodeType`` makes it."""

OF_MODULES = "__package__", "__name__", "__path__", "__file__"
"""The globals by which a function imports what is relative to its module."""


class _Functions(Pickler):
    """Pickles functions of the script, with what they refer to as long as that can be imported or is plain data."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, 5)
        self.globals_ref: dict[int, dict[str, Any]] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Called for all but plain data. Of other types, plain pickle and cloudpickle may make different things."""
        kind = type(obj)
        if kind is types.FunctionType:
            return NotImplemented if is_importable(obj) else elsewhere(obj) or reduce_function(self, obj)
        if kind in _REDUCERS:
            return _REDUCERS[kind](obj)
        if kind in _PLAIN or obj is types.NoneType or (kind in _NAMED and is_importable(obj)):
            return NotImplemented
        if issubclass(kind, types.ModuleType):
            return reduce_module(obj)
        raise MoreError


def pack_function(function: object, file: BytesIO) -> bytes:
    """The pickle of a function of the script, by way of ``file``; raises MoreError if it needs cloudpickle."""
    if _are_any_sent():
        raise MoreError
    _Functions(file).dump(function)
    return file.getvalue()


def _are_any_sent() -> bool:
    """Whether the program has registered modules with cloudpickle to be sent by value."""
    # Another thread may be loading it just now; then nothing is registered yet.
    registry = getattr(sys.modules.get("cloudpickle.cloudpickle"), "list_registry_pickle_by_value", None)
    return registry is not None and bool(registry())


def reduce_function(pickler: Any, function: types.FunctionType) -> Any:
    """In place of cloudpickle's ``_dynamic_function_reduce``, whose result hardly differs.

    ``pickler.globals_ref`` has the globals of the functions in this pickle, by their ids here, and ``pickler.cells`` what they
    have captured: functions that share a variable (``nonlocal``) do so at the other end, too, which cloudpickle's do not. For
    each package that the function names (``np``), cloudpickle looks through all modules that are loaded. Where there are a
    thousand, that takes longer than all the rest, with each call that brings its function. And of the code inside the function
    it does not see which modules within the package (``np.linalg``) that uses, nor which globals, if it is a class's.
    """
    code, variables = function.__code__, function.__globals__
    of_module = {name: variables[name] for name in OF_MODULES if name in variables}
    shared = pickler.globals_ref.setdefault(id(variables), of_module)
    used = used_globals(function)
    cells = function.__closure__ or ()
    captured = [cell.cell_contents for cell in cells if is_set(cell)]
    rest = {
        # Copies: otherwise the pickle would tell whether a text happens to be the same object as another.
        "__name__": "".join(function.__name__),
        "__qualname__": "".join(function.__qualname__),
        "__annotations__": annotations_of(function),
        "__kwdefaults__": function.__kwdefaults__,
        "__defaults__": function.__defaults__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
        "__closure__": function.__closure__,
        "__globals__": used,
        "submodules": list(_submodules(code, [*used.values(), *captured])),
    }
    if parameters := getattr(function, "__type_params__", ()):  # since Python 3.12
        rest["__type_params__"] = parameters
    own = {"".join(name): value for name, value in vars(function).items()}
    closure = None
    if function.__closure__ is not None:
        # An empty cell for each, filled later: what is captured may refer to the function. (Beside the cell, which keeps its id.)
        known: dict[int, tuple[types.CellType, types.CellType]] = vars(pickler).setdefault("cells", {})
        closure = tuple([known.setdefault(id(cell), (types.CellType(), cell))[0] for cell in cells])
    return make_function, (code, shared, closure), (own, rest), None, None, fill_function


def used_globals(function: types.FunctionType) -> dict[str, Any]:
    """The globals that its code names. What is to be imported at its first use is imported now; if that fails, the use will."""
    known = function.__globals__
    used = {name: known[name] for name in global_names(function.__code__) if name in known}
    for name in [name for name, value in used.items() if type(value) is LAZY]:
        used[name] = _carried_out(used[name])
    return used


def annotations_of(thing: Any) -> Any:
    """The annotations of a function or class; as text if they cannot be had otherwise.

    Since Python 3.14 they are code, which may name what there is for type checkers only, or not yet.
    """
    try:
        return thing.__annotations__
    except Exception as error:  # whatever that code raises
        if is_of_signal(error):
            raise
        from annotationlib import Format, get_annotations  # type: ignore[import-not-found]  # since Python 3.14

        return get_annotations(thing, format=Format.STRING)


def reduce_code(code: types.CodeType) -> Any:
    """How code is pickled, with the file's name, which tracebacks need to show where an error is."""
    return make_code, tuple(_copied(getattr(code, "co_" + name)) for name in OF_CODE.split())


def _copied(part: Any) -> Any:
    """A copy of a text, or of a tuple of texts: otherwise the pickle would tell whether two parts are the same object."""
    if type(part) is str:
        return "".join(part)
    return (*part,) if type(part) is tuple else part  # ``tuple(part)`` would be the same object


def reduce_cell(cell: types.CellType) -> Any:
    """How a variable that a function has captured is pickled, which may have no value yet."""
    return make_cell, (cell.cell_contents,) if is_set(cell) else ()


def reduce_module(module: types.ModuleType) -> Any:
    """How a module is pickled; raises MoreError if it cannot be imported."""
    if module.__name__ not in sys.modules:
        raise MoreError
    return import_module, (module.__name__,)


def reduce_lazy(lazy: Any) -> Any:
    """How a lazy import is pickled: it has failed here, and so it must fail there, if the task uses it."""
    from gc import get_referents  # late: workers do not need it to start

    path = repr(lazy).split("'")[1]
    made_of = get_referents(lazy)
    if path in made_of:
        return make_lazy, (f"lazy import {path}",)
    # It is a part of what another lazy import has, which is shown as 'path' or, in ``from path import``, as 'path...'.
    if any(type(each) is LAZY and not repr(each).endswith("...'>") for each in made_of):
        return make_lazy, (f"lazy import {path} as it",)
    source, _, name = path.rpartition(".")
    return make_lazy, (f"lazy from {source} import {name} as it",)


def send_modules(table: dict[type, Any]) -> None:
    """Have a pickler with this table send modules of other types, such as mpmath, as it sends usual ones; pickle refuses them."""
    usual = table[types.ModuleType]

    def reduce(module: types.ModuleType) -> Any:
        return usual(module) if module.__name__ in sys.modules else module.__reduce_ex__(5)

    kinds = types.ModuleType.__subclasses__()
    for kind in kinds:
        table.setdefault(kind, reduce)
        kinds += type.__subclasses__(kind)


def send_wrapped(table: dict[type, Any]) -> None:
    """Have a pickler with this table send functions that wrapt has wrapped by their names; they refuse to be pickled.

    Decorators of libraries wrap so, such as that of the package Deprecated.
    """

    def reduce(function: Any) -> Any:
        try:
            by_name = is_importable(function)
        except MoreError:
            by_name = False
        return function.__qualname__ if by_name else function.__reduce_ex__(5)

    wrapper = getattr(sys.modules.get("wrapt"), "FunctionWrapper", None)
    kinds = [] if wrapper is None else [wrapper]
    for kind in kinds:
        table.setdefault(kind, reduce)
        kinds += type.__subclasses__(kind)


LAZY: Any = getattr(types, "LazyImportType", None)
"""The type of a ``lazy import`` that nothing has used yet, since Python 3.15."""

_NAMED = frozenset([types.BuiltinFunctionType, type, ABCMeta])
_PLAIN = frozenset([complex, types.EllipsisType, types.GenericAlias, types.UnionType])
_REDUCERS: dict[type, Any] = {
    types.CodeType: reduce_code,
    types.CellType: reduce_cell,
} | ({} if LAZY is None else {LAZY: reduce_lazy})


@lru_cache(1000)  # to go through the code takes longer than to pickle it
def global_names(code: types.CodeType) -> Iterable[str]:
    """The names of the globals that the code of a function may use, in an order that is always the same."""
    from dis import get_instructions

    found = (
        step.argval for each in codes(code) for step in get_instructions(each) if step.opname in OF_GLOBALS
    )
    return tuple(dict.fromkeys(found))


def _submodules(code: types.CodeType, values: Iterable[object]) -> Iterator[Any]:
    """The loaded modules within these packages that the code may reach by attributes: they must be loaded there, too.

    Lazy imports of such modules are carried out; those that fail are among them.
    """
    modules = [value for value in values if isinstance(value, types.ModuleType)]
    ahead = [module.__name__ for module in modules if getattr(module, "__package__", None)]
    names = dict.fromkeys(name for each in codes(code) for name in each.co_names) if ahead else ()
    lazy = _lazy_modules() if ahead else frozenset()
    while ahead:
        package = ahead.pop()
        for name in names:
            whole = f"{package}.{name}"
            if whole in lazy:
                yield _carried_out(make_lazy(f"lazy import {whole} as it"))
            module = sys.modules.get(whole)
            if module is not None:
                ahead.append(whole)
                yield module


def _lazy_modules() -> frozenset[str]:
    """The modules that a ``lazy import`` names, which nothing has used yet, and the packages that these are in."""
    pending = getattr(sys, "lazy_modules", ())  # since Python 3.15
    return frozenset(part for each in pending for part in accumulate(each.split("."), "{}.{}".format))


def _carried_out(lazy: Any) -> Any:
    """What a lazy import imports; if it fails, itself: the task that uses it will have the error."""
    try:
        return lazy.resolve()
    except Exception as error:  # whatever the module raises
        if is_of_signal(error):
            raise
        return lazy
