"""In a worker: the functions of the script that came with a call, found again by their bytes when they come with another.

So what one keeps in a global variable or a cache is there for the next call, as that of a function in a module would be.
"""

from __future__ import annotations

from parallelkit._worker import _classes
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

KEPT = 16
"""Functions: those that came last."""

_functions: dict[bytes, Any] = {}


_renewals = 0
"""Of classes, so far: a function may use one that has another edition by now than in its bytes."""


def recall(blob: bytes) -> Any:
    """The function that these bytes are, read backwards."""
    _forget_outdated()
    function = _functions.pop(blob, None)
    if function is None:
        function = unpack(blob[::-1])
        _forget_outdated()
        if len(_functions) >= KEPT:
            del _functions[next(iter(_functions))]
    _functions[blob] = function  # as the last
    return function


def _forget_outdated() -> None:
    global _renewals
    if _renewals != _classes.renewals:
        _functions.clear()
        _renewals = _classes.renewals
