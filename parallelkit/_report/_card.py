"""The card that a notebook shows for a run: a few lines of HTML in the notebook's own colours."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from parallelkit._ledger import Ledger
from parallelkit._report._advice import advise
from parallelkit._report._failures import kinds_of_failure
from parallelkit._report._format import encodable, key_text, seconds
from parallelkit._report._summary import Survey, survey
from parallelkit._report._words import at_a_time, counts, examples, fate, how_many

SLOWEST = 3  # tasks listed
KINDS = 5  # of failures listed
TRACEBACK = 4000  # characters shown of one, from its end

BOX = "border-left: 3px solid {colour}; padding: 2px 0 2px 12px; max-width: 60em; line-height: 1.5"
FINE, RED = "#4a86c5", "#cf443a"
CELL = "text-align: left; padding: 0 1em 0 0; border: 0"


def card(ledger: Ledger) -> str:
    """The HTML for ``Results._repr_html_``; all text from the user's code is escaped."""
    run = survey(ledger)
    colour = RED if ledger.failed or ledger.stopped is not None else FINE
    parts = [*head(run), *slowest(run), *failures(run), *advice(run)]
    return encodable(f'<div style="{BOX.format(colour=colour)}">{"".join(parts)}</div>')


def head(run: Survey) -> Iterator[str]:
    """Counts and times."""
    summary = run.summary
    yield f"<b>{counts(summary)}</b>"
    if run.ledger.stopped is not None:
        yield f"<br>stopped: {escape(run.ledger.stopped)}"
    yield f"<br>{seconds(summary.wall)}, ran {escape(at_a_time(summary))} at a time"


def slowest(run: Survey) -> Iterator[str]:
    """The tasks that took the longest."""
    rows = [
        (key_text(run.ledger.key(index)), seconds(run.seconds[index]), fate(run.ledger, index))
        for index in run.slowest(SLOWEST)
    ]
    if rows:
        cells = ("".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in row) for row in rows)
        yield folded(
            "slowest tasks",
            f"<table style='font-size: inherit'>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>",
        )


def failures(run: Survey) -> Iterator[str]:
    """The most frequent kinds of failure, each with the traceback of its first one."""
    kinds = kinds_of_failure(run.ledger)
    for kind in kinds[:KINDS]:
        keys = escape(examples(run.ledger, kind))
        title = f"{how_many(kind)}: {escape(kind.text)} <small>({keys})</small>"
        yield folded(title, f"<pre>{escape(kind.first.traceback[-TRACEBACK:].strip())}</pre>")
    if len(kinds) > KINDS:
        yield f"<div>and {len(kinds) - KINDS} further kinds of failure</div>"


def advice(run: Survey) -> Iterator[str]:
    """The advice; each cause can be opened to show its cure."""
    for one in advise(run):
        yield folded(escape(one.cause), escape(one.cure))


def folded(title: str, body: str) -> str:
    """A title that a click opens to show the body."""
    return f"<details><summary>{title}</summary>{body}</details>"
