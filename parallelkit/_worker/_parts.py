"""Finds the part of a thing that keeps it from being pickled, for messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from types import FunctionType, MethodType

from parallelkit._raised import describe_error, is_interrupt, tolerated
from parallelkit._system import monotonic
from parallelkit._worker._travel import describe, pack

MOST = 100
"""How many parts of a thing are looked at."""

SECONDS = 1.0
"""After which no other part is looked at: all may refer to one large object, which is pickled anew with each."""


def why_unfit(thing: object, error: BaseException) -> str:
    """What pickling a thing has raised, after the attribute or element of it, or of a method's object, that is to blame."""
    owner, why = thing.__self__ if type(thing) is MethodType else thing, describe_error(error)
    parts: list[tuple[str, object]] = []
    with tolerated():  # it has none, or is a proxy
        parts = list(islice(_parts(owner), MOST))
    until = monotonic() + SECONDS
    for name, part in parts:
        if monotonic() > until:
            break
        flaw = flaw_of(part)
        if flaw is not None and describe_error(flaw) == why:
            return f"{name}: {why}"
    return why


def _parts(owner: object) -> Iterable[tuple[str, object]]:
    """The attributes of an object, or the elements of a list, tuple or dict, each after its name."""
    if isinstance(owner, (list, tuple, dict)):
        elements = owner.items() if isinstance(owner, dict) else enumerate(owner)
        return ((f"element {place!r:.60}, {describe(part)}", part) for place, part in elements)
    attributes = {} if isinstance(owner, (type, FunctionType)) else dict(vars(owner))
    return ((f"attribute {name}", part) for name, part in attributes.items())


def flaw_of(thing: object, pack: Callable[[object], object] = pack) -> BaseException | None:
    """The error that pickling a thing raises, if any; not Ctrl-C or a signal handler's."""
    try:
        pack(thing)
    except BaseException as error:
        if is_interrupt(error):
            raise
        return error
    return None
