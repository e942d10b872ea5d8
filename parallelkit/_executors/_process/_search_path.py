"""Where a worker looks for modules: along the program's ``sys.path``, and elsewhere for those that are off that path.

The empty entry (in a notebook, an interactive interpreter, or with ``-c``) means the current working directory. Any
other relative entry keeps leading to the folder to which it led when it was first searched.

A module is off the path if a worker would not find it there, or would find another file. It was loaded by its file's path (a
plugin, a test in pytest's ``importlib`` mode), or through a package's extended ``__path__``, or from an entry that
``sys.path`` no longer has (``celery -A``, a notebook after ``%cd``) or that now comes after another with a module of that name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import (
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType
from typing import TypeAlias

from parallelkit._executors._process._preload import STANDARD, attribute_of, file_of

Place: TypeAlias = tuple[str | None, list[str] | None]
"""A module's file (None: a namespace package), and the folders of its submodules (None: no package)."""

_LOADERS = (SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader)
_LIBRARIES = ("/site-packages", "/dist-packages")


_latest: tuple[object, dict[str, Place]] = (None, {})
"""The last question and its answer: the many workers that start together all ask the same."""


def search_path() -> list[str]:
    """``sys.path`` for a worker that starts now; without what is no text, which an import passes over."""
    path: list[str] = []
    for entry in sys.path:
        if isinstance(entry, str):
            finder = None if os.path.isabs(entry) else sys.path_importer_cache.get(entry)
            path.append(finder.path if type(finder) is FileFinder else entry)
    return path


def modules_off(path: Iterable[str]) -> dict[str, Place]:
    """The modules that a search along this path would not lead to, and where they are; modules in a library on the path are not looked at."""
    global _latest
    known = [entry for entry in (entry or here() for entry in path) if os.path.isabs(entry)]
    own, rest = _modules(known)
    asked = known, own, rest
    latest = _latest  # read once: other threads may ask, too
    if latest[0] != asked:
        _latest = latest = asked, _find(known, own)
    return latest[1]


def _modules(path: list[str]) -> tuple[list[tuple[str, str]], list[tuple[str, list[str] | None]]]:
    """The modules that are in no library on this path, with their files; and those without a file, with their ``__path__``."""
    libraries = tuple([f"{entry}/" for entry in path if entry == STANDARD or entry.endswith(_LIBRARIES)])
    own: list[tuple[str, str]] = []
    rest: list[tuple[str, list[str] | None]] = []
    for name, module in sys.modules.copy().items():
        file = module.__dict__.get("__file__") if type(module) is ModuleType else None
        if type(file) is not str:
            rest.append((name, _texts_of(attribute_of(name, "__path__"))))
        elif not file.startswith(libraries):
            own.append((name, file))
    return own, rest


def _find(path: list[str], modules: list[tuple[str, str]]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for name, _ in modules:
        spec = _spec_of(name)
        if spec is not None and _is_plain(spec) and not _leads_to(name, spec.origin, path):
            places[name] = spec.origin, _texts_of(spec.submodule_search_locations)
            places |= _namespaces_above(name)
    return places


def here() -> str:
    """The working directory, to which an empty entry leads; an empty text if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _spec_of(name: str) -> ModuleSpec | None:
    """The spec with which a module was loaded under this name, if it has one."""
    spec = attribute_of(name, "__spec__")
    return spec if type(spec) is ModuleSpec and spec.name == name else None


def _is_plain(spec: ModuleSpec) -> bool:
    """Whether it was loaded from its file as it stands. So is a test, for a worker: pytest only rewrites its asserts."""
    kind = type(spec.loader)
    return spec.has_location and (kind in _LOADERS or kind.__module__.startswith("_pytest."))


def _leads_to(name: str, file: str | None, path: list[str]) -> bool:
    """Whether a worker that looks for this name finds this file: beside its package's file, if there is one, else on the path."""
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
    """The packages without a file that contain a module."""
    places: dict[str, Place] = {}
    while name := name.rpartition(".")[0]:
        if name in sys.modules and not file_of(name):
            places[name] = None, _texts_of(attribute_of(name, "__path__") or ())
    return places


def _texts_of(given: Iterable[object] | None) -> list[str] | None:
    # A namespace's path raises if its parent package is gone; and a program may have put anything in its place.
    try:
        return None if given is None else [entry for entry in given if type(entry) is str]
    except Exception:
        return None
