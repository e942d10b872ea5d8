"""What client and guard send each other, as bytes that nobody in between has to understand.

They contain only builtin types: results remain packed as the worker process wrote them, and only the
client unpacks them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from mmap import mmap
from pickle import dumps, loads
from typing import Any

from parallelkit._executors._contract import Ticket
from parallelkit._executors._process._arrivals import OUTSIDE, Content
from parallelkit._executors._process._lane import Died, RawColumns, Record, Span, Why
from parallelkit._named_tuple import NamedTuple
from parallelkit._system import monotonic, read
from parallelkit._worker._channel import BUFFERED, HEAP, LENGTH_MASK, PLACE


@cache
def clock_id() -> str:
    """Return a text that is the same for all processes that share a monotonic clock; empty if that is not known."""
    return "".join(map(_content, ("/proc/sys/kernel/random/boot_id", "/proc/self/timens_offsets")))


def _content(path: str) -> str:
    try:
        return read(path)
    except OSError:
        return ""


PackedSpan = tuple[
    bytes, bytes, bytes, bytes, bytes, bytes, int, list[bytes | OSError], bytes, list[bytes], str
]
PackedDied = tuple[int, float, float, int, int | None, str, str, str]


class Order(NamedTuple):
    """A batch on its way to a guard. If there are no payloads, it has the items themselves."""

    key: str
    run: str
    exact: bool
    expected: float  # seconds that the batch should take at most
    portion: int  # how many of its attempts, at most, may have begun and not be reported to have ended
    rest: float  # seconds between two reports of what has ended
    job: bytes | str  # the packed function, or the key under which dask keeps it
    indices: Sequence[int]
    numbers: Sequence[int]
    timeouts: Sequence[float | None]
    items: Sequence[Any] | None
    payloads: Sequence[bytes | str] | None

    def tickets(self) -> list[Ticket]:
        items = self.items if self.items is not None else [None] * len(self.indices)
        return list(zip(self.indices, self.numbers, items, self.timeouts, strict=True))


@dataclass(slots=True)
class Report:
    """What a guard reports about a run; instants are on its host's clock."""

    host: str
    clock: str = field(default_factory=clock_id)
    now: float = 0.0  # when it was packed
    spans: list[PackedSpan] = field(default_factory=list)
    died: list[PackedDied] = field(default_factory=list)
    records: list[tuple[bytes, Ticket | None]] = field(default_factory=list)
    begun: list[tuple[int, float, str]] = field(default_factory=list)
    unbegun: list[int] = field(default_factory=list)
    missing: bool = False  # whether ``unbegun`` could not begin because something that dask kept is gone
    broken: str | None = None  # why nothing can run on this worker any more

    def __bool__(self) -> bool:
        return bool(self.spans or self.died or self.records or self.begun or self.unbegun)

    def seal(self) -> bytes:
        self.now = monotonic()
        return dumps([getattr(self, name) for name in self.__slots__], 5)


def unseal(blob: bytes) -> Report:
    return Report(*loads(blob))


def pack_span(span: Span, host: str) -> PackedSpan:
    columns = span.columns
    indices = array("q", [ticket[0] for ticket in span.batch.tickets])
    files = _flat_files(columns) if columns.files else []
    return (
        indices.tobytes(),
        columns.started.tobytes(),
        columns.ended.tobytes(),
        columns.kinds,
        columns.words,
        columns.heap,
        columns.heap_from,
        files,
        columns.keys,
        list(columns.classes),
        f"{span.worker} on {host}",
    )


def _flat_files(columns: RawColumns) -> list[bytes | OSError]:
    """Copy the results that lie outside of the ring: of a shared block only the part used, of a lost one its error."""
    words, files = array("q", columns.words), []
    outside = [at for at, kind in enumerate(columns.kinds) if kind in OUTSIDE]
    for at, file in zip(outside, columns.files, strict=True):
        if isinstance(file, OSError) or columns.kinds[at] != BUFFERED:
            files.append(file if isinstance(file, OSError) else bytes(file))
            continue
        start = (words[at] >> PLACE) - columns.heap_from
        start += HEAP if start < 0 else 0
        places, _ = loads(columns.heap[start : start + (words[at] & LENGTH_MASK)])
        files.append(bytes(file[: max(offset + length for offset, length in places)]))
    return files


def unpack_columns(packed: PackedSpan, shift: float, latest: float) -> RawColumns:
    """Return the columns, with their instants converted to this machine's clock."""
    _, started, ended, kinds, words, heap, heap_from, flat, keys, classes, _ = packed
    return RawColumns(
        _shifted(started, shift, latest),
        _shifted(ended, shift, latest),
        kinds,
        words,
        heap,
        heap_from,
        _files(kinds, flat),
        keys,
        classes,
    )


def _shifted(raw: bytes, shift: float, latest: float) -> array[float]:
    instants = array("d", raw)
    if shift:
        instants = array("d", [min(latest, instant - shift) for instant in instants])
    return instants


def _files(kinds: bytes, flat: list[bytes | OSError]) -> list[Content]:
    files: list[Content] = []
    content: Content
    for kind, content in zip((kind for kind in kinds if kind in OUTSIDE), flat, strict=True):
        if kind == BUFFERED and isinstance(content, bytes):
            mapping = mmap(-1, len(content))  # writable, since arrays are built on it
            mapping[:] = content
            content = mapping
        files.append(content)
    return files


def pack_died(died: Died, host: str) -> PackedDied:
    index = died.batch.tickets[0][0]
    label = f"{died.worker} on {host}"
    return index, died.started, died.ended, died.pid, died.status, died.why.name, label, died.stack


def unpack_died(packed: PackedDied, batch: Any, shift: float, latest: float) -> Died:
    _, started, ended, pid, status, why, label, stack = packed
    began, over = (min(latest, instant - shift) if shift else instant for instant in (started, ended))
    return Died(batch, began, over, pid, status, Why[why], label, stack)


def pack_record(record: Record) -> tuple[bytes, Ticket | None]:
    """Pack it without the item, which the client has."""
    return record.packed, record.ticket and (*record.ticket[:2], None, None)


def broker_name() -> str:
    """Return the name of the broker that this version asks, as client and as worker."""
    return f"parallelkit-{versions()['parallelkit']}"


def versions() -> dict[str, str]:
    """Return the versions that must be the same at both ends."""
    import cloudpickle

    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "parallelkit": sys.modules["parallelkit"].__version__,
        "cloudpickle": cloudpickle.__version__,
    }
