"""Modules of the program that a worker would not find, or would find another in place of: it is told where each is.

They were loaded by their path (plugins, tests by pytest's ``importlib`` mode), or found at a place that ``sys.path`` no
longer has (``celery -A``, a notebook after ``%cd``), or has behind another, or by the ``__path__`` of a package alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import (
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType
from typing import Any, TypeAlias

from parallelkit._executors._process._preload import file_of

Place: TypeAlias = tuple[str | None, list[str] | None]
"""A file, or none of a namespace package; and where the modules of a package are."""

_LOADERS = (SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader)
_STANDARD = os.path.dirname(os.__file__)
_LIBRARIES = ("/site-packages", "/dist-packages")


_latest: tuple[object, dict[str, Place]] = (None, {})
"""What was asked last, and the answer: each of many workers that are started together asks it."""


def strays(path: Iterable[object]) -> dict[str, Place]:
    """Those to which no look along this path leads; but what is in a library on it is not looked at."""
    global _latest
    known = [_here() if entry == "" else entry for entry in path if type(entry) is str]
    known = [entry for entry in known if os.path.isabs(entry)]
    asked = known, _own_modules(known), _namespaces()
    latest = _latest  # other threads may ask, too
    if latest[0] != asked:
        _latest = latest = asked, _find(known, asked[1])
    return latest[1]


def _own_modules(path: list[str]) -> list[tuple[str, str]]:
    """The names and files of those that are in no library on this path."""
    libraries = tuple([f"{entry}/" for entry in path if entry == _STANDARD or entry.endswith(_LIBRARIES)])
    files = [
        (name, module.__dict__.get("__file__"))
        for name, module in sys.modules.copy().items()
        if type(module) is ModuleType
    ]
    return [(name, file) for name, file in files if type(file) is str and not file.startswith(libraries)]


def _namespaces() -> list[tuple[str, list[str] | None]]:
    """What has no file, as some packages, and where the modules of such a one are."""
    return [
        (name, _texts_of(_attribute(name, "__path__"))) for name in list(sys.modules) if not file_of(name)
    ]


def _find(path: list[str], modules: list[tuple[str, str]]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for name, _ in modules:
        spec = _spec_of(name)
        if spec is not None and _is_plain(spec) and not _leads_to(name, spec.origin, path):
            places[name] = spec.origin, _texts_of(spec.submodule_search_locations)
            places |= _namespaces_above(name)
    return places


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


def _spec_of(name: str) -> ModuleSpec | None:
    """How a module was found by its own name, where that can be told without running any code."""
    spec = _attribute(name, "__spec__")
    return spec if type(spec) is ModuleSpec and spec.name == name else None


def _attribute(name: str, attribute: str) -> Any:
    module = sys.modules.get(name)
    return vars(module).get(attribute) if type(module) is ModuleType else None


def _is_plain(spec: ModuleSpec) -> bool:
    """Whether it is what its file says. A test is, to a worker: pytest does no more than explain its asserts."""
    kind = type(spec.loader)
    return spec.has_location and (kind in _LOADERS or kind.__module__.startswith("_pytest."))


def _leads_to(name: str, file: str | None, path: list[str]) -> bool:
    """Whether this name leads to this file: from the package that the module is in, if that has a file, else along the path."""
    parent, _, last = name.rpartition(".")
    if not parent:
        found = PathFinder.find_spec(name, path)
        return found is not None and found.origin == file
    above = file_of(parent)
    roots = [os.path.dirname(above)] if above else [f"{entry}/{parent.replace('.', '/')}" for entry in path]
    return _stem(file or "") in [f"{root}/{last}" for root in roots]


def _stem(file: str) -> str:
    """``/a/b`` for ``/a/b.py`` and for ``/a/b/__init__.py``."""
    folder, _, base = file.rpartition("/")
    name = base.partition(".")[0]
    return folder if name == "__init__" else f"{folder}/{name}"


def _namespaces_above(name: str) -> dict[str, Place]:
    """The packages without a file that a module is in."""
    places: dict[str, Place] = {}
    while name := name.rpartition(".")[0]:
        if name in sys.modules and not file_of(name):
            places[name] = None, _texts_of(_attribute(name, "__path__") or ())
    return places


def _texts_of(given: Iterable[object] | None) -> list[str] | None:
    # A path looks for the package above, which may be gone; or it is whatever the program has put there.
    try:
        return None if given is None else [entry for entry in given if type(entry) is str]
    except Exception:
        return None
