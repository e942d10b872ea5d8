"""How many tasks run beside this one: the width by which a nested run divides its own default."""

from __future__ import annotations

from contextvars import ContextVar

_width: ContextVar[int] = ContextVar("parallelkit_width", default=1)


def widen(workers: int) -> None:
    """In the context of a run's tasks: there are ``workers`` of them at a time."""
    _width.set(_width.get() * workers)


def outer_width() -> int:
    """The product of the widths of all runs around this code; 1 outside of any task."""
    from parallelkit._worker import _channel

    return _width.get() * _channel.outer_width()
