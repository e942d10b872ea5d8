"""Connections, the ends of a ``multiprocessing.Pipe``, which are refused: they must stay in their process.

Any pickler but multiprocessing's own takes one for plain data: the number of a descriptor, by which the other process
would use, and in the end close, a file of its own.
"""

from __future__ import annotations

from copyreg import dispatch_table
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

MODULE = "multiprocessing.connection"  # while this module is not loaded, there are none
MARK = MODULE.encode()  # stands in the pickle of each
STAYS = "a multiprocessing Connection is a descriptor of this process"


def may_have_connection(blob: bytes) -> bool:
    """Whether a pickle may have one: then a pickler that refuses them must decide."""
    return MODULE in modules and blob.rfind(MARK) >= 0


def refuse_connections(table: MutableMapping[type, Any]) -> None:
    """Make a pickler with this dispatch table refuse them."""
    if (kind := getattr(modules.get(MODULE), "Connection", None)) is not None:
        table[kind] = _reduce


def _reduce(connection: object) -> Any:
    known = dispatch_table.get(type(connection))
    if known is None:
        raise TypeError(STAYS)
    return known(connection)  # the program has registered a way of its own with copyreg
