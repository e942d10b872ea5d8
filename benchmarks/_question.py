"""What a question is: which systems, in which cases, and what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

OURS = "parallelkit"
LIMITS = frozenset({"for loop", "bare fork and split", "bare pipes", "nothing"})

Run: TypeAlias = Callable[..., Any]
"""What an open system offers; what it takes and gives is between it and its question."""

System: TypeAlias = Callable[[], AbstractContextManager[Run]]
"""Opens a system, warm and ready; what happens inside the ``with`` is measured, what is before is not."""

Figures: TypeAlias = dict[str, float]
"""What one measurement gave: unit → figure."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Asked of every system in every case, round by round.

    ``cases`` maps a label to what ``measure`` is given beside the open system. ``unit`` names the
    figure that is compared, the smaller the better unless ``more_is_better``. ``limit`` is in
    seconds: a single measurement that takes longer is ended and recorded as such, and no further
    round is begun where a system has spent that long in a case. With ``fresh`` every measurement
    has a new process, and there is no warming up.
    """

    asks: str
    systems: Mapping[str, System]
    cases: Mapping[str, Any]
    measure: Callable[[Run, Any], Figures]
    unit: str
    rounds: int = 5
    quick_rounds: int = 3
    limit: float = 60.0
    fresh: bool = False
    more_is_better: bool = False
    yardsticks: frozenset[str] = frozenset()
    """Systems that are no peers: they show what there is to reach, and promise nothing."""
    log: bool = False
    """Whether figures are drawn on a logarithmic axis."""


@contextmanager
def unopened(pool: Any) -> Iterator[Any]:
    """A system that its question opens itself, for each measurement."""
    yield pool


def stopwatch(work: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds a call took, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def expect(what: str, wanted: Any, got: Any) -> None:
    """A measurement of wrong results is none."""
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")
