"""In a worker: the functions of the script that came with a call, found again by their bytes when they come with another.

So what one keeps in a global variable or a cache is there for the next call, as that of a function in a module would be.
"""

from __future__ import annotations

from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

KEPT = 16
"""Functions: those that came last."""

_functions: dict[bytes, Any] = {}


def recall(blob: bytes) -> Any:
    """The function that these bytes are, read backwards.

    Where they have a class of the script, they say which edition: they are others where it has changed (_worker/_classes.py).
    """
    function = _functions.pop(blob, None)
    if function is None:
        function = unpack(blob[::-1])
        if len(_functions) >= KEPT:
            del _functions[next(iter(_functions))]
    _functions[blob] = function  # as the last
    return function
