"""Makes a worker's ``sys.path`` lead where the program's does, even if the program has changed its directory.

The empty entry (in a notebook, an interactive interpreter, or with ``-c``) means the current working directory. Any
other relative entry keeps leading to the folder to which it led when it was first searched.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import FileFinder


def search_path() -> list[str]:
    """``sys.path`` for a worker that starts now; without what is no text, which an import passes over."""
    path: list[str] = []
    for entry in sys.path:
        if isinstance(entry, str):
            finder = None if os.path.isabs(entry) else sys.path_importer_cache.get(entry)
            path.append(finder.path if type(finder) is FileFinder else entry)
    return path
