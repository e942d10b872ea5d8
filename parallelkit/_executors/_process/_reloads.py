"""Modules of the program that were loaded anew: workers that have imported one before still have the old one."""

from __future__ import annotations

import os
import sys
from threading import RLock
from types import ModuleType

from parallelkit._executors._process._captures import INSTALLED, LIBRARIES

_LIBRARIES = (os.path.dirname(os.__file__), *(os.path.join(sys.prefix, name) for name in ("lib", "lib64")))
_AUTORELOAD = "IPython.extensions.autoreload"


class Reloads:
    """What ``importlib.reload`` has changed, or a second import after a look into ``sys.modules``; and ``%autoreload``.

    Who reloads a module gives it another ``__spec__``. ``%autoreload`` may do without, and put the new code into the functions
    that there are: so where it is loaded, the files are looked at. Libraries are left alone, for there are many modules in
    them, and nobody edits them.
    """

    def __init__(self) -> None:
        self._seen = 0, ""
        self._lock = RLock()  # several threads may begin runs, and a signal handler of one of them
        self._marks: dict[str, tuple[object, int]] = {}
        self._libraries = set(LIBRARIES)
        """By the first part of their names."""

    def look(self) -> bool:
        """Whether some module is not the one that was there at an earlier look: 0.2 µs a module of the program."""
        with self._lock:
            return self._look()

    def _look(self) -> bool:
        edits = _AUTORELOAD in sys.modules
        changed = False
        for name, (spec, edited) in list(self._marks.items()):
            module = sys.modules.get(name)
            now = _spec_of(module)
            if now is not None and (now is not spec or (edits and _edited(module) != edited)):
                self._marks[name] = now, _edited(module)
                changed = True
        names = list(sys.modules)
        seen = len(names), names[-1]  # what is loaded comes last
        if seen != self._seen:
            for name in filter(self._is_new, names):
                module = sys.modules.get(name)
                self._marks[name] = _spec_of(module), _edited(module)
            self._seen = seen
        return changed

    def _is_new(self, name: str) -> bool:
        """Whether it is one of the program's that was not there before."""
        top = name.partition(".")[0]
        if top in self._libraries or name in self._marks:
            return False
        file = _file_of(sys.modules.get(name))
        if name == top and _is_installed(file):
            self._libraries.add(top)
        return file != "" and not _is_installed(file)


def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES) or any(part in file for part in INSTALLED)


def _spec_of(module: object) -> object:
    return vars(module).get("__spec__") if type(module) is ModuleType else None


def _file_of(module: object) -> str:
    """Where it comes from, if that can be told without running any code."""
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    return file if type(file) is str else ""


def _edited(module: object) -> int:
    """When its file was written to."""
    try:
        return os.stat(_file_of(module)).st_mtime_ns
    except OSError:
        return 0
