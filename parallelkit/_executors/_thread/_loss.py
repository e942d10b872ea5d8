"""The loss of every slot to abandoned threads: how long a run waits then for one of them to return, and how it fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from parallelkit._errors import ParallelKitError
from parallelkit._named_tuple import NamedTuple

PATIENCE = 60.0  # seconds within which a thread must return that was abandoned by a stop and has no timeout


class Hung(Protocol):
    """An abandoned worker that still costs a slot: its run was ``stopped``, or its attempt overran the timeout."""

    stopped: bool


class Loss(NamedTuple):
    """Every slot is lost to abandoned threads; if none of them returns before ``until``, the run fails."""

    until: float
    patience: float

    def error(
        self, abandoned: Iterable[Hung], what: str = "threads", fate: str = "cannot be killed"
    ) -> ParallelKitError:
        """Why a run ends then."""
        stopped = [each.stopped for each in list(abandoned)]
        reasons = {False: "overran their timeout", True: "belong to runs that were stopped"}
        why = " or ".join(reasons[reason] for reason in sorted(set(stopped)))
        return ParallelKitError(
            f"every slot is lost: {len(stopped)} {what} {why}, {fate}, and none returned within {self.patience:g} s more"
        )


def loss_at(now: float, timeout: float | None) -> Loss:
    """The loss of the last slot, by an attempt that had this timeout."""
    patience = PATIENCE if timeout is None else timeout
    return Loss(now + patience, patience)
