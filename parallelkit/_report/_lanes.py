"""Lays out every attempt as a bar in a lane, for the timeline of the page and for the trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappush, heapreplace

from parallelkit._ledger import Ledger
from parallelkit._named_tuple import NamedTuple
from parallelkit._report._summary import Fate, lost_attempts

TOUCH = 1e-6  # seconds of overlap that are put down to the resolution of the clock


class Bar(NamedTuple):
    """One attempt; instants are seconds since the run began. ``error``: what it failed with, if it did."""

    start: float
    end: float
    worker: str
    task: int
    number: int
    fate: Fate
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The bars in order of their start, the lane of each bar, and the names of the lanes."""

    bars: list[Bar]
    lane_of: list[int]
    lanes: list[str]


def timeline(ledger: Ledger) -> Timeline:
    """A lane per worker, and further ones for a worker that had several attempts at a time (coroutines)."""
    bars = sorted(all_bars(ledger), key=lambda bar: bar.start)
    lanes: list[tuple[str, int]] = []
    free: dict[str, list[tuple[float, int]]] = {}  # a heap per worker: when its lanes get free, and which
    lane_of = []
    for bar in bars:
        mine = free.setdefault(bar.worker, [])
        if mine and mine[0][0] <= bar.start + TOUCH:
            lane = mine[0][1]
            heapreplace(mine, (bar.end, lane))
        else:
            lane = len(lanes)
            lanes.append((bar.worker, len(mine)))
            heappush(mine, (bar.end, lane))
        lane_of.append(lane)
    return sorted_lanes(bars, lane_of, lanes)


def sorted_lanes(bars: list[Bar], lane_of: list[int], lanes: list[tuple[str, int]]) -> Timeline:
    """A timeline with its lanes sorted by name."""
    order = sorted(range(len(lanes)), key=lambda lane: (natural(lanes[lane][0]), lanes[lane][1]))
    place = {lane: position for position, lane in enumerate(order)}
    names = [f"{name} ({nth + 1})" if nth else name for name, nth in map(lanes.__getitem__, order)]
    return Timeline(bars, [place[lane] for lane in lane_of], names)


def natural(name: str) -> list[str | int]:
    """A sort key by which ``worker 9`` comes before ``worker 10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def all_bars(ledger: Ledger) -> Iterator[Bar]:
    """Every attempt that started, in no particular order."""
    began, retried, workers = ledger.facts.began_at, ledger.retried, ledger.workers
    without = ledger.failed.keys() | ledger.cancelled.keys() | ledger.recalled()
    for index, (start, end) in enumerate(zip(ledger.started, ledger.ended, strict=True)):
        if index not in without:
            number = retried.get(index, 1)
            worker = workers[index] or "?"
            yield Bar(start - began, end - began, worker, index, number, Fate.SUCCEEDED, None)
    for index, lost, fate in lost_attempts(ledger):
        start = began if lost.started is None else lost.started
        error = None if fate == Fate.CUT_OFF else lost.error  # else it is that of the attempt before
        yield Bar(start - began, lost.ended - began, lost.worker or "?", index, lost.number, fate, error)
