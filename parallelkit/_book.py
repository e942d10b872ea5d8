"""``Book``, where the scheduler writes outcomes, and the news of ended attempts that it keeps for an observer."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Protocol, TypeAlias

from parallelkit._executors._contract import Block
from parallelkit._ledger import Columns
from parallelkit._lost import Lost, cancelled, uncounted
from parallelkit._named_tuple import NamedTuple


class Book(Protocol):
    """Where outcomes are written: a ``Ledger``, or the queue of a stream."""

    def succeed(self, block: Columns) -> None:
        """Settle successes, a block at a time."""

    def succeed_again(self, index: int, number: int) -> None:
        """Note, before it is settled, that a success took ``number`` attempts; 0: its value was known without any."""

    def fail(self, index: int, lost: Lost) -> None:
        """Settle a failure."""

    def try_again(self, index: int, lost: Lost) -> None:
        """Note an attempt that failed and will be followed by another."""

    def stop(self, reason: str, cause: BaseException | None) -> None:
        """Note, before anything is cancelled, why the run was stopped; ``cause``: the error behind that, if any."""

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        """Settle as cancelled what the stop of the run left undone; ``last``: the last attempts of what had begun."""


class Failed(NamedTuple):
    """News of a failed attempt: ``delay`` until the next, or None if it was the last.

    ``counted``: whether it counts as an attempt. ``cut_off``: it was running when the run was stopped.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index(), which is not needed here
    lost: Lost
    delay: float | None
    counted: bool
    cut_off: bool = False


News: TypeAlias = Block | Failed


def news_of_cancelled(
    reason: str, last: Mapping[int, Lost], running: Container[int], now: float
) -> list[News]:
    """News of the tasks that a stop cancels after they had begun; ``last`` is the last attempt of each."""
    news: list[News] = []
    for index, before in last.items():
        lost = cancelled(reason, before)
        is_running = index in running
        news.append(Failed(index, lost, None, True, True) if is_running else news_of_lapsed(index, lost, now))
    return news


def news_of_lapsed(index: int, lost: Lost, now: float) -> Failed:
    """News of a task whose next attempt will not come; the end of its last one has been reported already."""
    never = uncounted(lost)
    never.ended = now
    return Failed(index, never, None, True)
