"""Answers and verdicts as text: for the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from benchmarks._ask import Answers
from benchmarks._budget import Limit, Row, Verdict


def figure(value: float | None) -> str:
    """A number with about three significant digits; a dash for None."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def plain(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first row is the head."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is the head."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def units(answers: Answers) -> list[str]:
    """Every unit that was measured, the question's own first."""
    found = {unit: None for rounds in answers.rounds.values() for one in rounds.values() for unit in one}
    return [answers.question.unit, *(unit for unit in found if unit != answers.question.unit)]


def comparison(answers: Answers, unit: str) -> list[list[str]]:
    """A row per system, a column per case: the median, followed by (least–most)."""
    cases = list(answers.question.cases)
    rows = [[unit, *cases]]
    for system in answers.question.systems:
        cells = [cell(answers, (system, case), unit) for case in cases]
        if any(cells):
            rows.append([system, *cells])
    return rows


def cell(answers: Answers, place: tuple[str, str], unit: str) -> str:
    figures = sorted(answers.of(place, unit).values()) if has(answers, place, unit) else []
    if not figures:
        return shortened(answers.failures.get(place, ""))
    middle = answers.median(place, unit)
    spread = f" ({figure(figures[0])}–{figure(figures[-1])})" if len(figures) > 1 else ""
    return figure(middle) + spread


def has(answers: Answers, place: tuple[str, str], unit: str) -> bool:
    return all(unit in figures for figures in answers.rounds.get(place, {}).values())


def shortened(text: str) -> str:
    """The first line of an error, cut to fit a table cell."""
    first = text.partition("\n")[0].replace("|", "/")
    return first if len(first) <= 60 else f"{first[:57]}…"


def against_peers(measured: Iterable[tuple[Row, Answers]]) -> list[list[str]]:
    """A row per budget row: ours, and its first peer."""
    rows = [["what", "ours", "a peer", "ours ÷ peer"]]
    for row, answers in measured:
        place, peer = (row.ours, row.case), (row.peers[0], row.case)
        ours = f"{figure(answers.median(place))} {answers.question.unit}"
        theirs = f"{row.peers[0]} {figure(answers.median(peer))}"
        rows.append([row.what, ours, theirs, figure(answers.ratio(place, peer))])
    return rows


def budget(verdicts: Iterable[Verdict]) -> list[list[str]]:
    """A row per verdict: the figures, and for each limit how much of it is spent and whether it holds."""
    rows = [["what", "ours", "best peer", "ours ÷ peer", "spent of the budget", ""]]
    for verdict in verdicts:
        theirs = f"{verdict.peer} {figure(verdict.theirs)}" if verdict.peer else "–"
        spent = [
            f"{figure(spent)} of {figure(limit.at_most)}{terms(limit)}"
            for limit, spent in zip(verdict.row.limits, verdict.spent, strict=True)
        ]
        rows.append(
            [
                verdict.row.what,
                f"{figure(verdict.ours)} {verdict.unit}",
                theirs,
                figure(verdict.ratio),
                "; ".join(spent),
                "; ".join(word(verdict, limit) for limit in verdict.row.limits),
            ]
        )
    return rows


def terms(limit: Limit) -> str:
    """What a relative limit is multiplied by, as text; empty for an absolute one."""
    if limit.of is None:
        return ""
    return f" × {limit.of[1] if isinstance(limit.of, tuple) else limit.of}"


def word(verdict: Verdict, limit: Limit) -> str:
    return "ok" if verdict.kept(limit) else "BROKEN"
