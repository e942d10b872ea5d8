"""``World``: the clock and the circumstances of a run, which a test may replace."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from parallelkit._named_tuple import NamedTuple
from parallelkit._system import monotonic


class World(NamedTuple):
    """``now`` is the clock. ``stage`` maps a run's validated options to those it is run with.

    ``inline`` makes the engine of inline runs. Only a world made by a test has one: there, ``now`` judges
    timeouts, and nothing is random.
    """

    now: Callable[[], float] = monotonic
    stage: Callable[[Any], Any] = lambda options: options
    inline: Callable[[], Any] | None = None

    @property
    def staged(self) -> bool:
        """Whether a test made this world."""
        return self.inline is not None


the_world: ContextVar[World] = ContextVar("parallelkit_world", default=World())  # noqa: B039  it is a tuple
