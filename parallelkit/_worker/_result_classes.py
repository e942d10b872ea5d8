"""Classes of the script in results: one that came to this process is packed once, and the caller finds its own by its id."""

from __future__ import annotations

from parallelkit._raised import tolerated
from parallelkit._worker import _classes
from parallelkit._worker._travel import Apart, pack_by_value, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

SMALL = 64 << 10
"""Size in bytes up to which a packed class is kept; a larger one is packed with each result."""

KEPT = 16
"""How many classes are kept: those that were met last."""


class ResultClasses:
    """Decides how classes go into the pickles of results, as ``Editions`` does for what is sent to workers."""

    by_file = False

    def __init__(self) -> None:
        self.known: dict[int, Any] = {}
        self._kept: dict[type, bool] = {}

    def reduce(self, cls: type, reduced: Any) -> Any:
        """What stands for the class, if it came from elsewhere and is not large; else the class itself."""
        if cls not in self._kept and _classes.is_made(cls):
            if len(self._kept) >= KEPT:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                self.known.pop(id(oldest), None)
            self._kept[cls] = True
            blob = _packed(cls)
            if blob is not None:
                self.known[id(cls)] = find_class, (reduced[1][_classes.TRACKER], blob[::-1])
        return self.known.get(id(cls), reduced)


def _packed(cls: type) -> bytes | None:
    """The class; None if it is large, and nothing if a task has put into it what cannot be pickled, such as a connection."""
    apart = Apart()
    with tolerated():
        blob = pack_by_value(cls, apart)
        return None if apart.buffers or len(blob) > SMALL else blob
    return b""


def find_class(tracker: str, blob: bytes) -> Any:
    """The class that has this id in the caller's process; if that has it no more, one made of the bytes, which are reversed."""
    known = _classes.find(tracker)
    if known is None and not blob:
        raise LookupError("its class is no longer in the caller, and cannot be pickled in the worker")
    return unpack(blob[::-1]) if known is None else known
