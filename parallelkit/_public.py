"""Makes public classes name the package as their module."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(kind: type[T]) -> type[T]:
    """Have tracebacks, reprs and pickles name the package, so that the defining module may move.

    The modules of dataclasses do without ``from __future__ import annotations``: whatever evaluates the annotations of
    fields (pydantic, cattrs) would look the names up in the package.
    """
    kind.__module__ = "parallelkit"
    return kind
