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
"""How many functions, and how many classes, are kept: the most recent."""

_functions: dict[bytes, Any] = {}
_classes: dict[bytes, Any] = {}


def recall(blob: bytes) -> Any:
    """The function in these bytes, which are reversed (see ``Carried``).

    They name the edition of each class of the script that they refer to (_worker/_classes.py), so they differ once one has changed.
    """
    return _recall(_functions, blob)


def recall_class(blob: bytes) -> Any:
    """The same for a class that comes with items."""
    return _recall(_classes, blob)


def _recall(kept: dict[bytes, Any], blob: bytes) -> Any:
    thing = kept.pop(blob, None)
    if thing is None:
        with OffTheClock():
            thing = unpack(blob[::-1])
        if len(kept) >= KEPT:
            del kept[next(iter(kept))]
    kept[blob] = thing  # now the most recent
    return thing
