"""Makes public classes name the package as their module."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(kind: type[T]) -> type[T]:
    """Have tracebacks, reprs and pickles name the package, so that the defining module may move."""
    kind.__module__ = "parallelkit"
    return kind
