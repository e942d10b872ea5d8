"""Where workers look for modules: where this program does, though it may have changed its directory since it found its own.

In a notebook, an interactive interpreter or a program given by ``-c`` the first place is the working
directory, whichever that is. Another relative entry leads to where it led when something was first looked
for there.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.machinery import FileFinder

from parallelkit._executors._needs import file_of


def search_path() -> list[str]:
    """``sys.path`` for a worker that starts now."""
    path: list[str] = []
    for entry in sys.path:
        relative = type(entry) is str and not os.path.isabs(entry)
        finder = sys.path_importer_cache.get(entry) if relative else None
        path.append(finder.path if type(finder) is FileFinder else entry)
        if entry == "":
            path += _left(_here(), len(sys.modules))
    return path


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


@lru_cache(maxsize=1)
def _left(here: str, _loaded: int) -> list[str]:
    """The directories that were once the working one, as it seems: modules were found there, and no entry leads there now."""
    found = {here, *[entry for entry in sys.path if type(entry) is str]}
    roots = dict.fromkeys([_root_of(name, file_of(name)) for name in sys.modules.copy()])
    return [root for root in roots if root in sys.path_importer_cache and root not in found]


def _root_of(name: str, file: str) -> str:
    """Where a module was found, or the outermost package that it is in."""
    return file[: max(0, file.rfind(f"/{name.replace('.', '/')}"))]
