"""The source files of Python's standard library, as input of realistic lengths."""

from __future__ import annotations

import sysconfig
from pathlib import Path

NOT_THEIRS = {"site-packages", "dist-packages"}


def files(every: int) -> list[str]:
    """One in ``every`` files of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(path) for path in root.rglob("*.py") if not NOT_THEIRS & set(path.parts))[::every]
