"""``Book``, where the scheduler writes outcomes; and the news of what has ended, for whoever wants to hear of it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from parallelkit._executors._contract import Block
from parallelkit._lost import Lost, cancelled


class Book(Protocol):
    """Where outcomes are written: a ``Ledger``, or the outbox of a stream."""

    stopped: str | None

    def succeed(
        self,
        indices: Sequence[int],
        values: Sequence[Any],
        started: Sequence[float],
        ended: Sequence[float],
        workers: Sequence[str],
    ) -> None:
        """Settle successes."""

    def succeed_again(self, index: int, number: int) -> None:
        """Note, before it is settled, that a success took ``number`` attempts."""

    def fail(self, index: int, lost: Lost) -> None:
        """Settle a failure."""

    def try_again(self, index: int, lost: Lost) -> None:
        """Note an attempt that failed and will be followed by another."""

    def cancel(
        self, indices: Sequence[int], last: dict[int, Lost], cause: BaseException | None = None
    ) -> None:
        """Settle what the stop of the run left undone; ``cause`` is the error that stopped it, where one did."""


class Failed(NamedTuple):
    """News of a failed attempt: ``delay`` until the next, None where it was the last.

    ``cut_off``: by the stop of the run, while it was running.
    """

    index: int  # type: ignore[assignment]  # in place of a tuple's own index(), which nobody needs here
    lost: Lost
    delay: float | None
    counted: bool
    cut_off: bool = False


News: TypeAlias = Block | Failed


def told_cancelled(reason: str, last: Mapping[int, Lost], running: Container[int], now: float) -> list[News]:
    """News of the tasks that a stop cancels, of those that had begun; ``last`` is the last attempt of each."""
    news: list[News] = []
    for index, before in last.items():
        lost = cancelled(reason, before)
        is_running = index in running
        news.append(Failed(index, lost, None, True, True) if is_running else told_lapsed(index, lost, now))
    return news


def told_lapsed(index: int, lost: Lost, now: float) -> Failed:
    """News of a task that waited for its next attempt, which will not come; the end of the last one was told."""
    return Failed(index, replace(lost, started=None, ended=now, worker=None), None, True)
