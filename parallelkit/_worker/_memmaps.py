"""Arrays for all tasks that numpy would pickle as a copy: files (``numpy.memmap``) are mapped again, slices made contiguous."""

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
    from numpy import memmap, ndarray

    made = _by_file(pickler)
    known = dispatch_table if pickler is Pickler else pickler.dispatch_table
    made.dispatch_table.update({ndarray: reduce_array, **known, memmap: reduce_memmap})
    return made


@cache
def _by_file(base: Any) -> Any:
    return type(base.__name__, (base,), {"dispatch_table": {}})


def reduce_array(array: Any) -> Any:
    """For a pickler: the array or, as only that has a buffer to share, a contiguous copy. Some rows of a frame are not contiguous."""
    from numpy import transpose

    axes = sorted(range(array.ndim), key=array.strides.__getitem__, reverse=True)
    ordered = array.transpose(axes)
    if not ordered.flags.c_contiguous:
        array = array.copy("K" if array.ndim < 3 else "C")
    elif not array.flags.forc:  # only its axes are in another order, which numpy does not share before 2.3
        return transpose, (ordered, sorted(range(array.ndim), key=axes.__getitem__))
    return array.__reduce_ex__(5)


def reduce_memmap(array: Any) -> Any:
    """For a pickler: how to map the file again; a copy of an array that is no file, or is not contiguous."""
    import numpy as np

    backing = array
    while isinstance(backing.base, np.ndarray):
        backing = backing.base
    order = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else None
    if order is None or getattr(backing, "mode", PRIVATE) == PRIVATE or not (inode := _inode_of(backing)):
        return np.array(array).__reduce_ex__(5)
    start = array.__array_interface__["data"][0] - backing.__array_interface__["data"][0]
    mode = "r+" if array.flags.writeable else "r"  # with "w+" the other end would empty the file
    where = str(backing.filename), array.dtype, mode, backing.offset + start
    return open_memmap, (*where, array.shape, order, inode)


def _inode_of(backing: Any) -> int:
    """The inode of the file of that name, if it is long enough, else 0; that it is the file of this array cannot be told."""
    filename = getattr(backing, "filename", None)
    try:
        file = os.stat(filename) if filename is not None else None
    except OSError:
        return 0
    return file.st_ino if file is not None and file.st_size >= backing.offset + backing.nbytes else 0


def open_memmap(*args: Any) -> Any:
    """Map the file again, in the other process. By the inode, the pickle of a function changes if another file has got the name."""
    from numpy import memmap

    filename, dtype, mode, offset, shape, order, _ = args
    return memmap(filename, dtype, mode, offset, shape, order)
