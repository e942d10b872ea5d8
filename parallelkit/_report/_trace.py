"""The Chrome trace of a run, for Perfetto (ui.perfetto.dev) and chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from typing import Any

from parallelkit._ledger import Ledger
from parallelkit._report._format import error_text, key_text
from parallelkit._report._lanes import Bar, timeline
from parallelkit._report._summary import Fate

COLOURS = {Fate.RETRIED: "bad", Fate.FAILED: "terrible", Fate.CUT_OFF: "grey"}  # names known to the viewers
RUN = 1  # the id of the process that has all lanes


def write_trace(ledger: Ledger, path: str | PathLike[str]) -> None:
    """Write the file for ``Results.save_trace``."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        file.writelines(
            (",\n" if number else "") + json.dumps(event) for number, event in enumerate(events(ledger))
        )
        file.write("\n]}\n")


def events(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The names of the lanes, then a slice per attempt."""
    facts, run = ledger.facts, timeline(ledger)
    yield about_lane("process_name", 0, name=f"parallelkit: {facts.executor}, {facts.max_workers} workers")
    for lane, name in enumerate(run.lanes):
        yield about_lane("thread_name", lane, name=name)
        yield about_lane("thread_sort_index", lane, sort_index=lane)
    free_at = [0] * len(run.lanes)
    for bar, lane in zip(run.bars, run.lane_of, strict=True):
        # In nanoseconds and without overlaps: viewers nest slices that overlap, even if only by rounding.
        start = max(free_at[lane], round(bar.start * 1e9))
        end = free_at[lane] = max(start, round(bar.end * 1e9))
        yield {**slice_of(ledger, bar), "tid": lane, "ts": start / 1000, "dur": (end - start) / 1000}


def about_lane(what: str, lane: int, **args: Any) -> dict[str, Any]:
    """A metadata event of a lane."""
    return {"ph": "M", "name": what, "pid": RUN, "tid": lane, "args": args}


def slice_of(ledger: Ledger, bar: Bar) -> dict[str, Any]:
    """The event of an attempt, without its lane and times."""
    key = ledger.key(bar.task)
    queued = bar.start + ledger.facts.began_at - ledger.queued[bar.task]
    args = {"key": key_text(key, 200), "attempt": bar.number, "seconds since queued": round(queued, 6)}
    event = {"ph": "X", "name": key_text(key), "cat": bar.fate.name.lower(), "pid": RUN, "args": args}
    if bar.fate != Fate.SUCCEEDED:
        args["error"] = error_text(bar.error, 500)
        event["cname"] = COLOURS[bar.fate]
    return event
