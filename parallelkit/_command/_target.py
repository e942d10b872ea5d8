"""Finds the function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from parallelkit._command import UsageError
from parallelkit._keywords import did_you_mean


def find_function(target: str) -> tuple[Callable[..., Any], ModuleType]:
    """Import the module, as ``python`` would; return the function and the module, or raise ``UsageError``.

    The file's folder, or the one of its package, or the current one for a module name, is put first in
    ``sys.path``, where worker processes look, too.

    >>> find_function("math:sqrt")[0](9)
    3.0
    """
    place, _, name = target.rpartition(":")
    if not (place and name) or place.endswith(":"):
        raise UsageError(f"argument MODULE:FUNCTION: must be two names with a colon between, got {target!r}")
    module = import_file(place) if place.endswith(".py") or os.sep in place else import_module(place)
    return function_in(module, name, target), module


def import_module(name: str) -> ModuleType:
    """Import a module by its dotted name; the current folder comes first."""
    with suppress(FileNotFoundError):  # it was removed
        put_first(os.getcwd())
    return importing(name)


def import_file(path: str) -> ModuleType:
    """Import a module by its file, whose folder comes first, as with ``python FILE.py``.

    A file in a package is imported as a part of it, for its relative imports, and lest the package import it once more.
    """
    if not os.path.isfile(path):
        raise UsageError(f"argument MODULE:FUNCTION: there is no file {path}")
    folder, file = os.path.split(os.path.realpath(path))
    name = file.removesuffix(".py")
    if "." in name:
        raise UsageError(
            f"argument MODULE:FUNCTION: a file's name must have no dot except in .py, got {file}"
        )
    place = folder
    while os.path.isfile(os.path.join(place, "__init__.py")) and os.path.basename(place).isidentifier():
        place, package = os.path.split(place)
        name = package if name == "__init__" else f"{package}.{name}"
    put_first(place)
    if place != folder:  # which may be a package by accident: its scripts import what is beside them
        sys.path.append(folder)
    module = importing(name)
    found = getattr(module, "__file__", None)
    if found is None or not os.path.samefile(found, path):
        what = f"{path} has the same name as another module ({found or 'built in'}); rename it"
        raise UsageError(f"argument MODULE:FUNCTION: {what}")
    return module


def put_first(folder: str) -> None:
    """Have modules looked for in this folder first."""
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)


def importing(name: str) -> ModuleType:
    """Import a module; raise ``UsageError`` if there is none, or with the traceback if its own code raises."""
    try:
        __import__(name)  # importlib.import_module would leave a dozen frames in the traceback
    except ModuleNotFoundError as error:
        if name == error.name or name.startswith(f"{error.name}."):
            raise UsageError(f"argument MODULE:FUNCTION: there is no module {error.name!r}") from None
        raise broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise broken(name, error) from error
    return sys.modules[name]


def broken(name: str, error: BaseException) -> UsageError:
    """The error of what exists, but whose code raises as it is imported: with the traceback, except our own frame."""
    frames = error.__traceback__ and error.__traceback__.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames)).rstrip()
    return UsageError(f"argument MODULE:FUNCTION: {name!r} cannot be imported\n{text}")


def function_in(module: ModuleType, name: str, target: str) -> Callable[..., Any]:
    """Return the callable that has this (perhaps dotted) name in the module, or raise ``UsageError``."""
    found: Any = module
    for part in name.split("."):
        found = part_of(found, part, target)
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"argument MODULE:FUNCTION: must name something to call, got {target} ({kind})")
    function: Callable[..., Any] = found
    return function


def part_of(owner: Any, part: str, target: str) -> Any:
    """Return an attribute, or raise ``UsageError``; a package may import it only now, which may fail."""
    try:
        return getattr(owner, part)
    except AttributeError:
        hint = did_you_mean(part, [name for name in dir(owner) if name[:1] != "_"])
    except Exception as error:
        raise broken(target, error) from error
    name = getattr(owner, "__name__", target)
    raise UsageError(f"argument MODULE:FUNCTION: {name!r} has no function {part!r}{hint and '; '}{hint}")
