"""Where workers look for modules: where this program does, though it may have changed its directory since it found its own.

In a notebook, an interactive interpreter or a program given by ``-c`` the first place is the working
directory, whichever that is. Another relative entry leads to where it led when something was first looked
for there.
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
