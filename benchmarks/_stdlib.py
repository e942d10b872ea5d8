"""The sources of Python's own library: real files, of real lengths."""

from __future__ import annotations

import sysconfig
from pathlib import Path

NOT_THEIRS = {"site-packages", "dist-packages"}


def files(every: int) -> list[str]:
    """The files of the standard library, or one in so many."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(path) for path in root.rglob("*.py") if not NOT_THEIRS & set(path.parts))[::every]
