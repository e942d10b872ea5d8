"""The self-contained HTML page of a run: text is made here, the pictures are drawn by the scripts in the page."""

from __future__ import annotations

import json
import sys
from array import array
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from os import PathLike
from string import Template
from typing import Any

from parallelkit._ledger import Ledger
from parallelkit._report._advice import advise
from parallelkit._report._failures import Kind, kinds_of_failure
from parallelkit._report._format import clip, count, encodable, error_text, key_text, percent, seconds
from parallelkit._report._lanes import timeline
from parallelkit._report._summary import Fate, Survey, survey
from parallelkit._report._words import at_a_time, examples, fate, how_many

SCRIPTS = ("page.js", "timeline.js", "histogram.js")
SLOWEST = 8  # tasks listed
KINDS = 50  # of failures listed
TEXTS = 5000  # different error messages that the timeline shows
TRACEBACK = 20_000  # characters shown of one, from its end


def write_html(ledger: Ledger, path: str | PathLike[str]) -> None:
    """Write the file for ``Results.save_html``."""
    text = page(ledger)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def page(ledger: Ledger) -> str:
    """The HTML of the page; all text from the user's code, errors included, is escaped."""
    run = survey(ledger)
    template = Template(resource("page.html"))
    text = template.substitute(
        style=resource("page.css"),
        script="".join(map(resource, SCRIPTS)),
        data=as_json(columns(ledger)),
        title=count(run.summary.tasks, "task"),
        head="".join(head(run)),
        tiles="".join(tiles(run)),
        advice="".join(advice(run)),
        slowest="".join(slowest(run)),
        failures="".join(failures(run)),
    )
    return encodable(text)


def resource(name: str) -> str:
    """The text of a file beside this module."""
    return files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


def as_json(data: Any) -> str:
    """JSON for a script element: nothing in it can end the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def columns(ledger: Ledger) -> dict[str, Any]:
    """The attempts as columns, little-endian and in base64: 25 bytes an attempt."""
    run = timeline(ledger)
    bars = run.bars
    lost = [place for place, bar in enumerate(bars) if bar.fate != Fate.SUCCEEDED]
    texts: dict[str, int] = {}
    return {
        "wall": ledger.facts.ended_at - ledger.facts.began_at,
        "lanes": [clip(name, 60) for name in run.lanes],
        "keys": None if ledger.keys is None else [key_text(key, 80) for key in ledger.keys],
        "start": packed("d", (bar.start for bar in bars)),
        "duration": packed("f", (bar.end - bar.start for bar in bars)),
        "lane": packed("I", run.lane_of),
        "index": packed("I", (bar.task for bar in bars)),
        "number": packed("I", (bar.number for bar in bars)),
        "fate": packed("B", (bar.fate for bar in bars)),
        "lost": packed("I", lost),
        "text": packed("I", (text_number(bars[place].error, texts) for place in lost)),
        "texts": list(texts),
    }


def packed(code: str, values: Any) -> str:
    """A column of numbers, little-endian, in base64."""
    column = array(code, values)
    if sys.byteorder == "big":
        column.byteswap()
    return b64encode(column.tobytes()).decode("ascii")


def text_number(error: BaseException | None, texts: dict[str, int]) -> int:
    """The number of an error's text; once there are ``TEXTS`` of them, new errors show only their type."""
    text = error_text(error, 300)
    if error is not None and text not in texts and len(texts) >= TEXTS:
        text = type(error).__name__
    return texts.setdefault(text, len(texts))


def head(run: Survey) -> Iterator[str]:
    """How many tasks ran and where, and why the run was stopped, if it was."""
    facts = run.ledger.facts
    yield f"<h1>{count(run.summary.tasks, 'task')}</h1>"
    note = "" if facts.timeouts_enforced else "; timeouts are not enforced there"
    yield f"<p>{escape(facts.executor)}, {count(facts.max_workers, 'worker')}{note}</p>"
    if run.ledger.stopped is not None:
        yield f'<p class="stopped">Stopped: {escape(run.ledger.stopped)}</p>'


def tiles(run: Survey) -> Iterator[str]:
    """The main figures."""
    summary, workers = run.summary, run.ledger.facts.max_workers
    yield tile("Succeeded", f"{summary.succeeded:,}", f"of {summary.tasks:,}", "succeeded")
    note = count(summary.retried, "retry") if summary.retried else "no retries"
    yield tile("Failed", f"{summary.failed:,}", note, "failed" if summary.failed else "")
    if summary.cancelled:
        yield tile("Cancelled", f"{summary.cancelled:,}", "by the stop of the run", "cut-off")
    yield tile("Wall time", seconds(summary.wall), f"busy {seconds(summary.busy)}")
    yield tile("Ran at a time", escape(at_a_time(summary)), f"of {count(workers, 'worker')}")
    share = f"{percent(summary.longest / summary.wall)} of the wall time" if summary.wall > 0 else ""
    yield tile("Longest task", seconds(summary.longest), share)


def tile(name: str, figure: str, note: str, mark: str = "") -> str:
    """One figure."""
    return f'<div class="tile {mark}"><dt>{name}</dt><dd>{figure}</dd><dd class="note">{note}</dd></div>'


def advice(run: Survey) -> Iterator[str]:
    """The advice: what held the run back, and what would help."""
    found = advise(run)
    if found:
        yield '<section class="card advice"><h2>Advice</h2><ul>'
        for one in found:
            yield f"<li><p>{escape(one.cause)}</p><p class='cure'>{escape(one.cure)}</p></li>"
        yield "</ul></section>"


def slowest(run: Survey) -> Iterator[str]:
    """The tasks that took the longest."""
    for index in run.slowest(SLOWEST):
        share = run.seconds[index] / run.summary.longest
        yield (
            f"<li><span>{escape(key_text(run.ledger.key(index), 80))} <small>{fate(run.ledger, index)}</small></span>"
            f'<b>{seconds(run.seconds[index])}</b><i style="width:{share * 100:.1f}%"></i></li>'
        )


def failures(run: Survey) -> Iterator[str]:
    """The failures by kind, each with the traceback of its first one."""
    kinds = kinds_of_failure(run.ledger)
    if kinds:
        yield '<section class="card failures"><h2>Failures</h2>'
        yield from (failure(run.ledger, kind) for kind in kinds[:KINDS])
        if len(kinds) > KINDS:
            yield f"<p class='note'>and {count(len(kinds) - KINDS, 'further kind')}</p>"
        yield "</section>"


def failure(ledger: Ledger, kind: Kind) -> str:
    """One kind of failure."""
    mark = "failed" if kind.failed else "retried"
    trace = kind.first.traceback
    return (
        f'<details><summary><b class="{mark}">{how_many(kind)}</b> <span>{escape(kind.text)}</span>'
        f"<small>{escape(examples(ledger, kind))}</small></summary>"
        f"<pre>{escape(trace[-TRACEBACK:].strip())}</pre></details>"
    )
