"""Ends of a ``multiprocessing.Pipe``, which stay where they are.

Any pickler but multiprocessing's own takes one for plain data: a number, by which the other process would use,
and in the end close, another file.
"""

from __future__ import annotations

from copyreg import dispatch_table
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

HOME = "multiprocessing.connection"  # where it is not loaded, there are none
MARK = HOME.encode()  # of one, in a pickle
STAYS = "a multiprocessing Connection is a descriptor of this process"


def may_have_end(blob: bytes) -> bool:
    """Whether a pickle names where they come from: then a pickler has to look that knows them."""
    return HOME in modules and blob.find(MARK) >= 0


def refuse_ends(table: MutableMapping[type, Any]) -> None:
    """Have a pickler with this dispatch table refuse them."""
    if (kind := getattr(modules.get(HOME), "Connection", None)) is not None:
        table[kind] = _reduce


def _reduce(end: object) -> Any:
    known = dispatch_table.get(type(end))
    if known is None:
        raise TypeError(STAYS)
    return known(end)  # the caller has taught pickle to send them
