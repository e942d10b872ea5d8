"""Ask a question: measure all its systems, interleaved, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from benchmarks._cell import Cell, NoAnswerError
from benchmarks._question import Figures, Question

Place: TypeAlias = tuple[str, str]
"""A system in a case."""


@dataclass(slots=True)
class Answers:
    """The answers to a question: the figures of every round, and the error of each place that failed."""

    question: Question
    rounds: dict[Place, dict[int, Figures]] = field(default_factory=dict)
    failures: dict[Place, str] = field(default_factory=dict)

    def of(self, place: Place, unit: str = "") -> dict[int, float]:
        """Round → figure; empty if the place has none."""
        unit = unit or self.question.unit
        return {number: figures[unit] for number, figures in self.rounds.get(place, {}).items()}

    def median(self, place: Place, unit: str = "") -> float | None:
        """The median of all rounds; None if there is none."""
        figures = self.of(place, unit)
        return statistics.median(figures.values()) if figures else None

    def ratio(self, one: Place, other: Place) -> float | None:
        """One place's figure divided by another's: the median of the ratios within each round."""
        ours, theirs = self.of(one), self.of(other)
        ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys()]
        return statistics.median(ratios) if ratios else None


class Asking:
    """One pass through a question; owns the processes of its systems."""

    def __init__(self, module: str, question: Question, say: Callable[[str], None]) -> None:
        self._module = module
        self._question = question
        self._say = say
        self._cells: dict[str, Cell] = {}
        self._spent: dict[Place, float] = {}
        self.answers = Answers(question)

    def ask(self, rounds: int, places: Collection[Place]) -> Answers:
        """Measure every place once per round. First, each system warms up in its first case, uncounted."""
        try:
            if not self._question.fresh:
                for place in {
                    system: (system, case) for system, case in reversed([*self._order(0, places)])
                }.values():
                    self._measure(place, 0)
            for number in range(1, rounds + 1):
                for place in self._order(number, places):
                    self._measure(place, number)
        finally:
            for cell in self._cells.values():
                cell.close()
        return self.answers

    def _order(self, number: int, places: Collection[Place]) -> Iterator[Place]:
        """All places, case by case; the system that goes first changes from round to round."""
        systems = list(self._question.systems)
        turn = number % len(systems)
        for case in self._question.cases:
            yield from ((name, case) for name in systems[turn:] + systems[:turn] if (name, case) in places)

    def _measure(self, place: Place, number: int) -> None:
        system, case = place
        limit = self._question.limit
        if place in self.answers.failures or (number > 1 and self._spent.get(place, 0.0) > limit):
            return
        cell = self._cells.pop(system, None) or Cell(self._module, system)
        began = time.monotonic()
        try:
            figures = cell.ask(case, limit)
        except NoAnswerError as error:
            self.answers.failures[place] = str(error)
            self._say(f"{system}, {case}: {error}")
            cell.kill()
            return
        self._spent[place] = self._spent.get(place, 0.0) + time.monotonic() - began
        if number:
            self.answers.rounds.setdefault(place, {})[number] = figures
        if self._question.fresh:
            cell.close()
        else:
            self._cells[system] = cell
