"""The definition of a question: which systems are measured, in which cases, and how."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

OURS = "parallelkit"
LIMITS = frozenset({"for loop", "bare fork and split", "bare pipes", "nothing"})

Run: TypeAlias = Callable[..., Any]
"""The callable that an open system yields; its arguments and result are defined by the question."""

System: TypeAlias = Callable[[], AbstractContextManager[Run]]
"""Opens a system, warm and ready. Only calls inside the ``with`` block are measured, not the opening."""

Figures: TypeAlias = dict[str, float]
"""The result of one measurement: unit → figure."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A measurement that is made with every system, in every case, round by round.

    ``cases`` maps a label to the second argument of ``measure``; the first is the open system.
    ``unit`` names the figure that is compared; smaller is better unless ``more_is_better``.
    ``limit`` is in seconds: a measurement that takes longer is killed and recorded as a failure, and
    a system that has spent that long on a case in total gets no further round in it. With ``fresh``,
    every measurement has a new process, and there is no warm-up.
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
    """Systems that are not peers: they show the attainable limit, and offer none of the features."""
    log: bool = False
    """Whether figures are drawn on a logarithmic scale."""


@contextmanager
def unopened(pool: Any) -> Iterator[Any]:
    """A system that ``measure`` opens itself, so that opening it is part of each measurement."""
    yield pool


def stopwatch(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call ``work``; return the seconds it took, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def expect(what: str, wanted: Any, got: Any) -> None:
    """Fail the measurement if the system's results are wrong."""
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")
