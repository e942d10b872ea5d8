"""Chooses the modules that a zygote loads: those of the standard library that its workers would otherwise each load.

Loading one can take longer than forking a worker. So a module that is loaded in vain delays the first worker, and one
that is left out delays every worker. The choice follows what the function's module has imported; finding that out runs
none of the user's code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from itertools import filterfalse
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from parallelkit._worker._caches import CACHED
from parallelkit._worker._script import NAMES

_HARMLESS = (
    "argparse ast contextlib copy csv dataclasses datetime decimal fractions glob hashlib html.parser inspect json "
    "logging pathlib pickle platform queue random re shutil socket statistics string subprocess tempfile textwrap "
    "threading tokenize traceback typing urllib.parse uuid xml.etree.ElementTree zipfile"
)
HARMLESS = frozenset(_HARMLESS.split())
"""Modules that take a millisecond or more to load, start and open nothing when loaded, and are the same in every fork."""

COMMON = frozenset(["contextlib", "dataclasses", "pathlib", "threading", "typing"])
"""Modules that many programs need: loaded where the choice is not known."""

UNPACKING = frozenset(
    ["dataclasses", "inspect", "logging", "pickle", "platform", "threading", "typing", "uuid"]
)
"""What cloudpickle imports; a worker needs it to unpack classes that it cannot import."""

SCRIPT = "__main__"
MOST = 4000  # globals that are looked at, in a millisecond or two; a larger program will need ``COMMON``

STANDARD = os.path.dirname(os.__file__)  # the folder of the standard library
_PUBLIC = frozenset(name for name in sys.stdlib_module_names if name[0] != "_")
_get_module: Any = type.__dict__["__module__"].__get__


def module_for(fn: Any) -> str:
    """The module that a worker imports for this function; ``SCRIPT`` if it travels by value; empty if that is not known."""
    while type(fn) in (partial, MethodType):
        fn = fn.func if type(fn) is partial else fn.__func__
    if fn is None:
        return ""
    module = _module_of(fn)
    by_value = module in NAMES or (type(fn) is FunctionType and "<" in fn.__qualname__)
    return SCRIPT if by_value else module


def modules_for(given: object) -> set[str]:
    """The modules for a function, or for all tasks (functions or ``Task`` objects) in a dict, list or tuple."""
    many: Any = list(given.values()) if type(given) is dict else given
    if type(many) not in (list, tuple):  # to iterate over a class of the program's own might run its code
        return {module_for(given)}
    tasks = sys.modules.get("parallelkit._tasks")  # if it is not loaded, there are no Task objects
    return {module_for(one.fn if tasks and type(one) is tasks.Task else one) for one in many[:MOST]}


def needs(modules: Iterable[str]) -> list[str]:
    """The modules of the standard library that functions of these modules need, as far as they are loaded here."""
    wanted = set().union(*map(_needs_of, modules))
    return sorted(filter(is_standard, wanted))


def needs_ahead(modules: Iterable[str]) -> list[str]:
    """The same in a program's first run, which has not loaded yet what unpacks the script's classes."""
    return sorted({*needs(modules), *(UNPACKING if SCRIPT in modules and _has_classes() else ())})


def _needs_of(module: str) -> frozenset[str]:
    used = _used_by(module) if module else COMMON
    return used | UNPACKING if module in ("", SCRIPT) and _has_classes() else used


def _has_classes() -> bool:
    """Whether the script has classes of its own, which workers unpack with cloudpickle; they make functions without it."""
    return any(issubclass(type(thing), type) and _module_of(thing) in NAMES for thing in _things_in(SCRIPT))


def _used_by(module: str) -> frozenset[str]:
    """The modules used by a module, and by those of the program that it uses in turn.

    Ours are not followed: a script's functions use the standard library's modules behind ``run_parallel`` only if they call it.
    """
    line, looked_at = [module], 0
    for name in line:  # grows meanwhile
        things = _things_in(name)
        looked_at += len(things)
        if looked_at > MOST:
            return COMMON | _standard_among(line)
        line += set(filterfalse(_is_ours, map(_module_of, things))).difference(line)
    return _standard_among(line)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "parallelkit"


def _standard_among(names: list[str]) -> frozenset[str]:
    """Those of the names that a zygote may load; for a submodule its package (3.13 has ``Path`` in ``pathlib._local``)."""
    return HARMLESS.intersection(names) | HARMLESS.intersection(name.partition(".")[0] for name in names)


def _things_in(name: str) -> list[object]:
    """The globals of a module of the program; none of a lazy module, which would load itself if it were looked at."""
    module = sys.modules.get(name)
    if name.partition(".")[0] in sys.stdlib_module_names or type(module) is not ModuleType:
        return []
    return list(vars(module).copy().values())


def _module_of(thing: object) -> str:
    """The module in which a function or class is defined; of a module, itself; of another object, that of its class."""
    kind = type(thing)
    if kind is ModuleType:
        name = vars(thing).get("__name__")
    elif kind in (FunctionType, BuiltinFunctionType, CACHED):
        name = thing.__module__
    else:
        name = module_of_class(thing if issubclass(kind, type) else kind)
    return name if type(name) is str else ""


def module_of_class(kind: object) -> object:
    """The name of the module in which a class says that it is defined; a metaclass is not asked."""
    try:
        return _get_module(kind)
    except AttributeError:  # a class may have none: SWIG makes such classes
        return None


def is_standard(name: str) -> bool:
    """Whether a module of this name is loaded here, and is the standard library's."""
    return file_of(name) in _places_of(name)


def stand_ins() -> list[str]:
    """Standard modules' names under which the program has loaded modules of its own, known to a zygote or not."""
    # Only source files count, not built-in modules, extensions or archives. Two frozen modules, whose files
    # have other names than they, begin with an underscore.
    return [
        name
        for name in _PUBLIC & sys.modules.keys()
        if (file := file_of(name)).endswith(".py") and file not in _places_of(name)
    ]


def file_of(name: str) -> str:
    """The file of a loaded module; empty if it has none."""
    file = attribute_of(name, "__file__")
    return file if type(file) is str else ""


def attribute_of(name: str, attribute: str) -> Any:
    """An attribute of a loaded module, or None; a lazy module, which would load itself to answer, has none."""
    module = sys.modules.get(name)
    return vars(module).get(attribute) if type(module) is ModuleType else None


def _places_of(name: str) -> tuple[str, str]:
    path = f"{STANDARD}/{name.replace('.', '/')}"
    return f"{path}.py", f"{path}/__init__.py"
