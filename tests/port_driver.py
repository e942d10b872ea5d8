"""A minimal loop that drives a port, so that tests of an engine need no scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from patience import PATIENCE

from parallelkit._executors._contract import Block, Ended, Engine, Job, Port


@dataclass
class Seen:
    """Everything that a port has reported, by index."""

    values: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, Ended] = field(default_factory=dict)
    times: dict[int, tuple[float, float]] = field(default_factory=dict)
    workers: dict[int, str | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values) + len(self.failures)

    def add(self, entries: list[Block | Ended]) -> None:
        for entry in entries:
            for index, value, started, ended, worker in rows_of(entry):
                assert index not in self.times, f"{index} was reported twice"
                self.times[index] = started, ended
                self.workers[index] = worker
                if isinstance(entry, Ended):
                    self.failures[index] = entry
                else:
                    self.values[index] = value


def rows_of(entry: Block | Ended) -> Iterator[tuple[Any, ...]]:
    if isinstance(entry, Ended):
        yield entry.index, None, entry.started, entry.ended, entry.worker
    else:
        yield from zip(*entry, strict=True)


def drive(
    engine: Engine,
    fn: Callable[..., Any] | None,
    items: Iterable[Any],
    timeout: float | None = None,
    **job: Any,
) -> Seen:
    """Run the function once on each item."""
    with opened(engine, fn, **job) as port:
        return drive_port(port, list(items), timeout)


def drive_port(port: Port, items: list[Any], timeout: float | None = None) -> Seen:
    seen, given = Seen(), 0
    while len(seen) < len(items):
        more = min(port.room(), len(items) - given)
        port.start([(index, 1, items[index], timeout) for index in range(given, given + more)])
        given += more
        seen.add(wait(port))
    return seen


def drive_rest(port: Port, number: int) -> Seen:
    """Wait for ``number`` attempts that were started before."""
    seen = Seen()
    while len(seen) < number:
        seen.add(wait(port))
    return seen


def wait(port: Port) -> list[Block | Ended]:
    """Wait for the next attempts to end; fail after PATIENCE seconds."""
    until = monotonic() + PATIENCE
    while not (entries := port.wait(until)):
        if port.failure is not None:
            raise port.failure
        assert monotonic() < until, "nothing ended"
    return entries


@contextmanager
def opened(engine: Engine, fn: Callable[..., Any] | None, **job: Any) -> Iterator[Port]:
    port = engine.open(Job(fn, **job))
    try:
        yield port
    finally:
        port.close()


def fifo(path: Path) -> str:
    """Create a named pipe, by which a task reports how far it is, or is told to go on."""
    os.mkfifo(path)
    return str(path)
