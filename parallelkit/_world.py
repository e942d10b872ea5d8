"""The world as a run sees it: its clock, and how it is played. A test may put another in its place."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from parallelkit._system import monotonic

T = TypeVar("T")


def unchanged(options: T) -> T:
    """The real world plays every run as its caller has asked for it."""
    return options


class World(NamedTuple):
    """``stage`` gives the checked options under which a run is played here.

    ``inline`` makes the engine of inline runs; where there is one, a test has made this world, its
    clock judges timeouts, and chance has no part in it.
    """

    now: Callable[[], float] = monotonic
    stage: Callable[[Any], Any] = unchanged
    inline: Callable[[], Any] | None = None

    @property
    def staged(self) -> bool:
        """Whether a test has made this world."""
        return self.inline is not None


the_world: ContextVar[World] = ContextVar("parallelkit_world", default=World())  # noqa: B039  it is a tuple
