"""In a worker process: what the program has set in its interpreter, and its tasks rely on."""

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
    """An initializer: it sets the limit of recursion, the timeout of sockets and the decimal context, and calls the caller's own."""
    sys.setrecursionlimit(recursion)
    setdefaulttimeout(timeout)
    if decimals is not None:
        from decimal import setcontext

        setcontext(decimals)
    if initializer is not None:
        initializer(*initargs)
