"""Markers for the absence of a value."""

from __future__ import annotations

from typing import Any


class Mark:
    """A value that stands for "no value here"; unpickled, it is the same object."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name

    __repr__ = __reduce__


UNSET: Any = Mark("UNSET")  # an argument that was not given
OPEN = Mark("OPEN")  # admitted, not settled
FAILED = Mark("FAILED")  # see Ledger.failed
CANCELLED = Mark("CANCELLED")  # see Ledger.cancelled
