"""Which modules a zygote loads: of the standard library, what its workers would each load for the functions at hand.

A module takes milliseconds to load, and more of them than a worker takes to be forked. So what is loaded
for nothing delays the first worker, and what is not loaded delays each: which it will be is read off what
the function's module has imported. None of the user's code is run for that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from parallelkit._worker._script import NAMES

_HARMLESS = (
    "argparse ast contextlib copy csv dataclasses datetime decimal fractions glob hashlib html.parser inspect json "
    "logging pathlib pickle platform queue random re shutil socket statistics string subprocess tempfile textwrap "
    "threading tokenize traceback typing urllib.parse uuid xml.etree.ElementTree zipfile"
)
HARMLESS = frozenset(_HARMLESS.split())
"""What takes a millisecond or more to load, starts nothing and opens nothing by that, and is the same in every fork."""

COMMON = frozenset(["contextlib", "dataclasses", "pathlib", "threading", "typing"])
"""What many need: loaded where it cannot be told, with the next if something has been packed with cloudpickle."""

UNPACKING = frozenset(
    ["dataclasses", "inspect", "logging", "pickle", "platform", "threading", "typing", "uuid"]
)
"""What cloudpickle loads, with which a worker unpacks functions that it cannot import."""

SCRIPT = "__main__"
MOST = 4000  # globals that are looked at, in a millisecond or two; a program of more will need what many need

_HOME = os.path.dirname(os.__file__)
_PUBLIC = frozenset(name for name in sys.stdlib_module_names if name[0] != "_")
_get_module: Any = type.__dict__["__module__"].__get__


def home_of(fn: Any) -> str:
    """The module that a worker imports for this function; that of the script where it imports none; empty if unknown."""
    while type(fn) in (partial, MethodType):
        fn = fn.func if type(fn) is partial else fn.__func__
    if fn is None:
        return ""
    home = _module_of(fn)
    by_value = home in NAMES or (type(fn) is FunctionType and "<" in fn.__qualname__)
    return SCRIPT if by_value else home


def homes_of(given: object) -> set[str]:
    """Of a function, or of all that are given as tasks: functions, or ``Task`` objects."""
    many: Any = list(given.values()) if type(given) is dict else given
    if type(many) not in (list, tuple):  # of a class of the program's it might run code to look at it
        return {home_of(given)}
    tasks = sys.modules.get("parallelkit._tasks")  # if it is not loaded, there are no such objects
    return {home_of(one.fn if tasks and type(one) is tasks.Task else one) for one in many[:MOST]}


def needs(homes: Iterable[str]) -> list[str]:
    """What functions of these modules need, as far as it is loaded here, and is the standard library's own."""
    wanted = set().union(*map(_needs_of, homes))
    return sorted(filter(is_standard, wanted))


def _needs_of(home: str) -> frozenset[str]:
    if home == SCRIPT or (not home and "cloudpickle" in sys.modules):
        return UNPACKING | COMMON
    return _used_by(home) if home else COMMON


def _used_by(home: str) -> frozenset[str]:
    """By a module, and by those of the program that it uses."""
    line, looked_at = [home], 0
    for name in line:  # which gets longer
        things = _things_in(name)
        looked_at += len(things)
        if looked_at > MOST:
            return COMMON | _standard_among(line)
        line += set(map(_module_of, things)).difference(line)
    return _standard_among(line)


def _standard_among(names: list[str]) -> frozenset[str]:
    """Those that a zygote may load; of a package also where what is used is defined in a part of it, as in 3.13's pathlib."""
    return HARMLESS.intersection(names) | HARMLESS.intersection(name.partition(".")[0] for name in names)


def _things_in(name: str) -> list[object]:
    """The globals of a module of the program, if to look at it runs no code: some load themselves when that is done."""
    module = sys.modules.get(name)
    if name.partition(".")[0] in sys.stdlib_module_names or type(module) is not ModuleType:
        return []
    return list(vars(module).copy().values())


def _module_of(thing: object) -> str:
    """Where a thing comes from: a module from itself, an object of a class from that of its class."""
    kind = type(thing)
    if kind is ModuleType:
        name = vars(thing).get("__name__")
    elif kind in (FunctionType, BuiltinFunctionType):
        name = thing.__module__
    else:
        name = _module_of_class(thing if issubclass(kind, type) else kind)
    return name if type(name) is str else ""


def _module_of_class(kind: object) -> object:
    try:
        return _get_module(kind)
    except AttributeError:  # it has none: SWIG makes such classes
        return None


def is_standard(name: str) -> bool:
    """Whether this module is loaded here, and is the standard library's."""
    return file_of(name) in _places_of(name)


def stand_ins() -> list[str]:
    """The names of standard modules under which the program has loaded modules of its own; also such as nobody asked for."""
    # What is no source (built in, an extension, in an archive) is left alone; so are two frozen ones under other names.
    return [
        name
        for name in _PUBLIC & sys.modules.keys()
        if (file := file_of(name)).endswith(".py") and file not in _places_of(name)
    ]


def file_of(name: str) -> str:
    """Of a module, where that can be told without running any code; else empty."""
    module = sys.modules.get(name)
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    return file if type(file) is str else ""


def _places_of(name: str) -> tuple[str, str]:
    path = f"{_HOME}/{name.replace('.', '/')}"
    return f"{path}.py", f"{path}/__init__.py"
