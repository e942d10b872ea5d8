"""Plots of answers: lines where the cases are numbers, otherwise a dot for every system."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks._ask import Answers
from benchmarks._question import OURS
from benchmarks._tables import figure

OURS_COLOUR = "#c0392b"
COLOURS = ["#34495e", "#2980b9", "#27ae60", "#8e44ad", "#d68910", "#16a085", "#7f8c8d", "#a04000"]


def draw(name: str, answers: Answers, folder: Path) -> list[Path]:
    """Write a PNG and an SVG file, and return their paths; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = name  # the same answers give the same file
    from matplotlib.figure import Figure

    numeric = len(answers.question.cases) > 2 and all(
        isinstance(case, int | float) for case in answers.question.cases.values()
    )
    picture = lines(answers, Figure) if numeric else dots(answers, Figure)
    picture.suptitle(answers.question.asks.partition("\n")[0], fontsize=11)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        picture.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def lines(answers: Answers, new: Any) -> Any:
    """A line per system, over the cases."""
    question = answers.question
    picture = new(figsize=(8, 4.8), layout="constrained")
    axes = picture.subplots()
    colours, marks = cycle(COLOURS), cycle("osD^vPX*")
    for system in question.systems:
        points = [
            (value, middle)
            for case, value in question.cases.items()
            if (middle := answers.median((system, case))) is not None
        ]
        if points:
            ours = system.startswith(OURS)
            axes.plot(
                *zip(*points, strict=True),
                label=system,
                marker=next(marks),
                markersize=5,
                linewidth=2.4 if ours else 1.2,
                color=OURS_COLOUR if ours else next(colours),
                zorder=3 if ours else 2,
            )
    axes.set_xscale("log")
    if question.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(list(question.cases.values()), list(question.cases))
    axes.minorticks_off()
    axes.set_ylabel(question.unit)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture


def dots(answers: Answers, new: Any) -> Any:
    """A panel per case, a dot per system: the median, on a line from the least to the most."""
    question = answers.question
    height = max(len(question.systems) * 0.26 + 0.6, 1.6)
    picture = new(figsize=(8, height * len(question.cases) + 0.5), layout="constrained")
    panels = picture.subplots(len(question.cases), squeeze=False)[:, 0]
    for axes, case in zip(panels, question.cases, strict=True):
        panel(axes, answers, case)
    panels[-1].set_xlabel(question.unit)
    return picture


def panel(axes: Any, answers: Answers, case: str) -> None:
    question = answers.question
    medians = {system: answers.median((system, case)) for system in question.systems}
    known = {system: middle for system, middle in medians.items() if middle is not None}
    order = sorted(known, key=known.__getitem__, reverse=not question.more_is_better)
    for height, system in enumerate(order):
        colour = OURS_COLOUR if system.startswith(OURS) else COLOURS[0]
        figures = answers.of((system, case)).values()
        axes.plot([min(figures), max(figures)], [height, height], color=colour, linewidth=1.5, alpha=0.5)
        axes.plot(known[system], height, "o", color=colour)
        axes.annotate(
            figure(known[system]),
            (known[system], height),
            (0, 5),
            textcoords="offset points",
            fontsize=7,
            ha="center",
        )
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.2)
    if question.log:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.set_title(case, fontsize=9, loc="left")
    axes.grid(axis="x", alpha=0.3)
