"""Makes a worker's ``sys.path`` lead where the program's does, even if the program has changed its directory.

The empty entry (in a notebook, an interactive interpreter, or with ``-c``) means the current working directory. Any
other relative entry keeps leading to the folder to which it led when it was first searched.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import FileFinder


def search_path() -> list[str]:
    """``sys.path`` for a worker that starts now."""
    path: list[str] = []
    for entry in sys.path:
        relative = type(entry) is str and not os.path.isabs(entry)
        finder = sys.path_importer_cache.get(entry) if relative else None
        path.append(finder.path if type(finder) is FileFinder else entry)
    return path
