"""Failures grouped by kind: the type of the error and the shape of its message."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from parallelkit._ledger import Ledger
from parallelkit._lost import Lost
from parallelkit._raised import describe_error
from parallelkit._report._format import clip

KEYS = 3  # example tasks that a kind remembers
LOOKED_AT = 300  # characters of a message that are compared

# What may differ between messages of one kind: quoted text, addresses, paths, and words with a digit in them.
VARIABLE = re.compile(
    r"""(?<!\w)'[^']*'(?!\w) | "[^"]*" | \b\w+://\S+ | (?:/[\w.\-]+){2,} | \b\w*\d\w*(?:[.,:\-]\w+)*""",
    re.VERBOSE,
)


@dataclass(slots=True)
class Kind:
    """Attempts that failed in the same way.

    ``text``: the message of the ``first`` one. ``tasks``: the first few tasks, each once however many of its
    attempts failed. ``more``: whether there are more tasks.
    """

    text: str
    first: Lost
    failed: int = 0
    retried: int = 0
    tasks: list[int] = field(default_factory=list)
    more: bool = False


def kinds_of_failure(ledger: Ledger) -> list[Kind]:
    """The kinds of failure, most frequent first: by the tasks that failed for good, then by retried attempts."""
    kinds: dict[tuple[type, str], Kind] = {}
    for index, lost in ledger.failed.items():
        _kind_of(index, lost, kinds).failed += 1
    for index, lost in ledger.tried:
        _kind_of(index, lost, kinds).retried += 1
    return sorted(kinds.values(), key=lambda kind: (-kind.failed, -kind.retried))


def _kind_of(index: int, lost: Lost, kinds: dict[tuple[type, str], Kind]) -> Kind:
    """The kind to which a task's failed attempt belongs, with the task among its examples."""
    assert lost.error is not None, "only what is cut off has no error"
    text = describe_error(lost.error)
    name = type(lost.error), shape(text)
    if name not in kinds:
        kinds[name] = Kind(clip(text, LOOKED_AT), lost)
    kind = kinds[name]
    if index not in kind.tasks:
        if len(kind.tasks) < KEYS:
            kind.tasks.append(index)
        else:
            kind.more = True
    return kind


def shape(message: str) -> str:
    """A message without the parts that differ from task to task.

    >>> shape("no answer from 'api-7' (10.0.0.1:8080) in 5.03 s")
    'no answer from … (…) in … s'
    """
    return VARIABLE.sub("…", message[:LOOKED_AT])
