"""Modules of the program that were loaded anew: workers that have imported one before still have the old one."""

from __future__ import annotations

import os
import sys
from types import ModuleType

_LIBRARIES = (os.path.dirname(os.__file__), *(os.path.join(sys.prefix, name) for name in ("lib", "lib64")))
_AUTORELOAD = "IPython.extensions.autoreload"


class Reloads:
    """What ``importlib.reload`` has changed, or a second import after a look into ``sys.modules``; and ``%autoreload``.

    Who reloads a module gives it another ``__spec__``. ``%autoreload`` may do without, and put the new code into the functions
    that there are: so where it is loaded, the files are looked at. Libraries are left alone, for there are many modules in
    them, and nobody edits them.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._marks: dict[str, tuple[object, int]] = {}
        self._libraries = {"parallelkit", *sys.stdlib_module_names}
        """By the first part of their names."""

    def look(self) -> bool:
        """Whether some module is not the one that was there at an earlier look: 0.1 µs a module of the program."""
        edits = _AUTORELOAD in sys.modules
        changed = False
        for name, (spec, edited) in self._marks.items():
            module = sys.modules.get(name)
            now = _spec_of(module)
            if now is not None and (now is not spec or (edits and _edited(module) != edited)):
                self._marks[name] = now, _edited(module)
                changed = True
        if len(sys.modules) != self._seen:
            modules = sys.modules.copy()
            new = [name for name in modules if self._is_new(name)]
            self._marks |= {name: (_spec_of(modules[name]), _edited(modules[name])) for name in new}
            self._seen = len(modules)
        return changed

    def _is_new(self, name: str) -> bool:
        """Whether it is one of the program's that was not there before."""
        top = name.partition(".")[0]
        if top in self._libraries or name in self._marks:
            return False
        file = _file_of(sys.modules.get(name))
        if name == top and file.startswith(_LIBRARIES):
            self._libraries.add(top)
        return file != "" and not file.startswith(_LIBRARIES)


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
