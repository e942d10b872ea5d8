"""The public place of a class is the package, whichever module it is written in."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(kind: type[T]) -> type[T]:
    """Have tracebacks, reprs and pickles of a class name the package, which stays when a module moves."""
    kind.__module__ = "parallelkit"
    return kind
