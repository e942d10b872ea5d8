"""What a call takes along to another process, by the names that messages have for it; and which functions it may run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from sys import modules, stdlib_module_names
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from parallelkit._worker._caches import CACHED

LIBRARIES = {"parallelkit", *stdlib_module_names}
"""What is no program's own, by the first part of its name ..."""

INSTALLED = ("/site-packages/", "/dist-packages/")
"""... or by where it lies."""

MOST = 100
"""Functions that are looked at of those that a call may run; one that has more takes too long."""


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call.

    >>> given((1,), {"b": 2})
    {'args[0]': 1, "kwargs['b']": 2}
    """
    return numbered("args", args) | {f"kwargs[{name!r}]": arg for name, arg in kwargs.items()}


def numbered(name: str, args: Iterable[Any]) -> dict[str, Any]:
    """Arguments by what they are called in messages."""
    return {f"{name}[{number}]": arg for number, arg in enumerate(args)}


def variables(function: FunctionType) -> Iterable[tuple[str, object]]:
    """What a function takes along when it travels by value: its closure, and the globals that it names."""
    yield from zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    from cloudpickle.cloudpickle import _extract_code_globals

    known = function.__globals__
    yield from ((name, known[name]) for name in _extract_code_globals(function.__code__) if name in known)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def reached(call: object) -> list[FunctionType]:
    """The functions that it may run: its own, and those of the program, as far as they name one another; not many more than ``MOST``.

    What a thing is, its type tells: to ask itself may run its code.
    """
    found: list[FunctionType] = []
    things = [call]
    for thing in things:  # which grows
        if len(found) > MOST:
            break
        for function in _functions(thing):
            if function not in found and (not found or _is_of_the_program(function)):
                found.append(function)
                things += _named(function)
    return found


def is_a(thing: Any, kinds: type | tuple[type, ...]) -> bool:
    """As ``isinstance``, which asks the thing itself for its ``__class__``."""
    return issubclass(type(thing), kinds)


def _functions(thing: Any) -> list[FunctionType]:
    """Itself, those of a method's class that this names, or those of a class or of an object's class."""
    if is_a(thing, partial):
        return _functions(thing.func)
    if is_a(thing, CACHED):
        return _functions(thing.__wrapped__)
    if is_a(thing, MethodType):
        functions: list[object] = [method.__func__ for method in methods(thing)]
    elif is_a(thing, FunctionType):
        functions = [thing]
    else:
        cls = thing if is_a(thing, type) else type(thing)
        functions = [_plain(value) for base in cls.__mro__ for value in vars(base).values()]
    return [function for function in functions if type(function) is FunctionType]


def _plain(value: Any) -> object:
    return value.__func__ if is_a(value, (staticmethod, classmethod)) else value


def _is_of_the_program(function: FunctionType) -> bool:
    top = str(function.__module__).partition(".")[0]
    return top not in LIBRARIES and not any(each in function.__code__.co_filename for each in INSTALLED)


def _named(function: FunctionType) -> list[object]:
    """What it names, also of modules, which it may import itself."""
    named = names(function)
    things = [value for _, value in variables(function)]
    places = [each for each in (*things, *map(modules.get, named)) if type(each) is ModuleType]
    for module in places:  # which grows
        inner = [vars(module)[name] for name in named if name in vars(module)]
        places += [each for each in inner if type(each) is ModuleType and each not in places]
        things += inner
    return things


def methods(method: MethodType) -> list[MethodType]:
    """Itself, and those of its class that it names, and that these name."""
    owner, found = method.__self__, [method]
    for each in found:  # which grows
        for name in names(each.__func__):
            other = _of_class(type(owner), name)
            if type(other) is FunctionType and all(other is not known.__func__ for known in found):
                found.append(MethodType(other, owner))
    return found


def _of_class(cls: type, name: str) -> object:
    """What a class has under a name, without calling anything."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def names(function: object) -> list[str]:
    """Those of globals, and of attributes of whatever, that a function of Python names."""
    code = getattr(function, "__code__", None)
    return [name for each in (codes(code) if code is not None else ()) for name in each.co_names]


def codes(code: CodeType) -> Iterator[CodeType]:
    """That of a function, and of those inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes(const)
