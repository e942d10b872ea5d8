"""The words in the header of a worker's ring, by which the parent sees what the worker does, and asks for something."""

from __future__ import annotations

from parallelkit._worker import _channel
from parallelkit._worker._channel import HEAD, PHASE, WAKE_AT


class Words:
    """None of them costs a system call."""

    def __init__(self, ring: _channel.Ring) -> None:
        self.ring = ring

    @property
    def head(self) -> int:
        """How many attempts the worker has committed."""
        return self.ring.head[HEAD]

    @property
    def loading(self) -> bool:
        """Whether the worker is starting or loading a function, and so runs no attempt."""
        return self.ring.head[PHASE] not in (_channel.WAITING, _channel.LOADING_IN_TASK)

    @property
    def loading_in_task(self) -> bool:
        """Whether its attempt has begun, and loads what its own function needs."""
        return self.ring.head[PHASE] == _channel.LOADING_IN_TASK

    @property
    def loads(self) -> int | None:
        """The number of the job whose function it is loading, if it is."""
        number = self.ring.head[PHASE] - _channel.LOADING
        return number if number > 0 else None

    @property
    def has_stack(self) -> bool:
        """Whether the worker has begun to write down its stack."""
        return self.ring.stack[0] != 0

    def last_stack(self) -> str:
        """The worker's stack when it crashed or was asked for it; empty if it wrote none."""
        return bytes(self.ring.stack).partition(b"\0")[0].decode(errors="replace")

    @property
    def wakes_at(self) -> int:
        """At which commit the worker will wake us; NEVER, EACH: at none, at each."""
        return self.ring.head[WAKE_AT]

    def set_wake_at(self, number: int) -> bool:
        """Ask for a wake-up when ``number`` attempts are committed (or NEVER, EACH); False if that is asked for already."""
        if self.ring.head[WAKE_AT] == number:
            return False
        self.ring.head[WAKE_AT] = number
        return True

    def limit(self, number: int) -> None:
        """Forbid the worker to begin this attempt or a later one."""
        self.ring.head[_channel.LIMIT] = number
