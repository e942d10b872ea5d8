"""Instants of other machines on this machine's clock."""

from __future__ import annotations

from parallelkit._executors._cluster._wire import boot_id

RENEW = 10.0  # seconds after which an estimate begins to be replaced: clocks drift apart


class Clock:
    """Estimates how far the monotonic clock of each host is ahead of ours.

    A message was packed before it came: so the host is ahead by at least the difference of the two
    instants. The largest difference seen lately errs by the fastest message's time on its way, and always
    so that an instant seems later than it was: a rate limit that counts from it is kept.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, float]] = {}  # since when, largest before, largest since

    def shift(self, host: str, boot: str, packed: float, came: float) -> float:
        """What to take from the instants of a message."""
        if boot and boot == boot_id():
            return 0.0
        ahead = packed - came
        since, before, largest = self._seen.get(host + boot, (came, ahead, ahead))
        if came > since + RENEW:
            since, before, largest = came, largest, ahead
        largest = max(largest, ahead)
        self._seen[host + boot] = since, before, largest
        return max(before, largest)
