"""The script's functions and classes that come with items: the items name them by number, and each worker is sent them once."""

from __future__ import annotations

from parallelkit._worker._channel import DEFINITIONS


class Definitions:
    """Those of a lane, packed. The run's thread adds to them, the supervisor's sends them."""

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self._numbers: dict[bytes, int] = {}
        self.blobs: list[bytes] = []

    def reference(self, blob: bytes) -> int | bytes:
        """The number by which workers will know these bytes; the bytes themselves if there are too many."""
        number = self._numbers.get(blob)
        if number is not None:
            return number
        if len(self.blobs) == DEFINITIONS:
            return blob
        self.blobs.append(blob)  # first: if Ctrl-C comes here, it is sent twice, and not never
        self._numbers[blob] = number = self.lane * DEFINITIONS + len(self.blobs) - 1
        return number
