"""In a worker process: settings of the program's interpreter that its tasks rely on."""

from __future__ import annotations

import sys
from _socket import setdefaulttimeout
from collections.abc import Callable

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from decimal import Context
    from typing import Any


def take_on(
    recursion: int,
    timeout: float | None,
    decimals: Context | None,
    initializer: Callable[..., object] | None,
    *initargs: Any,
) -> None:
    """Initialize a worker: set recursion limit, socket timeout and decimal context; call the caller's initializer."""
    sys.setrecursionlimit(recursion)
    setdefaulttimeout(timeout)
    if decimals is not None:
        from decimal import setcontext

        setcontext(decimals)
    if initializer is not None:
        initializer(*initargs)
