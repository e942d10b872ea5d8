"""The performance budget: limits, absolute or relative to a peer, and whether they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks._ask import Answers, Place
from benchmarks._question import OURS

BEST = "the best peer"


@dataclass(frozen=True, slots=True)
class Limit:
    """An upper bound: absolute, or as a multiple of the figure ``of`` a peer (or of ours in another case)."""

    at_most: float
    of: str | Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the budget. ``peers`` are the systems that a quick run measures beside ours."""

    what: str
    question: str
    case: str
    limits: tuple[Limit, ...]
    ours: str = OURS
    peers: tuple[str, ...] = ()

    def places(self) -> Iterator[Place]:
        """All places that must be measured to judge the row."""
        yield from ((system, self.case) for system in (self.ours, *self.peers))
        yield from (limit.of for limit in self.limits if isinstance(limit.of, tuple))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged row. ``ratio`` is ours ÷ the best peer's; ``spent`` has a figure for each limit."""

    row: Row
    unit: str
    ours: float | None
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    spent: tuple[float, ...] = field(default=())

    def kept(self, limit: Limit) -> bool:
        spent = dict(zip(self.row.limits, self.spent, strict=True))[limit]
        return spent <= limit.at_most  # False if there is no figure (nan)

    @property
    def broken(self) -> bool:
        """Whether any limit is exceeded, or could not be measured."""
        return not all(map(self.kept, self.row.limits))


def judge(row: Row, answers: Answers) -> Verdict:
    """Compare ours with the best peer that was measured, and with every limit."""
    unit, ours = answers.question.unit, answers.median((row.ours, row.case))
    peer = best_peer(row, answers)
    spent = tuple(spent_of(limit, row, answers, peer) for limit in row.limits)
    if peer is None:
        return Verdict(row, unit, ours, spent=spent)
    theirs = answers.median((peer, row.case))
    return Verdict(
        row, unit, ours, peer, theirs, answers.ratio((row.ours, row.case), (peer, row.case)), spent
    )


def best_peer(row: Row, answers: Answers) -> str | None:
    """The peer with the smallest figure in this case, of those that were measured."""
    question = answers.question
    peers = [
        name for name in question.systems if not name.startswith(OURS) and name not in question.yardsticks
    ]
    medians = {peer: answers.median((peer, row.case)) for peer in peers}
    known = {peer: figure for peer, figure in medians.items() if figure is not None}
    return min(known, key=known.__getitem__) if known else None


def spent_of(limit: Limit, row: Row, answers: Answers, peer: str | None) -> float:
    """The figure that is compared with the limit; nan if it could not be measured."""
    ours = (row.ours, row.case)
    if limit.of is None:
        spent = answers.median(ours)
    elif isinstance(limit.of, tuple):
        spent = answers.ratio(ours, limit.of)
    else:
        name = peer if limit.of == BEST else limit.of
        spent = answers.ratio(ours, (name, row.case)) if name else None
    return math.nan if spent is None else spent
