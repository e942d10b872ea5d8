"""Refuses random generators that tasks of a run share in processes: each worker would draw the same numbers from its own copy.

A generator that is given to the tasks is always refused. One that the function brings along, as a global of the script, say, is
refused unless a name in the code shows that the program seeds, copies or replaces it. What the code does is not analysed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dis import get_instructions
from functools import lru_cache, partial
from itertools import islice
from sys import modules
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

from parallelkit._executors._process._captures import (
    functions_of_class,
    given,
    goes_by_value,
    is_a,
    reached,
    variables,
)
from parallelkit._worker._functions import codes, names
from parallelkit._worker._global_generators import HINT, is_global, may_have_any
from parallelkit._worker._travel import describe

KINDS = (("random", "Random"), ("numpy.random", "Generator"), ("numpy.random", "RandomState"))
METHODS = (MethodType, BuiltinMethodType)

WAYS = frozenset(
    {"Random", "RandomState", "Generator", "default_rng", "check_random_state", "spawn", "bit_generator"}
    | {"copy", "deepcopy", "loads", "setstate", "set_state", "setattr"}
)
"""Names of what makes, copies, sets or replaces a generator. Code that has one, or one with "seed" in it, looks after its own."""

STORES = ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR")

ATOMS = frozenset((str, int, float, bytes, bool, type(None)))
CONTAINERS: Any = (
    (tuple, tuple.__iter__),
    (list, list.__iter__),
    (dict, dict.values),
    (partial, lambda it: (it.func, *it.args, *it.keywords.values())),
)
PARTS = 100
"""So many parts of an item are looked at, the outer ones first."""

LONG = 1 << 15
"""Bytes of a packed item from which on it takes less time to look at its parts than at its bytes."""

CURE = (
    "give each item a seed (numpy.random.SeedSequence(...).spawn(n)), or all the same one if that is meant, "
    "and make the generator from it in the task, or use executor='threads'"
)

Brought: TypeAlias = tuple[str, FunctionType, Any]
"""The name of a thing that a function brings along, the function, and the thing."""


class AlikeError(Exception):
    """A task would draw the same numbers as another. Its failure is a TypeError with this text."""


def refuse_alike(
    packed: bytes, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> None:
    """Raise TypeError where all tasks are given the same generator, or the function brings one along.

    With ``star`` an item may replace any default of the function, so these are not looked at.
    """
    for name, arg in given(args, kwargs).items():
        _refuse(name, arg)
    if packed.rfind(HINT) < 0 or not may_have_any(packed):
        return  # a subclass that a module defines cannot be told by the bytes
    while is_a(fn, partial):
        kept = {name: arg for name, arg in fn.keywords.items() if name not in kwargs}
        for name, arg in given(fn.args, kept).items():
            _refuse(f"{name} of the partial", arg)
        fn, args, kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
    _refuse("fn", fn)
    functions = reached(fn)
    brought = [*_used(fn, functions)]
    if not star and functions and goes_by_value(functions[0]):
        brought += _defaults(functions[0], 1 + len(args) + is_a(fn, MethodType), kwargs)
    for name, function, thing in _neglected(brought, functions):
        _refuse(f"{name}, which {describe(function)} uses,", thing)


class Neighbours:
    """Compares each item of a run with the one before. It keeps no others: a million items may each bring a generator."""

    def __init__(self) -> None:
        self._before = -1
        self._brought: list[object] = []

    def refuse_alike(self, index: int, item: object, label: Callable[[int], str]) -> None:
        """Raise AlikeError where both have the same generator, unless both are attempts of the same task."""
        brought = _generators_in(item)
        same = [generator for generator in brought if any(generator is each for each in self._brought)]
        before, self._before, self._brought = self._before, index, brought
        if same and before != index:
            raise AlikeError(
                f"the items of {label(before)} and {label(index)} share one {type(same[0]).__name__}, and each worker process "
                f"would get a copy of it and draw the same numbers; {CURE}"
            )


def may_draw(packed: object) -> bool:
    """Whether a packed item may have a generator in it: a pickle that is long, or lies in a file or block, may; else its bytes tell."""
    blob = packed if type(packed) is bytes else getattr(packed, "blob", b"")
    return not blob or len(blob) >= LONG or (blob.rfind(HINT) >= 0 and may_have_any(blob))


def _refuse(name: str, thing: object) -> None:
    generator = _generator(thing)
    if generator is not None:
        kind = f"{'a' if generator is thing else 'a method of a'} {type(generator).__name__}"
        raise TypeError(
            f"{name} is {kind}, which each worker process would get in the same state, and so draw the same numbers; {CURE}"
        )


def _generator(thing: Any) -> object | None:
    """The generator that a thing is, or is a method of; those which modules share with everybody do not count."""
    owner = thing.__self__ if is_a(thing, METHODS) else thing
    return owner if is_a(owner, _kinds()) and not is_global(owner) else None


def _kinds() -> tuple[type, ...]:
    return tuple(filter(None, (getattr(modules.get(module), name, None) for module, name in KINDS)))


def _generators_in(item: object) -> list[object]:
    """The generators in an item, and in the tuples, lists, dicts and partials that it consists of."""
    parts = [item]
    for part in parts:  # which grows
        for kind, contents in CONTAINERS:
            if is_a(part, kind):
                looked_at = islice(contents(part), PARTS - len(parts))
                parts += [each for each in looked_at if type(each) not in ATOMS]
    kinds = (*_kinds(), *METHODS)
    found = (_generator(part) for part in parts if is_a(part, kinds))
    return [generator for generator in found if generator is not None]


def _used(fn: Any, functions: list[FunctionType]) -> Iterator[Brought]:
    """The variables that functions use, and the attributes of the object whose method ``fn`` is."""
    own = getattr(fn.__self__, "__dict__", {}) if is_a(fn, MethodType) else {}
    for function in functions:
        if goes_by_value(function):
            yield from ((name, function, value) for name, value in variables(function))
        yield from ((name, function, own[name]) for name in names(function.__code__) if name in own)


def _defaults(function: FunctionType, number: int, named: Collection[str]) -> Iterator[Brought]:
    """The defaults that a function uses when it is called with ``number`` arguments and those in ``named``."""
    code = function.__code__
    open_ = code.co_varnames[number : code.co_argcount]
    last = zip(reversed(open_), reversed(function.__defaults__ or ()), strict=False)
    for name, value in (*last, *(function.__kwdefaults__ or {}).items()):
        if name not in named:
            yield name, function, value


def _neglected(brought: list[Brought], functions: list[FunctionType]) -> Iterator[Brought]:
    """The generators among what functions bring along, if no name in the code shows that they are looked after."""
    found: dict[str, Brought] = {}
    for each in brought:
        if _generator(each[2]) is not None:
            found.setdefault(each[0], each)
    if found:
        functions = [*functions, *_methods_of_classes(functions)]
        if not any(_names_a_way(function.__code__) for function in functions):
            yield from (each for each in found.values() if not _is_assigned(each, functions))


def _methods_of_classes(functions: list[FunctionType]) -> Iterator[FunctionType]:
    """The methods of classes that travel with functions, because they name a class or an object of one."""
    used = [value for function in functions for _, value in variables(function)]
    for cls in {value if is_a(value, type) else type(value) for value in used}:
        yield from (method for _, method in functions_of_class(cls) if goes_by_value(method))


def _names_a_way(code: CodeType) -> bool:
    return any(name in WAYS or "seed" in name.lower() for name in names(code))


def _is_assigned(each: Brought, functions: list[FunctionType]) -> bool:
    """Whether one of the functions assigns it or, where it is global, any function of the script, such as an initializer."""
    name, user, _ = each
    others = list(user.__globals__.values()) if name in user.__globals__ else []
    return any(type(by) is FunctionType and _assigns(by.__code__, name) for by in (*functions, *others))


def _assigns(code: CodeType, name: str) -> bool:
    """Whether code assigns a variable or attribute of this name, or may assign any global."""
    named = set(names(code))  # asked first: most functions do not have it, and disassembling them takes long
    return "globals" in named or (name in named and name in _assigned(code))


@lru_cache(4096)  # each task of a run may bring the function again
def _assigned(code: CodeType) -> frozenset[str]:
    steps = (step for each in codes(code) for step in get_instructions(each))
    return frozenset(step.argval for step in steps if step.opname in STORES)
