"""Fill the marked places of the documentation with the saved results."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import _budget, _record, _rows, _tables
from benchmarks._ask import Answers
from benchmarks._question import OURS
from benchmarks.width import LENGTHS

WIDTHS = (8, 64, 256)
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "benchmarks.md"]
PLACE = re.compile(
    r"(?P<begin><!-- benchmark(?:: (?P<name>\w+)| table: begin[^\n]*) -->\n).*?(?P<end><!-- (?:/benchmark|benchmark table: end) -->)",
    re.DOTALL,
)


def fill() -> None:
    """Write tables and pictures between the marks; leave the rest of each page as it is."""
    for page in PAGES:
        if page.exists():
            old = page.read_text(encoding="utf-8")
            new = PLACE.sub(filled, old)
            if new != old:
                page.write_text(new, encoding="utf-8")


def filled(place: re.Match[str]) -> str:
    """A marked place with its new content: the answers to a question, or a table computed from several."""
    name = place["name"] or "against_peers"
    computed = {"against_peers": against_peers, "budget": budget, "busy_workers": busy_workers}
    return f"{place['begin']}\n{computed[name]() if name in computed else answer(name)}\n\n{place['end']}"


def answer(name: str) -> str:
    found = _record.load(name)
    if found is None:
        raise SystemExit(f"{name} has not been measured: run python benchmarks/{name}.py first")
    answers, told = found
    tables = [_tables.markdown(_tables.comparison(answers, unit)) for unit in _tables.units(answers)]
    question = " ".join(str(told["asks"]).split()).partition("?")[0] + "?"
    picture = f"![{question}](../benchmarks/results/{name}.svg)"
    return "\n\n".join([picture, *tables, source(told)])


def busy_workers() -> str:
    """The share of its workers that one caller keeps busy, computed from its own CPU time per task."""
    found = _record.load("width")
    assert found is not None, "the place above this one needs the same answers"
    answers = found[0]
    rows = [["tasks of", *(f"{workers} workers" for workers in WIDTHS)]]
    for case, length in LENGTHS.items():
        cost = answers.median((OURS, case))
        assert cost is not None, "ours was measured"
        rows.append([case, *(f"{min(1.0, length / cost / workers):.0%}" for workers in WIDTHS)])
    return _tables.markdown(rows)


def source(told: dict[str, object]) -> str:
    """Where, when and how the answers were measured."""
    machine, versions = told["machine"], told["versions"]
    assert isinstance(machine, dict), "written by _record"
    assert isinstance(versions, dict), "written by _record"
    where = f"{machine['cpus']} × {machine['cpu']}, {machine['memory']}, {machine['system']}, load {machine['load']}"
    what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"`{told['command']}`, {str(told['date'])[:10]}, {where}; {what}. Median (least–most)."


def budget() -> str:
    """The budget table: every row that has been measured."""
    return _tables.markdown(_tables.budget(verdicts()))


def against_peers() -> str:
    """The README's table: ours against the first peer of each budget row."""
    named = [(row, answers) for row, answers in measured() if row.peers]
    return _tables.markdown(_tables.against_peers(named))


def verdicts() -> list[_budget.Verdict]:
    return [_budget.judge(row, answers) for row, answers in measured()]


def measured() -> list[tuple[_budget.Row, Answers]]:
    """The budget rows whose questions have saved answers."""
    found = ((row, _record.load(row.question)) for row in _rows.ROWS)
    return [(row, kept[0]) for row, kept in found if kept is not None]
