"""Arrays that are files (``numpy.memmap``): sent as the file's name, so that both ends map the same file."""

from __future__ import annotations

import os
import sys
from _pickle import Pickler
from copyreg import dispatch_table
from functools import cache

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

PRIVATE = "c"
"""The copy-on-write mode of ``numpy.memmap``: what is written stays in memory."""


def by_file(pickler: Any) -> Any:
    """A subclass of this pickler that sends them so; the pickler itself while numpy is not loaded."""
    if "numpy" not in sys.modules:
        return pickler
    from numpy import memmap

    made = _by_file(pickler)
    known = dispatch_table if pickler is Pickler else pickler.dispatch_table
    made.dispatch_table.update({**known, memmap: reduce_memmap})
    return made


@cache
def _by_file(base: Any) -> Any:
    return type(base.__name__, (base,), {"dispatch_table": {}})


def reduce_memmap(array: Any) -> Any:
    """For a pickler: how to map the file again; a copy of an array that is no file, or is not contiguous."""
    import numpy as np

    backing = array
    while isinstance(backing.base, np.ndarray):
        backing = backing.base
    order = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else None
    if order is None or getattr(backing, "mode", PRIVATE) == PRIVATE or not _is_there(backing):
        return np.array(array).__reduce_ex__(5)
    start = array.__array_interface__["data"][0] - backing.__array_interface__["data"][0]
    mode = "r+" if array.flags.writeable else "r"  # with "w+" the other end would empty the file
    return open_memmap, (str(backing.filename), array.dtype, mode, backing.offset + start, array.shape, order)


def _is_there(backing: Any) -> bool:
    """Whether there is a file of that name which is long enough; that it is the same file cannot be told."""
    filename = getattr(backing, "filename", None)
    try:
        return filename is not None and os.path.getsize(filename) >= backing.offset + backing.nbytes
    except OSError:
        return False


def open_memmap(*args: Any) -> Any:
    """Map the file again, in the other process."""
    from numpy import memmap

    filename, dtype, mode, offset, shape, order = args
    return memmap(filename, dtype, mode, offset, shape, order)
