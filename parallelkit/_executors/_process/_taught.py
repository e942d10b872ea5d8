"""What a worker is sent once for each lane: its function, and the definitions that its items refer to."""

from __future__ import annotations

from parallelkit._executors._process._lane import Lane
from parallelkit._executors._process._wire import Wire
from parallelkit._worker import _channel
from parallelkit._worker._channel import DEFINITIONS, WORD, frame


class Taught:
    """What one worker has been sent."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.lanes: dict[int, int] = {}
        """How many definitions it has been sent of each lane whose function it has."""

    def teach(self, lane: Lane) -> bool:
        """Send what it lacks; whether that was the function."""
        number, blobs = lane.number, lane.definitions.blobs
        if new := number not in self.lanes:
            self.lanes[number] = 0
            self._wire.send_payload(_channel.JOB, WORD.pack(number), lane.job)
        while self.lanes[number] < len(blobs):
            at = self.lanes[number]
            self._wire.send(frame(_channel.DEFINITION, WORD.pack(number * DEFINITIONS + at), blobs[at]))
            self.lanes[number] += 1
        return new

    def forget(self, lane: Lane) -> None:
        """Have it drop a closed lane's function and definitions."""
        if self.lanes.pop(lane.number, None) is not None:
            self._wire.send(frame(_channel.FORGET, WORD.pack(lane.number)))
