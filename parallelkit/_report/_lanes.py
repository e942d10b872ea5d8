"""Every attempt as a bar in a lane: what the timeline of the page and the trace are drawn from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappush, heapreplace
from typing import NamedTuple

from parallelkit._ledger import Ledger
from parallelkit._lost import Lost
from parallelkit._report._summary import Fate, lost_attempts

TOUCH = 1e-6  # seconds; what overlaps by less than the grain of a clock came one after the other


class Bar(NamedTuple):
    """One attempt; instants are seconds since the run began. ``lost`` is None where it gave a value."""

    start: float
    end: float
    worker: str
    task: int
    number: int
    fate: Fate
    lost: Lost | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The bars by their start, the lane of each, and what the lanes are called."""

    bars: list[Bar]
    lane_of: list[int]
    lanes: list[str]


def timeline(ledger: Ledger) -> Timeline:
    """A lane for each worker, and further ones where it had several attempts at a time (coroutines)."""
    bars = sorted(all_bars(ledger), key=lambda bar: bar.start)
    lanes: list[tuple[str, int]] = []
    free: dict[
        str, list[tuple[float, int]]
    ] = {}  # of each worker: when its lanes are free, and which they are
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
    """The same with the lanes in the order of their names."""
    order = sorted(range(len(lanes)), key=lambda lane: (natural(lanes[lane][0]), lanes[lane][1]))
    place = {lane: position for position, lane in enumerate(order)}
    names = [f"{name} ({nth + 1})" if nth else name for name, nth in map(lanes.__getitem__, order)]
    return Timeline(bars, [place[lane] for lane in lane_of], names)


def natural(name: str) -> list[str | int]:
    """Sorts ``worker 9`` before ``worker 10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def all_bars(ledger: Ledger) -> Iterator[Bar]:
    """Every attempt that began, in no order."""
    began, retried, workers = ledger.facts.began_at, ledger.retried, ledger.workers
    without = ledger.failed.keys() | ledger.cancelled.keys() | ledger.recalled()
    for index, (start, end) in enumerate(zip(ledger.started, ledger.ended, strict=True)):
        if index not in without:
            number = retried.get(index, 1)
            worker = workers[index] or "?"
            yield Bar(start - began, end - began, worker, index, number, Fate.SUCCEEDED, None)
    for index, lost, fate in lost_attempts(ledger):
        start = began if lost.started is None else lost.started
        yield Bar(start - began, lost.ended - began, lost.worker or "?", index, lost.number, fate, lost)
