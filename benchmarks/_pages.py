"""Fills the marked places of the documentation with what was measured."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import _budget, _record, _rows, _tables

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"]
PLACE = re.compile(r"(<!-- benchmark: (\w+) -->\n)(.*?)(<!-- /benchmark -->)", re.DOTALL)


def fill() -> None:
    """Write tables and pictures between the marks; all else stays as it is."""
    for page in PAGES:
        if page.exists():
            old = page.read_text(encoding="utf-8")
            new = PLACE.sub(lambda place: f"{place[1]}{content(place[2])}\n{place[4]}", old)
            if new != old:
                page.write_text(new, encoding="utf-8")


def content(name: str) -> str:
    """What belongs in a place: an answer, or the budget as far as it has been measured."""
    return budget() if name == "budget" else answer(name)


def answer(name: str) -> str:
    found = _record.load(name)
    if found is None:
        raise SystemExit(f"{name} has not been measured: run python benchmarks/{name}.py first")
    answers, told = found
    tables = [_tables.markdown(_tables.comparison(answers, unit)) for unit in _tables.units(answers)]
    picture = f"![{name}](../benchmarks/results/{name}.svg)"
    return "\n\n".join([picture, *tables, source(told)])


def source(told: dict[str, object]) -> str:
    """Where, when and how it was measured."""
    machine, versions = told["machine"], told["versions"]
    assert isinstance(machine, dict), "written by _record"
    assert isinstance(versions, dict), "written by _record"
    where = f"{machine['cpus']} × {machine['cpu']}, {machine['memory']}, {machine['system']}, load {machine['load']}"
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"`{told['command']}`, {str(told['date'])[:10]}, {where}; {what}. Median (least–most)."


def budget() -> str:
    """Every row that has been measured."""
    verdicts = []
    for row in _rows.ROWS:
        found = _record.load(row.question)
        if found is not None:
            verdicts.append(_budget.judge(row, found[0]))
    return _tables.markdown(_tables.budget(verdicts))
