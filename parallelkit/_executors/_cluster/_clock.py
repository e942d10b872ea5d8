"""Converts instants of other machines to this machine's clock."""

from __future__ import annotations

from parallelkit._executors._cluster._wire import clock_id

RENEW = 10.0  # seconds after which an estimate is renewed, because clocks drift apart


class Clock:
    """Estimates how far the monotonic clock of each host is ahead of ours.

    A message is packed before it arrives, so the host's clock is ahead by at least the difference of the
    two instants. We take the largest difference seen lately. It is too small by the transit time of the
    fastest message, so instants seem later than they were: the safe side for a rate limit that counts
    from them.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, float]] = {}  # since, largest before, after

    def shift(self, host: str, clock: str, packed: float, came: float) -> float:
        """Return what to subtract from the instants in a message that was ``packed`` there, and ``came`` here."""
        if clock and clock == clock_id():
            return 0.0
        ahead = packed - came
        since, before, largest = self._seen.get(host + clock, (came, ahead, ahead))
        if came > since + RENEW:
            since, before, largest = came, largest, ahead
        largest = max(largest, ahead)
        self._seen[host + clock] = since, before, largest
        return max(before, largest)
