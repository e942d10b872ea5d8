"""Run benchmarks: measure, save and draw the results, and check the budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import _budget, _pages, _record, _rows, _tables
from benchmarks._ask import Answers, Asking
from benchmarks._draw import draw


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.quick:
        sys.exit(quick(options.names))
    for name in options.names or _record.names():
        if not options.draw:
            ask(name, options.rounds)
        show(name)
    if not options.names or options.draw:
        _pages.fill()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", type=lambda name: Path(name).stem, help="questions to ask; all if none is named"
    )
    parser.add_argument("--rounds", type=int, help="how often each system is measured")
    parser.add_argument(
        "--quick", action="store_true", help="check the budget in under two minutes; write nothing"
    )
    parser.add_argument("--draw", action="store_true", help="measure nothing; draw the saved results")
    options = parser.parse_args([*arguments, *sys.argv[1:]] if arguments else None)
    unknown = set(options.names) - set(_record.names())
    if unknown:
        parser.error(
            f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(_record.names())}"
        )
    return options


def ask(name: str, rounds: int | None) -> None:
    """Ask one question of all systems, and save the answers."""
    question = _record.question(name)
    rounds = rounds or question.rounds
    everywhere = {(system, case) for system in question.systems for case in question.cases}
    print(f"\n{name}: {question.asks.strip()}", flush=True)
    answers = Asking(_record.module_of(name), question, say).ask(rounds, everywhere)
    _record.save(name, answers, rounds)


def show(name: str) -> None:
    """Print and draw the saved answers to one question, if there are any."""
    found = _record.load(name)
    if found is None:
        return
    answers, _ = found
    for unit in _tables.units(answers):
        print(_tables.plain(_tables.comparison(answers, unit)), end="\n\n")
    draw(name, answers, _record.RESULTS)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def quick(names: Iterable[str]) -> int:
    """Check the budget, or the rows that belong to ``names``; return the exit code: 1 if a limit is exceeded."""
    rows = [row for row in _rows.ROWS if not names or row.question in names]
    verdicts = []
    for name in dict.fromkeys(row.question for row in rows):
        answers = ask_quickly(name, rows)
        verdicts += [_budget.judge(row, answers) for row in rows if row.question == name]
    print(_tables.plain(_tables.budget(verdicts)))
    broken = [verdict.row.what for verdict in verdicts if verdict.broken]
    print(
        f"\n{len(broken)} of {len(verdicts)} rows broken: {', '.join(broken)}"
        if broken
        else "\nthe budget is kept"
    )
    return bool(broken)


def ask_quickly(name: str, rows: Iterable[_budget.Row]) -> Answers:
    """Measure only what the budget rows of this question need, in few rounds."""
    question = _record.question(name)
    places = {place for row in rows if row.question == name for place in row.places()}
    return Asking(_record.module_of(name), question, say).ask(question.quick_rounds, places)


if __name__ == "__main__":
    main()
