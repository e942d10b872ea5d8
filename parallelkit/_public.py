"""Makes public classes name the package as their module."""

from __future__ import annotations

import sys
from typing import TypeVar

T = TypeVar("T")


def public(kind: type[T]) -> type[T]:
    """Have tracebacks, reprs and pickles name the package, so that the defining module may move.

    The modules of dataclasses do without ``from __future__ import annotations``: whatever evaluates the annotations of
    fields (pydantic, cattrs) would look the names up in the package.

    If a module is loaded again, because ``mock.patch.dict(sys.modules)`` has removed it, it has the same class as before: a second
    one would not be known by ``isinstance`` and ``except``.
    """
    kind.__module__ = "parallelkit"
    known: type[T] = vars(sys.modules["parallelkit"]).setdefault(kind.__name__, kind)
    return known
