"""In a worker process: to count as whoever opened it does."""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from decimal import Context
    from typing import Any


def count_with(context: Context, initializer: Callable[..., object] | None, *initargs: Any) -> None:
    """An initializer: it makes this the decimal context of all tasks, and calls the caller's own, if there is one."""
    from decimal import setcontext

    setcontext(context)
    if initializer is not None:
        initializer(*initargs)
