"""In a worker: keeps the script's functions that arrive with calls, and recognises them by their bytes in later calls.

So what such a function keeps in a global variable or a cache is still there in the next call, as in a module's function.
"""

from __future__ import annotations

from parallelkit._worker._brought import OffTheClock
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

KEPT = 16
"""How many functions are kept: the most recent."""

_functions: dict[bytes, Any] = {}


def recall(blob: bytes) -> Any:
    """The function in these bytes, which are reversed (see ``Carried``).

    They name the edition of each class of the script that they refer to (_worker/_classes.py), so they differ once one has changed.
    """
    function = _functions.pop(blob, None)
    if function is None:
        with OffTheClock():
            function = unpack(blob[::-1])
        if len(_functions) >= KEPT:
            del _functions[next(iter(_functions))]
    _functions[blob] = function  # now the most recent
    return function
