"""Phrases shared by the text, the page and the card."""

from __future__ import annotations

from parallelkit._ledger import Ledger
from parallelkit._report._failures import Kind
from parallelkit._report._format import count, key_text, number
from parallelkit._report._summary import Summary


def counts(summary: Summary) -> str:
    """How many tasks ended in which way, and the number of retries."""
    before = f" ({summary.recalled:,} known before)" if summary.recalled else ""
    text = (
        f"{count(summary.tasks, 'task')}: {summary.succeeded:,} succeeded{before}, {summary.failed:,} failed"
    )
    text += f", {summary.cancelled:,} cancelled" if summary.cancelled else ""
    return text + (f"; {count(summary.retried, 'retry')}" if summary.retried else "")


def at_a_time(summary: Summary) -> str:
    """How many attempts ran at a time, on average."""
    return "< 0.01" if 0 < summary.parallelism < 0.01 else number(summary.parallelism, 2)


def fate(ledger: Ledger, index: int) -> str:
    """How a task ended; empty if it succeeded at its first attempt."""
    if index in ledger.cancelled:
        return "cancelled"
    lost = ledger.failed.get(index)
    number = ledger.retried.get(index, 1) if lost is None else lost.number
    attempts = f" after {count(number, 'attempt')}" if number > 1 else ""
    return f"failed{attempts}" if lost is not None else f"succeeded{attempts}" if attempts else ""


def how_many(kind: Kind) -> str:
    """How many attempts of a kind failed for good, and how many were retried."""
    failed = f"{kind.failed:,} failed" if kind.failed else ""
    retried = f"{kind.retried:,} retried" if kind.retried else ""
    return ", ".join(filter(None, (failed, retried)))


def examples(ledger: Ledger, kind: Kind) -> str:
    """Some tasks of a kind, by their keys."""
    keys = ", ".join(key_text(ledger.key(index), 30) for index in kind.tasks)
    return f"task{'s' * (len(kind.tasks) > 1)} {keys}{', …' * kind.more}"
