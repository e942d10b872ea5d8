"""Random generators that a module has for everybody: each process has its own, so they travel by name, without their state.

``from random import randint`` gives a method of one, and scipy's distributions hold one. With the state that it has here,
each worker, or each call, would draw the same numbers.
"""

from __future__ import annotations

from copyreg import dispatch_table
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

OWN = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))
"""What ``random.random()`` and ``numpy.random.random()`` draw from."""

HINT = b"andom"
"""In each pickle that has a generator with its state; where this is missing, nobody has to look further."""

MARKS = (b"\x06Random\x94", b"__randomstate_ctor\x94")
"""Of such a one, or of another of its class."""

GENERATOR = b"__generator_ctor\x94"
"""Of a numpy ``Generator``; no module has one for everybody."""


def may_have_own(blob: bytes) -> bool:
    """Whether a pickle may have one with its state: then a pickler has to look that knows them."""
    return "random" in modules and blob.find(HINT) >= 0 and any(blob.find(mark) >= 0 for mark in MARKS)


def may_have_any(blob: bytes) -> bool:
    """Whether a pickle may have a generator with its state; a text that has the word in it is none."""
    return blob.find(HINT) >= 0 and any(blob.find(mark) >= 0 for mark in (*MARKS, GENERATOR))


def is_own(generator: object) -> bool:
    """Whether each process has one like this of its own."""
    system = getattr(modules.get("random"), "SystemRandom", ())
    return isinstance(generator, system) or any(
        generator is getattr(modules.get(home), name, None) for home, name in OWN
    )


def send_by_name(table: MutableMapping[type, Any]) -> None:
    """Have a pickler with this dispatch table send them so."""
    for home, name in OWN:
        own = getattr(modules.get(home), name, None)
        if own is not None:
            table[type(own)] = _reduce
    system = getattr(modules.get("random"), "SystemRandom", None)
    if system is not None:
        table[system] = _reduce_stateless  # ``secrets`` has one, for ``choice`` and ``randbelow``


def _reduce(generator: Any) -> Any:
    for home, name in OWN:
        if generator is getattr(modules.get(home), name, None):
            return own_generator, (home, name)
    known = dispatch_table.get(type(generator))
    return generator.__reduce_ex__(5) if known is None else known(generator)


def _reduce_stateless(generator: Any) -> Any:
    return type(generator), ()


def own_generator(home: str, name: str) -> Any:
    """That of this process."""
    __import__(home)
    return getattr(modules[home], name)
