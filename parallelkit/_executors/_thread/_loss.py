"""The loss of every slot to abandoned threads, and how long a run waits then for one of them to return."""

from __future__ import annotations

from typing import NamedTuple

PATIENCE = 60.0  # seconds within which a thread must return that was abandoned by a stop and has no timeout


class Loss(NamedTuple):
    """Every slot is lost to abandoned threads; if none of them returns before ``until``, the run fails."""

    until: float
    patience: float


def loss_at(now: float, timeout: float | None) -> Loss:
    """The loss of the last slot, by an attempt that had this timeout."""
    patience = PATIENCE if timeout is None else timeout
    return Loss(now + patience, patience)
