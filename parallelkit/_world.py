"""The world as a run sees it: its clock, how it waits, how it is played. A test may put another in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def unchanged(options: T) -> T:
    """The real world plays every run as its caller has asked for it."""
    return options


@dataclass(frozen=True, slots=True)
class World:
    """``stage`` gives the checked options under which a run is played here.

    ``staged``: a test has made this world. Chance has no part in it, and its clock judges timeouts.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    stage: Callable[[Any], Any] = unchanged
    staged: bool = False


the_world: ContextVar[World] = ContextVar("parallelkit_world", default=World())  # noqa: B039  it is frozen
